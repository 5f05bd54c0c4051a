"""Models that bring Python code of their own: run, fetched and carried on only where trusted."""

import importlib.util
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError

from kdbench.base.errors import UserError
from kdbench.base.store import file_digest, write_jsonl
from kdbench.config.load import load_suite
from kdbench.config.schema import Model
from kdbench.generate import Answer, Backend, open_generator
from kdbench.models.model import load
from kdbench.models.probe import check_computation
from kdbench.models.weights import checkpoint
from kdbench.pipeline.artifacts import Artifacts, content_of
from kdbench.pipeline.build import digest_of_weights
from kdbench.pipeline.checks import check_models
from tests.conftest import Cli
from tests.generate_models import MAX_LENGTH, gpt2, llama, prompts, save
from tests.hub_server import COMMIT, ask_hub, serve

CODE = """\
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel


class TwiceConfig(LlamaConfig):
    model_type = "twice"


class TwiceModel(LlamaModel):
    config_class = TwiceConfig

    # vLLM looks for these by name.
    def forward(self, input_ids=None, position_ids=None, inputs_embeds=None, **kwargs):
        named = {"input_ids": input_ids, "position_ids": position_ids}
        output = super().forward(inputs_embeds=inputs_embeds, **named, **kwargs)
        if isinstance(output, tuple):  # as vLLM asks for it
            return 2 * output[0], *output[1:]
        output.last_hidden_state = 2 * output.last_hidden_state
        return output


class TwiceForCausalLM(LlamaForCausalLM):
    config_class = TwiceConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = TwiceModel(config)
        self.post_init()
"""
NAMED = {
    "AutoConfig": "modeling_twice.TwiceConfig",
    "AutoModel": "modeling_twice.TwiceModel",
    "AutoModelForCausalLM": "modeling_twice.TwiceForCausalLM",
}
CPU = torch.device("cpu")
ARCHITECTURE = {"layers": 1, "width": 32, "mlp": 64, "heads": 1}
FIT = {"steps": 2, "batch": 4, "lr": 0.001}


def save_twice(folder: Path, seed: int, **fields: object) -> Path:
    """A Llama whose own code doubles its last hidden states."""
    folder.mkdir()
    save(llama(seed, tied=True), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "twice", "architectures": ["TwiceForCausalLM"], "auto_map": NAMED}
    config["max_position_embeddings"] = 256  # the frame has many tokens for this tokenizer
    (folder / "config.json").write_text(json.dumps(config | fields))
    (folder / "modeling_twice.py").write_text(CODE)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return folder


def save_doubled(folder: Path, seed: int) -> Path:
    """What it computes, from transformers' own code: the last norm's weights are doubled."""
    folder.mkdir()
    model = llama(seed, tied=True)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    return save(model, folder)


def write_suite(folder: Path, teacher: dict[str, object], student: dict[str, object]) -> Path:
    for name in ("train", "dev", "test"):
        rows = [{"instruction": f"Count to {n}.", "output": f"{n} sheep"} for n in range(12)]
        write_jsonl(folder / f"{name}.jsonl", rows)
    tree = {
        "name": "own-code",
        "data": {
            "train": {"path": "train.jsonl"},
            "dev": {"path": "dev.jsonl"},
            "evaluation": {"count": {"path": "test.jsonl", "limit": 3}},
            "max_prompt": 240,
            "max_length": 256,
        },
        "teacher": teacher,
        "student": student,
        "recipe": {"steps": 3, "batch": 4, "lr": 0.001},
        "decoding": {"max_new_tokens": 6, "seeds": [10]},
        "seeds": 1,
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_code_that_the_suite_does_not_trust_is_refused_with_the_flag(
    role: str, tmp_path: Path
) -> None:
    folder = save_twice(tmp_path / "own", 0)
    models: dict[str, dict[str, object]] = {
        name: {"path": str(folder), "trust_remote_code": name != role}
        for name in ("teacher", "student")
    }
    suite = load_suite(str(write_suite(tmp_path, **models)))
    said = rf"{role}: .*modeling_twice\.py.*--set {role}\.trust_remote_code=true"
    with pytest.raises(UserError, match=said):
        check_models(Artifacts(suite, tmp_path), "transformers")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("gone.TwiceConfig", r"gone\.py is missing, which config\.json names"),
        ("a/b--modeling_twice.TwiceConfig", "from another repository"),
    ],
)
@pytest.mark.parametrize("key", ["AutoConfig", "AutoModel", "AutoModelForTokenClassification"])
def test_code_that_is_not_in_the_models_folder_is_refused(
    key: str, place: str, said: str, tmp_path: Path
) -> None:
    folder = save_twice(tmp_path / "own", 0, auto_map=NAMED | {key: place})
    trusted: dict[str, object] = {"path": str(folder), "trust_remote_code": True}
    suite = load_suite(str(write_suite(tmp_path, trusted, trusted)))
    with pytest.raises(UserError, match=said):
        check_models(Artifacts(suite, tmp_path), "transformers")


