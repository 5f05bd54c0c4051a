"""docs/statistics.md: its code runs, and its figures are those of the functions."""

import re
from pathlib import Path

import pytest
import yaml

from kdbench.base.errors import UserError
from kdbench.base.store import write_text
from kdbench.cli import main
from kdbench.config.identity import RunSpec, Shared
from kdbench.data.batches import batch_rows
from kdbench.data.encode import Encoded
from kdbench.data.records import read_split
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.batch import batch_of
from kdbench.runs.folder import Run
from kdbench.stats.intervals import wilson
from kdbench.stats.paired import smallest_sign_flip_p

PAGE = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_the_batch_of_a_step_is_listed_as_the_page_says(
    artifacts: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_spec_of(artifacts, tmp_path)
    (code,) = re.findall(r"```console\nkdbench (data batch .*)\n```", PAGE)
    with pytest.raises(SystemExit) as stop:
        main(code.replace("instruct", str(run.path)).replace("120", "12").split())
    assert stop.value.code == 0
    listed = capsys.readouterr().out
    train = Encoded.load(artifacts.encoded / "train.safetensors")
    rows = batch_rows(len(train), 16, 11, suite="micro", seed=0).tolist()
    assert list(map(int, re.findall(r"^--- row (\d+)$", listed, flags=re.MULTILINE))) == rows
    records = read_split(artifacts.data_folder, artifacts.suite.data.train)
    assert sum(record.instruction in listed for record in records) >= len(set(rows))


def write_spec_of(artifacts: Artifacts, folder: Path, data_digest: str | None = None) -> Run:
    shared = Shared(
        suite=artifacts.suite,
        data_digest=data_digest or artifacts.data_key,
        backend="transformers",
        backend_version="tests",
        dtype="float32",
    )
    spec = RunSpec(shared=shared, variants=(), seeds=1, init_seeds=1, tuning=None)
    write_text(folder / "spec.yaml", yaml.safe_dump(spec.model_dump(mode="json")))
    return Run(folder)


@pytest.mark.parametrize(
    ("step", "data_digest", "message"),
    [(0, None, "have 12 steps"), (13, None, "have 12 steps"), (1, "other", "not the records")],
)
def test_a_batch_that_was_not_trained_on_is_refused(
    artifacts: Artifacts, tmp_path: Path, step: int, data_digest: str | None, message: str
) -> None:
    run = write_spec_of(artifacts, tmp_path, data_digest)
    with pytest.raises(UserError, match=message):
        batch_of(run, artifacts, 0, step)


def test_smallest_p_values_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| (\.\d+) \|", PAGE, flags=re.MULTILINE)
    assert len(rows) == 5
    for seeds, p in rows:
        assert smallest_sign_flip_p(int(seeds)) == pytest.approx(float(p), rel=0.03)


def test_thirteen_seeds_are_the_fewest_that_survive_105_comparisons() -> None:
    assert 105 * smallest_sign_flip_p(13) < 0.05 < 105 * smallest_sign_flip_p(12)
    assert "at least 13 seeds" in PAGE


def test_no_divergence_in_three_trials_is_as_the_page_says() -> None:
    assert f"between 0 and {100 * wilson(0, 3).high:.0f} %" in PAGE
