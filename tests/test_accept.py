"""Trials of a board that another machine takes as done: what is packed, accepted, and refused."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kdbench.base.errors import UserError
from kdbench.base.seal import quick_digest_of
from kdbench.base.store import file_digest, read_json, write_json
from kdbench.pipeline import provenance
from kdbench.pipeline.accept import accept, find_board, judge, unlike
from kdbench.pipeline.estimate import cost
from kdbench.pipeline.plan import Plan
from kdbench.report.publish import check_nothing_is_lost
from kdbench.runs.archive import ARCHIVE, pack, unpack
from kdbench.runs.folder import STUDY, Run
from tests.board_runs import COMMAND, SETS, PlanIn, finish, of


def test_trials_of_other_code_are_taken_only_where_code_may_be_mixed(
    plan_in: PlanIn, board: Path
) -> None:
    def other(members: dict[str, bytes]) -> None:
        name = "trials/sft/seed-0/spec.json"
        spec = json.loads(members[name])
        spec["harness"] |= {"rooms": "0ddc0de", "commit": "c0ffee", "version": "0.0.1"}
        members[name] = json.dumps(spec).encode()

    repack(board, other)
    offer = judge(plan_in("here"), board)
    assert [trial.name for trial, _ in offer.fitting] == ["teacher", "initial student"]
    (line,) = offer.left
    assert line.startswith("not accepted, runs here: sft seed 0: made by other code of kdbench")
    assert "digest 0ddc0de" in line
    plan = plan_in("here", mix_code=True)
    offer = judge(plan, board)
    assert len(offer.fitting) == 3
    accept(plan, offer)
    assert of(plan, "sft").spec.harness.rooms == "0ddc0de"


def repack(board: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Changes the members of a board's archive."""
    with zipfile.ZipFile(board / ARCHIVE) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(board / ARCHIVE, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_only_scores_logs_answers_and_ids_of_finished_trials_are_packed(
    plan_in: PlanIn, tmp_path: Path
) -> None:
    plan = plan_in("there")
    finish(plan)
    (of(plan, "forward-kl").path / "DONE.json").unlink()
    (tmp_path / ARCHIVE).write_bytes(pack(plan.run))
    shutil.copytree(plan.run.path, tmp_path / "copy", copy_function=shutil.copyfile)
    assert pack(Run(tmp_path / "copy")) == pack(plan.run)
    trials = unpack(tmp_path / ARCHIVE)
    answers = {f"generations/{name}{kind}.jsonl" for name in SETS for kind in ("", ".greedy")}
    assert set(trials) == {"initial-student/seed-0", "sft/seed-0", "teacher/seed-0"}
    assert set(trials["sft/seed-0"]) == {
        "spec.json", "DONE.json", "train.jsonl", "scores.parquet", *answers,
    }  # fmt: skip


def test_accepted_trials_are_those_of_the_board_byte_for_byte(
    plan_in: PlanIn, board: Path, tmp_path: Path
) -> None:
    plan = plan_in("here")
    offer = judge(plan, board)
    assert cost(plan)["trials_to_do"] == 4
    assert cost(plan, [trial for trial, _ in offer.fitting])["trials_to_do"] == 1
    accept(plan, offer)
    assert offer.left == []
    for row, held in zip(("teacher", "initial student", "sft"), offer.fitting, strict=True):
        found = of(plan, row).path
        assert {name: (found / name).read_bytes() for name in held[1]} == held[1]
    assert of(plan, "sft").done is not None
    assert not of(plan, "forward-kl").path.exists()
    (tmp_path / "again.zip").write_bytes(pack(plan.run))
    assert (tmp_path / "again.zip").read_bytes() == (board / ARCHIVE).read_bytes()


def test_provenance_says_what_was_accepted_and_from_where(plan_in: PlanIn, board: Path) -> None:
    plan = plan_in("here")
    for _ in range(2):  # the second time there is nothing left to accept
        accept(plan, judge(plan, board))
    found = read_json(plan.run.path / "provenance.json")
    taken = {
        "board": "board",
        "archive": file_digest(board / ARCHIVE),
        "commits": ["c0ffee"],
        "trials": ["teacher", "initial student", "sft seed 0"],
    }
    assert found["accepted"] == [taken]
    assert found["commands"] == [COMMAND]
    provenance.begin(replace(plan, jobs=7), 0.0)
    after = read_json(plan.run.path / "provenance.json")
    assert "jobs" in after["mixed"]
    assert after["accepted"] == [taken]


def test_a_board_of_other_settings_is_refused_by_the_field_that_differs(
    plan_in: PlanIn, board: Path
) -> None:
    plan = plan_in("here", settings=("recipe.lr=0.5",))
    with pytest.raises(UserError, match=r"suite\.recipe\.lr: 0\.003 -> 0\.5"):
        judge(plan, board)
    assert not plan.run.path.exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("spec.json", b'{"variant": "sft"}', "objective: Field required"),
        ("spec.json", b"{", "broken"),
        ("DONE.json", b"{}", "status: Field required"),
        ("DONE.json", b"[]", "not a JSON object"),
        ("scores.parquet", b"<html>", "not the one that DONE.json vouches for"),
        ("train.jsonl", b"", "not the one that DONE.json vouches for"),
        ("DONE.json", None, "the board lacks DONE.json"),
        ("generations/vicuna.jsonl", None, "the board lacks generations/vicuna.jsonl"),
        ("train.jsonl", None, "the board lacks train.jsonl"),
    ],
)
def test_a_trial_that_is_not_the_plans_runs_here_and_is_named(
    plan_in: PlanIn, board: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = f"trials/sft/seed-0/{name}"

    def change(members: dict[str, bytes]) -> None:
        del members[path]
        if content is not None:
            members[path] = content

    repack(board, change)
    plan = plan_in("here")
    offer = judge(plan, board)
    assert [trial.name for trial, _ in offer.fitting] == ["teacher", "initial student"]
    (line,) = offer.left
    assert "sft seed 0" in line
    assert reason in line


def test_what_the_run_has_is_never_overwritten(plan_in: PlanIn, board: Path) -> None:
    plan = plan_in("here")
    finish(plan, ("teacher", "initial student"))
    (of(plan, "initial student").path / "DONE.json").unlink()
    path = of(plan, "teacher").path / "DONE.json"
    write_json(path, {**read_json(path), "reason": "mine"})
    offer = judge(plan, board)
    accept(plan, offer)
    assert [trial.name for trial, _ in offer.fitting] == ["sft"]
    assert "initial student: it has been begun here" in offer.left[0]
    assert read_json(path)["reason"] == "mine"
    assert of(plan, "initial student").done is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.assign(value=rows.value * 2), "outside 0 to 100"),
        (lambda rows: rows.assign(value=rows.value - 50), "outside 0 to 100"),
        (lambda rows: rows.assign(value=rows.value.where(rows["sample"] != 1)), "outside"),
        (lambda rows: rows[rows["sample"] % 2 == 0], "on dolly lacks"),
        (lambda rows: rows[rows["set"] != "vicuna"], "on vicuna is not of the suite's samples"),
        (lambda rows: rows.replace("vicuna", "average"), "on average is not of the suite's"),
        (lambda rows: rows.replace("rouge_l", "bleu"), "bleu on dolly is no score"),
        (lambda rows: pd.concat([rows, rows.head(1)]), "holds one twice"),
        (lambda rows: rows[rows["metric"] != "exact_match"], "exact_match on dolly is not"),
        (lambda rows: rows.assign(decoding_seed=7), "on dolly is not of the suite's samples"),
        (lambda rows: rows.drop(columns="sample"), "no table of scores"),
        (lambda rows: rows.assign(value=rows.value.astype(str)), "no table of scores"),
    ],
)
def test_scores_that_the_suite_cannot_give_are_not_accepted(
    plan_in: PlanIn, board: Path, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    """Though DONE.json vouches for them: it can be edited as well."""
    scores, done = (f"trials/sft/seed-0/{name}" for name in ("scores.parquet", "DONE.json"))

    def edit(members: dict[str, bytes]) -> None:
        rows = pd.read_parquet(io.BytesIO(members[scores]))
        buffer = io.BytesIO()
        change(rows).to_parquet(buffer, index=False)
        members[scores] = buffer.getvalue()
        tree = json.loads(members[done])
        tree["digests"]["scores.parquet"] = quick_digest_of(members[scores])
        members[done] = json.dumps(tree).encode()

    repack(board, edit)
    (line,) = judge(plan_in("here"), board).left
    assert reason in line


def test_trials_that_were_not_asked_for_are_named(plan_in: PlanIn, board: Path) -> None:
    offer = judge(plan_in("here", objectives="forward-kl"), board)
    assert offer.left == ["not accepted, not asked for: sft/seed-0"]


def test_an_archive_with_anything_else_in_it_is_refused(plan_in: PlanIn, board: Path) -> None:
    repack(board, lambda members: members.update({"trials/../../spec.json": b"{}"}))
    with pytest.raises(UserError, match="which is no file of a trial"):
        judge(plan_in("here"), board)


def halve(content: bytes) -> bytes:
    return content[: len(content) // 2]


def spoil(content: bytes) -> bytes:
    """No byte of the first member's stream is left, and all sizes are as they were."""
    begin = 30 + int.from_bytes(content[26:28], "little")  # past the local header and the name
    size = int.from_bytes(content[18:22], "little")
    return content[:begin] + b"\xff" * size + content[begin + size :]


def lock(content: bytes) -> bytes:
    """The first member claims to be encrypted."""
    place = content.index(b"PK\x01\x02") + 8
    return content[:6] + b"\x01\x00" + content[8:place] + b"\x01\x00" + content[place + 2 :]


@pytest.mark.parametrize("breaking", [halve, spoil, lock])
def test_a_broken_archive_is_a_users_error(
    plan_in: PlanIn, board: Path, breaking: Callable[[bytes], bytes]
) -> None:
    (board / ARCHIVE).write_bytes(breaking((board / ARCHIVE).read_bytes()))
    with pytest.raises(UserError, match="not an archive of trials"):
        judge(plan_in("here"), board)


def test_a_board_without_trials_says_how_it_gets_some(board: Path, tmp_path: Path) -> None:
    (board / ARCHIVE).unlink()
    with pytest.raises(UserError, match="publish RUN --trials"):
        find_board(str(board), tmp_path)
    with pytest.raises(UserError, match="no such board"):
        find_board("nothing", tmp_path)
    (tmp_path / "boards" / "study-alpha").mkdir(parents=True)
    (tmp_path / "boards" / "study-alpha" / STUDY).touch()
    with pytest.raises(UserError, match="is a study"):
        find_board("study-alpha", tmp_path)


@pytest.mark.parametrize(("made", "warned"), [("i" * 64, False), ("j" * 64, True)])
def test_another_initial_student_than_that_of_accepted_trials_is_said_loudly(
    plan_in: PlanIn,
    board: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: str,
    warned: bool,
) -> None:
    plan = plan_in("here")
    accept(plan, judge(plan, board))
    monkeypatch.setattr(provenance, "weights", lambda _: {"initial student": made})
    text = unlike(plan, "initial student")
    assert (text is not None and "NOT PAIRED" in text) == warned


def test_what_is_accepted_is_lost_only_where_it_is_not_asked_for(
    plan_in: PlanIn, board: Path
) -> None:
    def check(plan: Plan) -> None:
        coming = [trial.files(plan.run) for trial in plan.trials]
        check_nothing_is_lost(plan.run, board, plan.shared, trials=True, coming=coming)

    check(plan_in("here"))
    with pytest.raises(UserError, match=r"would be lost \(sft/seed-0\)"):
        check(plan_in("less", objectives="forward-kl"))
