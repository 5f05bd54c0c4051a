"""Trials of a board that another machine takes as done: what is packed, accepted, and refused."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from kdbench.base.errors import UserError
from kdbench.base.seal import quick_digest, quick_digest_of
from kdbench.base.store import file_digest, read_json, write_json, write_jsonl, write_text
from kdbench.base.strict_yaml import dump_yaml
from kdbench.pipeline import provenance
from kdbench.pipeline.accept import accept, find_board, judge, unlike
from kdbench.pipeline.estimate import cost
from kdbench.pipeline.plan import Plan, Request, make_plan, write_spec
from kdbench.report.page import DATA_BEGIN, DATA_END
from kdbench.report.publish import check_nothing_is_lost, publish, publish_latest
from kdbench.report.stamp import PAGE, TABLES, sources, write_stamp
from kdbench.runs.archive import ARCHIVE, pack, unpack
from kdbench.runs.folder import STUDY, Run, TrialFiles
from tests.synthetic_run import Variant, write_trial

SETS = {"dolly": 8, "vicuna": 6}
WEIGHTS = {"teacher": "t" * 64, "initial student": "i" * 64}
COMMAND = {"command": "kdbench run", "commit": "c0ffee", "jobs": 2, "weights": WEIGHTS}

PlanIn = Callable[..., Plan]


@pytest.fixture
def plan_in(micro: Path, tmp_path: Path) -> PlanIn:
    """Plans of the micro suite, each with a folder of its own."""

    def make(folder: str, **changes: Any) -> Plan:
        given: dict[str, Any] = {"objectives": "sft,forward-kl", "seeds": 1} | changes
        request = Request(str(micro), out=tmp_path / folder, backend="transformers", **given)
        return make_plan(request)

    return make


def finish(
    plan: Plan, rows: tuple[str, ...] = ("teacher", "initial student", "sft", "forward-kl")
) -> None:
    """Writes what a run leaves of finished trials, and what it does not publish."""
    write_spec(plan)
    write_json(plan.run.path / "provenance.json", {"commands": [COMMAND], "mixed": []})
    for trial in plan.trials:
        if trial.spec.variant not in rows:
            continue
        files = trial.files(plan.run)
        steps = 0 if trial.variant is None else 60
        write_trial(plan.run, Variant(trial.name, 50.0), 0, steps=steps, sets=SETS)
        made = plan.run.trial(trial.name, 0).path  # references have a space in their names
        if made != files.path:
            files.path.parent.mkdir(parents=True, exist_ok=True)
            made.rename(files.path)
        write_json(files.path / "spec.json", trial.spec.model_dump(mode="json"))
        digests = {
            path.name: quick_digest(path)
            for path in (files.scores_path, files.train_log)
            if path.exists()
        }
        path = files.path / "DONE.json"
        write_json(path, {**read_json(path), "weights": WEIGHTS, "digests": digests})
        for name, size in SETS.items():
            for greedy in (False, True):
                answer = {"decoding_seed": 10, "text": trial.slug, "n_tokens": 1, "finish": "stop"}
                lines = [{"sample": sample, **answer} for sample in range(size)]
                write_jsonl(files.generations(name, greedy), lines)
        for name in ("trained.json", "FAILED.json", "checkpoint.safetensors", "model/config.json"):
            (files.path / name).parent.mkdir(exist_ok=True)
            (files.path / name).write_text("{}")


@pytest.fixture
def board(plan_in: PlanIn, tmp_path: Path) -> Path:
    """A board with the trials of all rows but forward-kl."""
    plan = plan_in("there")
    finish(plan, ("teacher", "initial student", "sft"))
    folder = tmp_path / "board"
    folder.mkdir()
    for name in ("spec.yaml", "provenance.json"):
        shutil.copyfile(plan.run.path / name, folder / name)
    (folder / ARCHIVE).write_bytes(pack(plan.run))
    return folder


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


def of(plan: Plan, row: str) -> TrialFiles:
    (trial,) = [trial for trial in plan.trials if trial.name.startswith(row)]
    return trial.files(plan.run)


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


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The rows of every report; in the place of the real one, which takes seconds."""
    written: list[list[str]] = []

    def write_report(run: Run) -> None:
        written.append([trial.spec.variant for trial in run.trials() if trial.done])
        for name in set(TABLES) - {"spec.yaml", "provenance.json"}:
            write_text(run.path / name, f"{written[-1]}")
        write_text(run.path / PAGE, f'{DATA_BEGIN}{{"samples": {{}}}}{DATA_END}')
        write_stamp(run, sources(run))

    monkeypatch.setattr("kdbench.report.write.write_report", write_report)
    return written


