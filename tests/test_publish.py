"""What publishing a board reports, keeps and never shows."""

import shutil
from pathlib import Path

import pytest
import yaml

from kdbench.base.errors import UserError
from kdbench.base.store import write_text
from kdbench.base.strict_yaml import dump_yaml
from kdbench.report.page import DATA_BEGIN, DATA_END
from kdbench.report.publish import publish, publish_latest
from kdbench.report.stamp import PAGE, TABLES, sources, write_stamp
from kdbench.runs.archive import ARCHIVE
from kdbench.runs.folder import Run
from tests.board_runs import PlanIn, finish, of


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
