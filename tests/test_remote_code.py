"""Models that bring Python code of their own: run, fetched and carried on only where trusted."""

import importlib.util
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from kdbench.artifacts import Artifacts
from kdbench.checks import check_models
from kdbench.errors import UserError
from kdbench.generate import Answer, Backend, open_generator
from kdbench.models import load
from kdbench.spec import Model
from kdbench.store import write_jsonl
from kdbench.suites import load_suite
from tests.conftest import Cli
from tests.generate_models import MAX_LENGTH, llama, prompts, save
from tests.hub_server import ask_hub, serve

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
        "decoding": {"max_new_tokens": 6},
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
def test_code_that_is_not_in_the_models_folder_is_refused(
    place: str, said: str, tmp_path: Path
) -> None:
    folder = save_twice(tmp_path / "own", 0, auto_map=NAMED | {"AutoConfig": place})
    trusted: dict[str, object] = {"path": str(folder), "trust_remote_code": True}
    suite = load_suite(str(write_suite(tmp_path, trusted, trusted)))
    with pytest.raises(UserError, match=said):
        check_models(Artifacts(suite, tmp_path), "transformers")


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


def test_another_code_is_another_model(tmp_path: Path) -> None:
    folder = save_twice(tmp_path / "own", 0)

    def key(trusted: bool) -> str:
        model: dict[str, object] = {"path": str(folder), "trust_remote_code": trusted}
        suite = load_suite(str(write_suite(tmp_path, model, model)))
        # A fresh process would find what a folder holds now.
        from kdbench import artifacts

        artifacts._content.cache_clear()
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
        "a/own/unused.bin": b"x",
    }
    untrusted, trusted = Model(hub="a/own"), Model(hub="a/own", trust_remote_code=True)
    with serve(files) as hub:
        (refused,) = ask_hub(hub.endpoint, tmp_path, untrusted)
        assert "--set teacher.trust_remote_code=true" in refused
        assert not [path for _, path, _ in hub.asked if path.endswith(".py")]
        (got,) = ask_hub(hub.endpoint, tmp_path, trusted)
    assert (Path(got) / "modeling_twice.py").read_text() == CODE
    assert ask_hub(hub.endpoint, tmp_path, trusted, offline=True) == [got]


@pytest.mark.slow
def test_a_run_with_such_models_ends_in_a_board_and_in_students_that_carry_the_code(
    cli: Cli, tmp_path: Path
) -> None:
    teacher: dict[str, object] = {"path": str(save_twice(tmp_path / "teacher", 0))}
    student: dict[str, object] = {"path": str(save_twice(tmp_path / "student", 1))}
    trusted = {"trust_remote_code": True}
    fit = {"fit": {"steps": 2, "batch": 4, "lr": 0.001}}
    suite = write_suite(tmp_path, teacher | trusted, student | trusted | fit)
    objectives = ("--objectives", "forward-kl,gkd")  # gkd asks both models for their own samples
    cli("run", "--suite", str(suite), "--backend", "transformers", *objectives)
    results = tmp_path / "results/own-code"
    board = pd.read_csv(results / "leaderboard.csv")
    assert set(board.variant) >= {"teacher", "init", "forward-kl"}
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
def test_vllm_serves_such_a_model_through_transformers_code(tmp_path: Path) -> None:
    own = save_twice(tmp_path / "own", 0)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        answers = child.submit(greedy_answers, "vllm", own, True).result()
    assert answers == greedy_answers("transformers", save_doubled(tmp_path / "plain", 0), False)