def test_publishing_never_loses_trials_that_only_the_board_has(
    plan_in: PlanIn, tmp_path: Path, reports: list[list[str]]
) -> None:
    plan, boards = plan_in("there"), tmp_path / "boards"
    finish(plan)
    publish_latest(plan.run, boards, trials=True)
    before = (boards / "micro" / ARCHIVE).read_bytes()
    with pytest.raises(UserError, match="give --trials"):
        publish(plan.run, boards)
    shutil.rmtree(of(plan, "sft").path)
    with pytest.raises(UserError, match=r"would be lost \(sft/seed-0\)"):
        publish_latest(plan.run, boards, trials=True)
    assert (boards / "micro" / ARCHIVE).read_bytes() == before


def test_publish_reports_what_has_finished_since_the_last_report(
    plan_in: PlanIn, tmp_path: Path, reports: list[list[str]]
) -> None:
    plan, boards = plan_in("there"), tmp_path / "boards"
    finish(plan, ("teacher", "initial student"))
    for _ in range(2):  # the second time there is nothing new to report
        publish_latest(plan.run, boards, trials=True)
    finish(plan, ("forward-kl",))
    assert "3 trials in trials.zip" in publish_latest(plan.run, boards, trials=True)
    assert reports == [["initial student", "teacher"], ["forward-kl", "initial student", "teacher"]]
    assert (boards / "micro" / "leaderboard.csv").read_text() == str(reports[1])


def test_what_is_accepted_is_lost_only_where_it_is_not_asked_for(
    plan_in: PlanIn, board: Path
) -> None:
    def check(plan: Plan) -> None:
        coming = [trial.files(plan.run) for trial in plan.trials]
        check_nothing_is_lost(plan.run, board, plan.shared, trials=True, coming=coming)

    check(plan_in("here"))
    with pytest.raises(UserError, match=r"would be lost \(sft/seed-0\)"):
        check(plan_in("less", objectives="forward-kl"))


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("teacher.path", "/mnt/models/t"),
        ("student.gguf", "../../home/ada/t"),
        ("tokenizer.path", "~/t"),
        ("data.dev.path", "file:///home/ada/t"),
    ],
)
def test_no_board_shows_where_files_lie_on_a_machine(
    plan_in: PlanIn, tmp_path: Path, reports: list[list[str]], field: str, path: str
) -> None:
    plan = plan_in("there")
    finish(plan)
    publish_latest(plan.run, tmp_path / "boards")
    spec = plan.run.path / "spec.yaml"
    tree = yaml.safe_load(spec.read_text())
    *parents, name = ["shared", "suite", *field.split(".")]
    branch = tree
    for parent in parents:
        branch = branch[parent]
    branch[name] = path
    if field.startswith(("teacher", "student")):
        branch["architecture"] = None
        tree["shared"]["suite"]["tokenizer"]["vocabulary"] = None
        tree["shared"]["suite"]["tokenizer"]["path"] = "x"
    if field == "tokenizer.path":
        branch["vocabulary"] = None
    spec.write_text(dump_yaml(tree))
    with pytest.raises(UserError, match=f"{field}: .*a board would show this path"):
        publish_latest(plan.run, tmp_path / "boards")
    assert path not in (tmp_path / "boards/micro/spec.yaml").read_text()


@pytest.mark.parametrize("name", ["provenance.json", "leaderboard.md", "cost.csv", PAGE])
def test_a_home_in_any_file_of_a_board_is_found(
    plan_in: PlanIn, tmp_path: Path, reports: list[list[str]], name: str
) -> None:
    plan = plan_in("there")
    finish(plan)
    publish_latest(plan.run, tmp_path / "boards")
    before = (tmp_path / "boards/micro" / name).read_bytes()
    with (plan.run.path / name).open("a") as file:
        file.write(f"\n{Path.home()}/secret/t")
    with pytest.raises(UserError, match=rf"{name}:\d+: .*a board must not show paths of a home"):
        publish(plan.run, tmp_path / "boards")
    assert (tmp_path / "boards/micro" / name).read_bytes() == before