def test_an_architecture_that_nobody_knows_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    folder = save_twice(tmp_path / "own", 0, auto_map={})
    with pytest.raises(UserError, match=r"model_type twice, which transformers .* does not know"):
        checkpoint(Model(path=str(folder), trust_remote_code=True), "teacher")


def test_a_file_that_the_code_imports_is_missed_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = save_twice(tmp_path / "own", 0)
    (folder / "modeling_twice.py").write_text("from .helper import help\n" + CODE)
    with pytest.raises(UserError, match=r"helper\.py is missing, which modeling_twice\.py imports"):
        checkpoint(Model(path=str(folder), trust_remote_code=True), "teacher")


@pytest.mark.parametrize("origin", [{"gguf": "a.gguf"}, {"architecture": ARCHITECTURE, "fit": FIT}])
def test_trust_beside_what_brings_no_code_is_refused(origin: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="only a path or a hub brings code"):
        Model(**origin, trust_remote_code=True)


def test_untrusted_code_does_not_run_even_where_a_model_is_loaded_directly(tmp_path: Path) -> None:
    folder = save_twice(tmp_path / "own", 0)
    (folder / "modeling_twice.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(folder, CPU)


def test_trusted_code_computes_what_it_says(tmp_path: Path) -> None:
    own = load(save_twice(tmp_path / "own", 0), CPU, trust_remote_code=True).eval()
    plain = load(save_doubled(tmp_path / "plain", 0), CPU).eval()
    tokens = torch.arange(1, 12)[None]
    assert torch.equal(own(tokens).logits, plain(tokens).logits)


def test_models_that_share_a_configuration_run_each_its_own_code(tmp_path: Path) -> None:
    """As a teacher and a student of one family do, whose folders have one name."""
    config, model = CODE.split("class TwiceModel")
    head = "from transformers import LlamaForCausalLM, LlamaModel\n"
    head += "from .configuration_twice import TwiceConfig\n\n\nclass TwiceModel"
    logits = []
    for factor in (2, 3):
        (tmp_path / str(factor)).mkdir()
        folder = tmp_path / str(factor) / "model"
        named = NAMED | {"AutoConfig": "configuration_twice.TwiceConfig"}
        save_twice(folder, 0, auto_map=named)
        (folder / "configuration_twice.py").write_text(config)
        code = model.replace("2 *", f"{factor} *")
        (folder / "modeling_twice.py").write_text(head + code)
        loaded = load(folder, CPU, trust_remote_code=True).eval()
        logits.append(loaded(torch.arange(1, 12)[None]).logits / factor)
    torch.testing.assert_close(logits[0], logits[1])


BETWEEN = """

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 4
        return output
"""
WITHOUT_MASK = """

    def forward(self, attention_mask=None, position_ids=None, **kwargs):
        return super().forward(**kwargs)
"""
WITHOUT_CACHE = """

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, **kwargs):
        mask = attention_mask if input_ids.shape[1] > 1 else None
        return super().forward(input_ids, attention_mask=mask, **kwargs)
"""
FEW_ARGUMENTS = """

    def forward(self, input_ids=None):
        return super().forward(input_ids)
"""


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        (BETWEEN, "does something between its body and its head"),
        (WITHOUT_MASK, "does not heed the positions, the mask or the cache"),
        (WITHOUT_CACHE, "does not heed the positions, the mask or the cache"),
        (FEW_ARGUMENTS, "cannot be called as transformers' own models are"),
    ],
    ids=["between", "without mask", "without cache", "few arguments"],
)
def test_code_that_computes_something_else_than_is_trained_is_refused(
    addition: str, said: str, tmp_path: Path
) -> None:
    folder = save_twice(tmp_path / "own", 0)
    (folder / "modeling_twice.py").write_text(CODE.rstrip("\n") + addition)
    model = load(folder, CPU, trust_remote_code=True).eval()
    with pytest.raises(UserError, match=f"student: TwiceForCausalLM {said}"):
        check_computation(model, model.config.vocab_size, "student", 24)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_own_models_pass_the_same_check(tied: bool) -> None:
    for model in (llama(0, tied=tied), gpt2(0)):
        check_computation(model.eval(), model.config.vocab_size - 3, "student", 24)


def test_weights_that_are_not_finite_are_named_as_such() -> None:
    model = llama(0, tied=True).eval()
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    with pytest.raises(UserError, match="student: the logits are not finite"):
        check_computation(model, model.config.vocab_size, "student", 24)


def test_an_id_that_never_comes_is_no_difference() -> None:
    model = gpt2(0).eval()
    head = torch.nn.Linear(64, model.config.vocab_size)
    with torch.no_grad():
        head.weight.copy_(model.lm_head.weight)
        head.bias.zero_()
        head.bias[7] = torch.finfo(torch.float32).min
    model.lm_head = head
    check_computation(model, model.config.vocab_size, "student", 24)


