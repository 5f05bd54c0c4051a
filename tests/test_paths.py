"""No name that a stranger chose leaves its folder: suites, indexes, studies, packages, the hub."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.base.paths import inside
from kdbench.config.load import load_suite
from kdbench.config.schema import Model
from kdbench.data.files import locate, place
from kdbench.models.weights import checkpoint
from kdbench.study.design import read_design
from tests.conftest import MICRO_SUITE

OUTSIDE = [
    "../x",
    "a/../../x",
    "a/..",
    "/x",
    "//x/y",
    "~/x",
    "file:///x",
    "..\\x",
    "a\\..\\..\\x",
    "C:\\x",
    "\\x",
    "",
    ".",
    "a\0b",
    "a\nb",
    "\u202ea",
    "a" * 5000,
]
HUB = """\
name: far
data:
  train: {path: a.jsonl, hub: o/n}
  dev: {path: a.jsonl, hub: o/n}
  evaluation: {test: {path: a.jsonl, hub: o/n}}
teacher: {path: x}
student: {path: x}
recipe: {steps: 1, batch: 1, lr: 1}
"""


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^field: "):
        inside(tmp_path, name, "field", links=True)


def test_a_link_may_lead_out_only_of_a_folder_that_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/out").symlink_to(tmp_path)
    (tmp_path / "own/in").symlink_to(tmp_path / "own")
    assert inside(tmp_path / "own", "out/a", "field", links=True) == tmp_path / "own/out/a"
    assert inside(tmp_path / "own", "in/a", "field").name == "a"
    with pytest.raises(UserError, match="a link leads out"):
        inside(tmp_path / "own", "out/a", "field")


@pytest.mark.parametrize("split", ["train", "dev", "evaluation.test"])
@pytest.mark.parametrize("field", ["path", "hub", "hub_file", "hub_revision"])
def test_a_suite_from_the_hub_keeps_to_its_folder(tmp_path: Path, split: str, field: str) -> None:
    (tmp_path / "far.yaml").write_text(HUB)
    setting = f"data.{split}.{field}=../../../mine.jsonl"
    suite = load_suite(str(tmp_path / "far.yaml"), [setting])
    with pytest.raises(UserError, match=rf"data\.{split}\.{field}: .*leads out of its folder"):
        locate(suite, None)


@pytest.mark.parametrize("path", ["/etc/hostname", "../train.jsonl"])
def test_with_a_generator_or_a_data_folder_a_path_lies_below_it(tmp_path: Path, path: str) -> None:
    (tmp_path / "own.yaml").write_text(MICRO_SUITE)
    suite = load_suite(str(tmp_path / "own.yaml"), [f"data.train.path={path}"])
    for folder in (None, tmp_path):
        with pytest.raises(UserError, match=r"data\.train\.path: .*leads out"):
            place(suite.data, folder)
    suite = load_suite(str(tmp_path / "own.yaml"), [f"data.train.path={path}", "data.generator="])
    assert place(suite.data, None) == Path.cwd()  # the user's own files, wherever they are


@pytest.mark.parametrize("name", ["../other.yaml", "/other.yaml", "linked/other.yaml"])
def test_a_suite_includes_what_lies_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/linked").symlink_to(tmp_path)
    (tmp_path / "other.yaml").write_text(HUB)
    (tmp_path / "own/suite.yaml").write_text(f"include: {name}\n")
    with pytest.raises(UserError, match=r"suite\.yaml:1: include: .*leads out of"):
        load_suite(str(tmp_path / "own/suite.yaml"))


def index(folder: Path) -> None:
    weights = {"weight_map": {"w": "../other/model.safetensors"}}
    (folder / "m-1.safetensors").touch()
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))


def code(folder: Path) -> None:
    (folder / "model.safetensors").touch()
    config = {"model_type": "zz", "auto_map": {"AutoModelForCausalLM": "../other/evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("spoil", [index, code])
def test_a_checkpoint_names_files_of_its_own(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    (tmp_path / "other").mkdir()
    for name in ("model.safetensors", "evil.py"):
        (tmp_path / "other" / name).touch()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    spoil(folder)
    with pytest.raises(UserError, match="leads out of its folder"):
        checkpoint(Model(path=str(folder), trust_remote_code=True), "teacher")


@pytest.mark.parametrize(
    "model",
    [Model(gguf="kdbench/../pyproject.toml"), Model(hub="o/n", revision="../../../../x")],
    ids=["gguf", "revision"],
)
def test_a_models_file_or_revision_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="leads out of its folder"):
        checkpoint(model, "teacher")


def test_a_study_names_runs_below_it(tmp_path: Path) -> None:
    design = {
        **{"parameter": "a", "objective": "b", "suite": "c", "values": [], "numeric": False},
        **{"factors": {}, "settings": [], "cells": [], "comparators": []},
        "students": {"../other": []},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(design))
    with pytest.raises(UserError, match=r"study\.yaml: students: .*leads out"):
        read_design(tmp_path)
