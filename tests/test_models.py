"""Models from the hub and from folders: what is refused, what is trained, what they take."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from kdbench.base.errors import UserError
from kdbench.base.store import write_jsonl
from kdbench.config.identity import digest
from kdbench.config.load import installed_suites, load_suite
from kdbench.config.schema import Lora, Model, Shape
from kdbench.data.template import prompt_text
from kdbench.models import weights
from kdbench.models.model import adapt, hidden_states, load
from kdbench.models.size import size_of
from kdbench.pipeline import build
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.estimate import (
    at_most,
    device_memory,
    guess_counts,
    memory_of,
    sizes_of,
)
from kdbench.pipeline.plan import Request, make_plan
from kdbench.train.state import load_checkpoint, save_checkpoint
from kdbench.variants.variant import parse
from tests.conftest import Cli
from tests.hub_server import COMMIT, ask_hub, serve
from tests.peak_memory import prepare
from tests.training_tools import plain_job

SHAPE = Shape(layers=2, width=32, mlp=64, heads=2, vocabulary=320)
OWN = ("instruct", "dolly-tiny", "dolly-smollm")
PUBLISHED = sorted(name for name in installed_suites() if name not in OWN)


def tiny_llama(layers: int = 2, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def write_config(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_what_moves_a_result_is_in_the_key_and_what_does_not_is_not() -> None:
    plain = digest(Model(hub="a/b"))
    assert digest(Model(hub="a/b", shape=SHAPE, gradient_checkpointing=True)) == plain
    moved = [
        Model(hub="a/b", revision="v2"),
        Model(hub="a/b", lora=Lora(rank=4, alpha=8)),
        Model(hub="a/b", dtype="float16"),
    ]
    assert len({plain, *map(digest, moved)}) == 4


def test_pickled_weights_are_refused_and_asked_for_by_name(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "old", model_type="gpt2")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UserError, match=r"pickle: true.*--set teacher\.pickle=true"):
        weights.checkpoint(Model(path=str(folder)), "teacher")
    assert weights.checkpoint(Model(path=str(folder), pickle=True), "teacher") == folder


def test_without_a_network_the_flag_that_works_is_named() -> None:
    with pytest.raises(UserError, match=r"teacher: no/such could not.*--set teacher\.path=FOLDER"):
        weights.checkpoint(Model(hub="no/such"), "teacher")


def test_what_the_hub_has_is_fetched_once_and_what_it_has_not_is_named(tmp_path: Path) -> None:
    config = {"config.json": b"{}", "tokenizer.json": b"{}"}
    index = {"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}}
    sharded = {"model.safetensors.index.json": json.dumps(index).encode()}
    repositories = {
        "a/many": {**config, **sharded, "model-1.safetensors": b"1", "model-2.safetensors": b"2"},
        "a/safe": {**config, "model.safetensors": b"1234", "pytorch_model.bin": b"x", "x.py": b""},
        "a/old": {**config, "pytorch_model.bin": b"cos"},
    }
    files = {f"{name}/{f}": text for name, held in repositories.items() for f, text in held.items()}
    safe, old = Model(hub="a/safe", revision="v1"), Model(hub="a/old")
    many, none = Model(hub="a/many"), Model(hub="a/none")
    with serve(files) as hub:
        got, refused, missing, torn = ask_hub(hub.endpoint, tmp_path, safe, old, none, many)
        assert COMMIT in got
        assert (Path(got) / "model.safetensors").read_bytes() == b"1234"
        assert "has no safetensors weights" in refused
        assert "--set teacher.pickle=true" in refused
        assert "no such model on the hub" in missing
        assert not [path for _, path, _ in hub.asked if path.endswith((".bin", ".py"))]
        (Path(torn) / "model-2.safetensors").unlink()  # as where a download broke off
        asked, whole = ask_hub(hub.endpoint, tmp_path, Model(hub="a/old", pickle=True), many)
        assert (Path(asked) / "pytorch_model.bin").read_bytes() == b"cos"
        assert (Path(whole) / "model-2.safetensors").read_bytes() == b"2"
    assert ask_hub(hub.endpoint, tmp_path, safe, offline=True) == [got]


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="no model id of the hub"):
        weights.checkpoint(Model(hub="not//an id"), "student")


def test_a_folder_takes_the_place_of_the_hub(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "local", model_type="gpt2")
    (folder / "model.safetensors").write_bytes(b"")
    model = Model(hub="no/such", path=str(folder))
    assert weights.at_hand(model)
    assert weights.checkpoint(model, "teacher") == folder


def test_weights_in_several_files_become_one(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(weights.weights_files(tmp_path / "many")) > 1
    spec = Model(path=str(tmp_path / "many"))
    made = build.one_file(tmp_path / "many", tmp_path / "one", spec)
    again = load(made, torch.device("cpu"))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    weights.weights_files(tmp_path / "many")[-1].unlink()
    with pytest.raises(UserError, match=r"model-\S+ is missing, which model\.safetensors\.index"):
        weights.checkpoint(spec, "teacher")


def test_adapters_begin_at_the_model_train_alone_and_merge_exactly() -> None:
    pytest.importorskip("peft")
    model, tokens = tiny_llama().eval(), torch.arange(12)[None]
    before = hidden_states(model, tokens, torch.arange(12)).detach()
    adapters = adapt(model, Lora(rank=2, alpha=4), seed_key="test")
    assert torch.equal(hidden_states(model, tokens, torch.arange(12)), before)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        hidden_states(model, tokens, torch.arange(12)).square().sum().backward()
        optimizer.step()
    after = hidden_states(model, tokens, torch.arange(12)).detach()
    assert not torch.allclose(after, before)
    merged = adapters.merge_and_unload()
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(hidden_states(merged, tokens, torch.arange(12)), after)


@pytest.mark.parametrize(
    ("tied", "targets", "said"),
    [
        (True, ("q_proj", "embed_tokens"), "model.embed_tokens shares its weights with lm_head"),
        (True, ("q_proj", "lm_head"), "lm_head shares its weights with model.embed_tokens"),
        (False, ("q_proj", "lm_head"), "lm_head, the output head, cannot be adapted"),
        (False, ("q_proj", "embed_tokens"), None),
    ],
)
def test_adapters_of_weights_that_two_layers_read_are_refused(
    tied: bool, targets: tuple[str, ...], said: str | None
) -> None:
    pytest.importorskip("peft")
    model, lora = tiny_llama(tied=tied), Lora(rank=2, alpha=4, targets=targets)
    if said is None:
        adapt(model, lora, seed_key="test")
        return
    with pytest.raises(UserError, match=f"^lora.targets: {said}"):
        adapt(model, lora, seed_key="test")


def test_adapters_of_a_layer_that_stands_in_two_places_are_refused() -> None:
    pytest.importorskip("peft")
    model = tiny_llama()
    first, second = model.model.layers
    second.self_attn.q_proj.weight = first.self_attn.q_proj.weight
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.q_proj shares its weights with"):
        adapt(model, Lora(rank=2, alpha=4), seed_key="test")


def test_from_the_cache_the_teachers_body_is_not_loaded(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdbench.train import loop

    loaded: list[Path] = []

    def counted(folder: Path, *arguments: object, **options: object) -> object:
        loaded.append(folder)
        return load(folder, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("kdbench.train.job.load", counted)
    job = plain_job(artifacts, parse("forward-kl"), tmp_path)
    loop.train(job)
    assert loaded == [artifacts.model("student") / "model"]


def test_gradient_checkpointing_moves_nothing() -> None:
    grads = []
    for on in (False, True):
        model = tiny_llama().train()
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        hidden_states(model, torch.arange(12)[None], torch.arange(12)).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


def test_a_checkpoint_is_counted_as_it_is(tmp_path: Path) -> None:
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=320, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    )
    for name, model, mlp in (("llama", tiny_llama(), 64), ("gpt2", gpt2, 128)):
        model.save_pretrained(tmp_path / name)
        counted = size_of(Model(path=str(tmp_path / name)), "student", 0)
        assert counted.parameters == model.num_parameters()
        gated = name == "llama"
        assert (counted.layers, counted.width, counted.mlp, counted.gated) == (2, 32, mlp, gated)
        assert counted.body == 2 * (4 * 32 * 32 + (3 if gated else 2) * 32 * mlp)
        assert (counted.head, counted.dtype) == (320 * 32, "float32")


def test_a_stated_shape_counts_what_its_model_would(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "llama")
    counted = size_of(Model(path=str(tmp_path / "llama")), "student", 0)
    stated = size_of(Model(hub="nobody/nothing", shape=SHAPE), "student", 0)
    assert replace(counted, dtype="") == stated


def test_a_model_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    message = "no known field for layers, hidden size, heads or vocabulary; only `kdbench plan`"
    with pytest.raises(UserError, match=message):
        size_of(Model(path=str(tmp_path / "mamba")), "student", 0)


@pytest.mark.parametrize(
    ("name", "teacher", "student"),
    [
        ("dolly-gpt2", 1.558e9, 0.124e9),
        ("dolly-gpt2-medium", 1.558e9, 0.355e9),
        ("dolly-gpt2-large", 1.558e9, 0.774e9),
        ("dolly-opt", 2.65e9, 0.125e9),
        ("dolly-openllama", 6.74e9, 3.43e9),
        ("dolly-qwen", 1.84e9, 0.464e9),
        ("dolly-qwen3", 4.02e9, 0.596e9),
    ],
)
def test_published_suites_state_the_sizes_that_their_models_have(
    name: str, teacher: float, student: float
) -> None:
    found = [size.parameters for size in sizes_of(load_suite(name))]
    assert found == pytest.approx([teacher, student], rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_suites_follow_the_protocol(name: str) -> None:
    suite = load_suite(name)
    assert list(suite.data.evaluation) == ["dolly", "self-inst", "vicuna", "sinst", "uinst"]
    assert (suite.data.max_prompt, suite.data.max_length) == (256, 512)
    assert suite.data.truncation == ("ours" if suite.data.template == "chat" else "published")
    assert suite.decoding.seeds == (10, 20, 30, 40, 50)
    assert suite.decoding.no_repeat_ngram_size == 6
    assert suite.recipe.betas == (0.9, 0.999)
    assert (suite.recipe.weight_decay, suite.recipe.clip, suite.recipe.min_lr) == (0.01, 1.0, 1e-7)


def test_a_plan_of_models_that_are_not_here_is_made_on_paper(cli: Cli) -> None:
    said = json.loads(cli("plan", "--suite", "dolly-gpt2", "--json").stdout)
    assert said["not_here"] == ["MiniLLM/teacher-gpt2-1.5B", "MiniLLM/init-gpt2-120M"]
    # AdamW: gradients and two moments, 12 bytes a parameter of 124.4 million.
    assert said["memory"]["optimizer"] == pytest.approx(12 * 124.4e6, rel=0.01)
    assert said["training_tokens_at_most"] == 7140 * 32 * 512


def test_smaller_micro_batches_take_less_memory_and_make_no_other_run(
    cli: Cli, tmp_path: Path
) -> None:
    asked = ("plan", "--suite", "dolly-opt", "--json")
    whole, part = (
        json.loads(cli(*asked, *more).stdout)["memory"] for more in ((), ("--micro-batch", "16"))
    )
    assert part["activations"] == whole["activations"] / 8
    assert {name for name in whole if whole[name] != part[name]} == {
        "activations",
        "total",
        "teacher_fit",
    }
    request = Request("instruct", objectives="sft", backend="transformers", out=tmp_path)
    plans = [make_plan(replace(request, micro_batch=size)) for size in (None, 4)]
    assert [plan.micro_batch for plan in plans] == [16, 4]
    assert plans[0].spec == plans[1].spec


def test_a_teacher_that_is_fitted_has_to_fit_too() -> None:
    suite = load_suite("dolly-opt")
    memory = memory_of(suite, at_most(512), rows=8, gpu=True)
    # Weights, their cast copies, gradients and moments: 18 bytes a parameter of 2.65 billion.
    assert memory["teacher_fit"] > 18 * 2.65e9 > memory["total"]
    assert not device_memory({**memory, "total": 0.0, "teacher_fit": 1e15}, 1)["fits"]


@pytest.mark.parametrize("truncation", ["ours", "published"])
def test_tokens_are_guessed_as_rows_are_cut_or_left_out(tmp_path: Path, truncation: str) -> None:
    """One row of 20 words, one whose answer is too long, one whose prompt is."""
    words = [(10, 10), (10, 900), (900, 10)]
    rows = [{"instruction": "a " * a, "output": "b " * b} for a, b in words]
    (tmp_path / "dolly").mkdir()
    for name in ("train", "dev"):
        write_jsonl(tmp_path / "dolly" / f"{name}.jsonl", rows)
    found = guess_counts(load_suite("dolly-gpt2", [f"data.truncation={truncation}"]), tmp_path)
    frame = 1.35 * len(prompt_text("", "").split())
    short = 1.35 * 20 + frame + 1
    long = [512.0] if truncation == "published" else []
    lengths = [short, *long, 256 + 1.35 * 10 + 1]
    assert found.mean_length == pytest.approx(sum(lengths) / len(lengths))


def test_a_checkpoint_of_adapters_holds_no_frozen_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = tiny_llama()
    adapt(model, Lora(rank=2, alpha=4), seed_key="test")
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    save_checkpoint(tmp_path / "c.safetensors", model, optimizer, 3, {})
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        assert all("lora" in name for name in file.keys())  # noqa: SIM118 - not a dictionary
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]
    assert load_checkpoint(tmp_path / "c.safetensors", model, optimizer) == (3, {})


def test_an_included_file_is_below_and_errors_name_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("recipe: {steps: 5, batch: 2, lr: 0.1}\nseeds: 4\n")
    (tmp_path / "top.yaml").write_text("include: base.yaml\nrecipe: {steps: 0}\n")
    with pytest.raises(UserError) as caught:
        load_suite(str(tmp_path / "top.yaml"))
    assert f"{tmp_path}/top.yaml:2: recipe.steps" in str(caught.value)
    (tmp_path / "base.yaml").write_text("recipe: {steps: 5, batch: -2, lr: 0.1}\n")
    with pytest.raises(UserError, match=r"base\.yaml:1: recipe\.batch"):
        load_suite(str(tmp_path / "top.yaml"))


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("include: loop.yaml\n")
    with pytest.raises(UserError, match="includes itself"):
        load_suite(str(tmp_path / "loop.yaml"))


@pytest.mark.slow
def test_estimated_memory_is_within_a_fifth_of_what_training_takes(tmp_path: Path) -> None:
    prepare(tmp_path)
    said = subprocess.run(
        [sys.executable, "-m", "tests.peak_memory", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(said.stdout.splitlines()[-1])
    assert figures["estimate"] == pytest.approx(figures["measured"], rel=0.2)