def test_a_finished_trial_records_the_code_beside_the_weights(tmp_path: Path) -> None:
    folder = save_twice(tmp_path / "own", 0)
    plain, trusted = (Model(path="x", trust_remote_code=trust) for trust in (False, True))
    before = [digest_of_weights(folder, spec) for spec in (plain, trusted)]
    (folder / "modeling_twice.py").write_text(CODE.replace("2 *", "3 *"))
    after = [digest_of_weights(folder, spec) for spec in (plain, trusted)]
    assert before[0] == after[0] == file_digest(folder / "model.safetensors")
    assert before[1] != after[1]


def test_another_code_is_another_model(tmp_path: Path) -> None:
    folder = save_twice(tmp_path / "own", 0)

    def key(trusted: bool) -> str:
        model: dict[str, object] = {"path": str(folder), "trust_remote_code": trusted}
        suite = load_suite(str(write_suite(tmp_path, model, model)))
        # A fresh process would find what a folder holds now.
        content_of.cache_clear()
        return Artifacts(suite, tmp_path).model("teacher").name

    trusted = key(trusted=True)
    (folder / "modeling_twice.py").write_text(CODE.replace("2 *", "3 *"))
    assert key(trusted=True) != trusted


def test_code_is_fetched_from_the_hub_only_where_it_is_trusted(tmp_path: Path) -> None:
    config = {"model_type": "twice", "auto_map": NAMED}
    files = {
        "a/own/config.json": json.dumps(config).encode(),
        "a/own/model.safetensors": b"1234",
        "a/own/tokenizer.json": b"{}",
        "a/own/modeling_twice.py": CODE.encode(),
        "a/own/helper.py": b"",
        "a/own/unused.bin": b"x",
    }
    untrusted, trusted = Model(hub="a/own"), Model(hub="a/own", trust_remote_code=True)
    with serve(files) as hub:
        (refused,) = ask_hub(hub.endpoint, tmp_path, untrusted)
        pinned = f"--set teacher.trust_remote_code=true --set teacher.revision={COMMIT}"
        assert f"a/own, revision {COMMIT}," in refused
        assert pinned in refused
        assert not [path for _, path, _ in hub.asked if path.endswith(".py")]
        (got,) = ask_hub(hub.endpoint, tmp_path, trusted)
        assert (Path(got) / "modeling_twice.py").read_text() == CODE
        assert ask_hub(hub.endpoint, tmp_path, trusted, offline=True) == [got]
        (Path(got) / "helper.py").unlink()  # a download that was cut off
        assert ask_hub(hub.endpoint, tmp_path, trusted) == [got]
    assert (Path(got) / "helper.py").is_file()


@pytest.mark.slow
def test_a_run_with_such_models_ends_in_a_board_and_in_students_that_carry_the_code(
    cli: Cli, tmp_path: Path
) -> None:
    teacher: dict[str, object] = {"path": str(save_twice(tmp_path / "teacher", 0))}
    student: dict[str, object] = {"path": str(save_twice(tmp_path / "student", 1))}
    trusted = {"trust_remote_code": True}
    suite = write_suite(tmp_path, teacher | trusted, student | trusted | {"fit": FIT})
    objectives = ("--objectives", "forward-kl,gkd")  # gkd asks both models for their own samples
    cli("run", "--suite", str(suite), "--backend", "transformers", *objectives)
    results = tmp_path / "results/own-code"
    board = pd.read_csv(results / "leaderboard.csv")
    assert set(board.variant) >= {"teacher", "initial student", "forward-kl"}
    saved = results / "trials/forward-kl/seed-0/model"
    assert (saved / "modeling_twice.py").read_text() == CODE
    assert type(load(saved, CPU, trust_remote_code=True)).__name__ == "TwiceForCausalLM"


def greedy_answers(backend: Backend, folder: Path, trust_remote_code: bool) -> list[Answer]:
    generator = open_generator(backend, MAX_LENGTH)
    generator.load(folder, trust_remote_code=trust_remote_code)
    asked = prompts(8)
    return generator.generate(
        asked, temperature=0.0, top_p=1.0, max_new_tokens=12, seeds=range(len(asked))
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_runs_the_code_even_where_it_knows_a_class_of_that_name(tmp_path: Path) -> None:
    named = {key: place.replace("TwiceForC", "LlamaForC") for key, place in NAMED.items()}
    own = save_twice(tmp_path / "own", 0, auto_map=named, architectures=["LlamaForCausalLM"])
    (own / "modeling_twice.py").write_text(CODE.replace("TwiceForC", "LlamaForC"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        answers = child.submit(greedy_answers, "vllm", own, True).result()
    assert answers == greedy_answers("transformers", save_doubled(tmp_path / "plain", 0), False)
