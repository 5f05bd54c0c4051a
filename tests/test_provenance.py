"""The command in provenance.json holds no folders, which may be named after people."""

import sys

import pytest

from kdbench.pipeline import provenance


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        (["run", "--suite", "/home/ada/my.yaml"], "kdbench run --suite my.yaml"),
        (["run", "--data-dir=/home/ada/dolly"], "kdbench run --data-dir=dolly"),
        (["run", "--set=teacher.path=~/models/t"], "kdbench run --set=teacher.path=t"),
        (
            ["run", "--set", "teacher={path: /home/ada/my models/t, dtype: bfloat16}"],
            "kdbench run --set 'teacher={path: t, dtype: bfloat16}'",
        ),
        (
            ["run", "--set", "teacher={path: '/home/ada/t'}"],
            """kdbench run --set 'teacher={path: '"'"'t'"'"'}'""",
        ),
        (
            ["run", "--set", "teacher.path='/home/ada/t'"],
            """kdbench run --set 'teacher.path='"'"'t'"'"''""",
        ),
        (
            ["run", "--set", "data.train.path=file:///home/ada/t.jsonl"],
            "kdbench run --set data.train.path=t.jsonl",
        ),
        (["run", "--suite", "../../home/ada/my.yaml"], "kdbench run --suite my.yaml"),
        (["run", "--suite", "a/../../../home/ada/my.yaml"], "kdbench run --suite my.yaml"),
        (["run", "--out", "~ada/runs/"], "kdbench run --out runs"),
        (
            ["study", "--student", "s=student.path:/home/ada/s,seeds:2"],
            "kdbench study --student s=student.path:s,seeds:2",
        ),
        (["run", "--suite", "C:\\Users\\ada\\my.yaml"], "kdbench run --suite my.yaml"),
        (["run", "--set", "teacher.hub=owner/name"], "kdbench run --set teacher.hub=owner/name"),
        (["run", "--suite", "suites/my.yaml"], "kdbench run --suite suites/my.yaml"),
        (["run", "--set", "recipe.lr=0.1"], "kdbench run --set recipe.lr=0.1"),
        (["run", "--objectives", "amid[alpha=-3]"], "kdbench run --objectives 'amid[alpha=-3]'"),
    ],
)
def test_a_path_is_cut_to_its_last_part(
    typed: list[str], written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kdbench", *typed])
    assert provenance.command() == written
