"""docs/statistics.md: its code runs, and its figures are those of the functions."""

import re
from pathlib import Path

import pytest
import yaml

from kdbench.artifacts import Artifacts
from kdbench.data.records import read_split
from kdbench.stats.intervals import wilson
from kdbench.stats.paired import smallest_sign_flip_p

PAGE = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_the_batch_of_a_step_is_listed_as_the_page_says(
    artifacts: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"shared": {"suite": artifacts.suite.model_dump(mode="json")}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(code.replace("results/instruct", str(tmp_path)), {})
    listed = capsys.readouterr().out
    records = read_split(artifacts.data_folder, artifacts.suite.data.train)
    found = [record for record in records if record.instruction in listed]
    assert len(found) >= artifacts.suite.recipe.batch


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
