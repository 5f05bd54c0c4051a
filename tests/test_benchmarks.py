"""The benchmarks measure what they say: peers that agree, floors and counts that are right."""

import ast
import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import head, measure, runs
from benchmarks.__main__ import main
from benchmarks.measure import Report
from benchmarks.peers import PUBLISHED, padded_inputs, padded_step, trl_gkd_step
from benchmarks.plots import figure_of
from benchmarks.scaling import DOCUMENT, H100, PAIRS, Step, computed, replaced, sizes_of, stages
from benchmarks.shapes import DOLLY, TINY, Bench
from benchmarks.step import floor, step
from kdbench.config.load import load_suite
from kdbench.config.schema import Loss, Shape
from kdbench.head.chunked import per_token_loss
from kdbench.models.size import Size, of_shape
from kdbench.pipeline.estimate import Counts, memory_of
from kdbench.variants.variant import parse

BENCH = Bench(TINY)
SMOKE = ("step", "head", "memory", "teacher-cache", "rouge", "scaling")
"""The others start whole runs or several processes that import transformers."""


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rows go in a test."""
    monkeypatch.setattr(measure, "PERF", tmp_path / "perf.csv")
    return tmp_path / "perf.csv"


def gradients() -> dict[str, torch.Tensor]:
    named = BENCH.student.named_parameters()
    return {name: value.grad.clone() for name, value in named if value.grad is not None}


def kdbench_gradients(name: str) -> dict[str, torch.Tensor]:
    step(BENCH, per_token_loss(parse(name), Loss()), BENCH.cache)()
    return gradients()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_padded_loop_has_kdbenchs_gradient(name: str) -> None:
    expected = kdbench_gradients(name)
    padded_step(BENCH.student, BENCH.teacher, padded_inputs(BENCH.data, 24), PUBLISHED[name])
    torch.testing.assert_close(gradients(), expected, rtol=1e-3, atol=1e-6)


def test_trls_step_has_kdbenchs_gradient() -> None:
    expected = kdbench_gradients("jsd")
    inputs = padded_inputs(BENCH.data, int(BENCH.data.lengths.max()))
    pytest.importorskip("trl")
    theirs = trl_gkd_step(BENCH.student, BENCH.teacher, inputs)
    theirs()
    torch.testing.assert_close(gradients(), expected, rtol=1e-3, atol=1e-6)


def test_the_live_teacher_gives_the_cached_ones_gradient() -> None:
    expected = kdbench_gradients("forward-kl")
    step(BENCH, per_token_loss(parse("forward-kl"), Loss()), BENCH.live)()
    torch.testing.assert_close(gradients(), expected)


def test_the_floor_goes_through_the_whole_body() -> None:
    names = set(kdbench_gradients("forward-kl"))
    floor(BENCH)()
    assert set(gradients()) == names


def test_the_shape_is_the_one_of_the_targets() -> None:
    responses = sum(DOLLY.responses)
    assert (responses, responses + sum(DOLLY.prompts)) == (820, 1391)
    assert [round((model.body + model.head) / 1e6) for model in sizes_of(DOLLY)] == [51, 16]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: x * 2.0, 2),
        (lambda x: x.mul_(2.0), 2),
        (lambda x: torch.add(x, x), 3),
        (lambda x: x.sum(-1), 1),
        (lambda x: x > 0.0, 1.25),
        (lambda x: x[:, :1].expand(-1, 50) + x, 2.02),
        (lambda x: x @ torch.ones(50, 50), 0),
        (lambda x: x.detach(), 0),
    ],
    ids=["new", "in place", "two", "sum", "bool", "expanded", "product", "view"],
)
def test_passes_are_reads_and_writes(call: Any, expected: float) -> None:
    x = torch.ones(4, 50)
    assert head.passes(lambda: call(x), 4, 50) == pytest.approx(expected)


def test_passes_count_the_backward_pass() -> None:
    x = torch.ones(4, 50, requires_grad=True)
    forward = head.passes(lambda: (x * x).sum(), 4, 50)
    both = head.passes(lambda: (x * x).sum().backward(), 4, 50)  # type: ignore[no-untyped-call]
    assert both > forward


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_holds_the_median_and_a_peers_ratio(kept: Path) -> None:
    report = Report("step", 3, 1, packages=("rouge-score", "no-such-package"))
    report.compare("case", {"kdbench": [1.0, 4.0, 2.0], "floor": [1.0, 1.0, 1.5], "absent": []})
    rows = read(kept)
    assert list(rows[0]) == measure.COLUMNS
    assert [(r["who"], r["metric"], r["value"], r["ratio"]) for r in rows] == [
        ("kdbench", "seconds", "2", ""),
        ("kdbench", "seconds_range", "3", ""),
        ("floor", "seconds", "1", "0.500"),
        ("floor", "seconds_range", "0.5", ""),
    ]
    assert rows[0]["versions"].endswith("; rouge-score 0.1.2")
    assert rows[0]["hardware"].endswith(", 1 thread")


def test_rows_are_added_to_those_that_are_there(kept: Path) -> None:
    report = Report("step", 1, 1)
    for value in (1.0, 2.0):
        report.compare("case", {"kdbench": [value]})
    assert [row["value"] for row in read(kept)] == ["1", "2"]
    assert measure.newest("step") == {("step", "case", "kdbench", "seconds"): 2.0}


def test_a_plot_has_a_panel_a_metric(kept: Path) -> None:
    import pandas as pd

    report = Report("step", 2, 1)
    report.compare("case", {"kdbench": [1.0, 2.0], "floor": [1.0, 1.0]})
    report.compare("case", {"kdbench": [12.0]}, "passes", "[N, V]")
    figure = figure_of(pd.read_csv(kept))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["seconds [s]", "passes [[N, V]]"]


def test_passes_are_counted_at_a_vocabulary_of_which_few_tokens_fit_into_a_block() -> None:
    few, many = (head.Sides(replace(TINY, vocabulary=size)) for size in (300, 60_000))
    per_token = per_token_loss(parse("forward-kl"), Loss())
    assert head.count_passes(few, per_token, few.teacher) > 10
    assert head.count_passes(many, per_token, many.teacher) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_run_prints_rows_and_keeps_none(
    name: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write_text(",".join(measure.COLUMNS) + "\n")
    document = DOCUMENT.read_text()
    assert main([name, "--smoke", "--threads", "1"]) == 0
    assert ("kdbench" if name != "scaling" else "step, on-policy") in capsys.readouterr().out
    assert read(kept) == []
    assert DOCUMENT.read_text() == document


def test_only_the_cases_asked_for_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["step", "--smoke", "--threads", "1", "--only", "skew-kl"])
    cases = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert cases == {"skew-kl"}


STAND_IN = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]) / "run/trials/sft/seed-0"
out.mkdir(parents=True)
held = bytearray(64 << 20)
time.sleep(0.5)
(out / "train.jsonl").write_text("{}")
time.sleep(60 if "--linger" in sys.argv else 0.5)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in place of `kdbench run`: 64 MB, its first step after half a second."""
    monkeypatch.setattr(runs, "INTERVAL", 0.1)
    monkeypatch.setattr(runs, "KDBENCH", [sys.executable, "-c", STAND_IN])


@pytest.mark.usefixtures("stand_in")
def test_a_run_is_timed_and_its_memory_watched(tmp_path: Path) -> None:
    words = runs.command(tmp_path / "out", smoke=False)
    wall, peak = runs.run(words, tmp_path / "cache")
    assert wall > 1.0
    assert peak > 64.0


@pytest.mark.usefixtures("stand_in")
def test_the_start_ends_with_the_first_step(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = runs.command(out, "--linger", smoke=False)
    taken = runs.seconds_until(words, tmp_path / "cache", "*/trials/*/*/train.jsonl", out)
    assert 0.5 < taken < 30.0


@pytest.mark.usefixtures("stand_in")
def test_a_run_that_ends_before_its_first_step_is_an_error(tmp_path: Path) -> None:
    words, out = runs.command(tmp_path / "out", smoke=False), tmp_path / "out"
    with pytest.raises(RuntimeError, match="too early"):
        runs.seconds_until(words, tmp_path / "cache", "no-such-file", out)


def test_the_line_through_a_grid() -> None:
    assert runs.fit([(4, 30.0), (8, 50.0), (16, 90.0)]) == pytest.approx((10.0, 5.0, 0.0))
    assert runs.fit([(0, 0.0), (1, 1.0), (2, 0.0)]) == pytest.approx((1 / 3, 0.0, 2 / 3))


def llama(model: Size, device: str) -> Any:
    """The same model from transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.width,
        intermediate_size=model.mlp,
        num_hidden_layers=model.layers,
        num_attention_heads=model.queries // 64,
        num_key_value_heads=model.keys // 64,
        attn_implementation="eager",  # whose products torch counts
    )
    with torch.device(device):
        return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


LLAMA = of_shape(Shape(layers=3, width=256, mlp=640, heads=4, kv_heads=2, vocabulary=300))
GPT, SMALL, LARGE = PAIRS.values()


@pytest.mark.parametrize("model", [LLAMA, SMALL[1], LARGE[1]], ids=["small", "1B", "8B"])
def test_parameters_are_those_of_transformers(model: Size) -> None:
    body = llama(model, "meta").model.layers
    assert model.body == sum(p.numel() for p in body.parameters() if p.dim() == 2)


def test_the_bodys_operations_are_those_that_torch_counts() -> None:
    body, rows, length = llama(LLAMA, "cpu").model, 2, 24
    with FlopCounterMode(display=False) as counter:
        body(torch.zeros(rows, length, dtype=torch.long), use_cache=False)
    # torch counts the positions that the causal mask hides, too.
    assert counter.get_total_flops() == pytest.approx(
        LLAMA.forward(length) * rows * length, rel=2e-3
    )


def test_the_heads_operations_are_those_that_torch_counts() -> None:
    hidden = torch.zeros(5, LLAMA.width, device="meta", requires_grad=True)
    weight = torch.zeros(LLAMA.vocabulary, LLAMA.width, device="meta", requires_grad=True)
    teacher = torch.zeros(5, LLAMA.width, device="meta")
    with FlopCounterMode(display=False) as counter:
        (hidden @ weight.T).sum().backward()  # type: ignore[no-untyped-call]
        teacher @ weight.detach().T
    parts = stages((LLAMA, LLAMA), Step(1, 9, 5), H100, devices=1, passes=1.0)
    assert parts["head, matrix products"].flops == counter.get_total_flops()


def test_the_operations_of_a_planned_trial_are_those_of_its_steps() -> None:
    suite = load_suite("dolly-gpt2")
    step = Step(rows=suite.recipe.batch, length=100, response=40)
    parts = stages(GPT, step, H100, devices=1, passes=0)
    per_step = sum(
        parts[name].flops
        for name in ("student's body, forward + backward", "head, matrix products")
    )
    planned = memory_of(suite, Counts(100.0, 40.0, 0, 512, exact=False), rows=1, gpu=False)
    assert planned["flops"] == pytest.approx(suite.recipe.steps * per_step)


def test_a_stage_is_bound_by_its_slowest_part() -> None:
    parts = stages(LARGE, Step(64, 512, 256), H100, devices=1, passes=26.0)
    assert parts["teacher's body, live"].bound(H100)[1] == "compute"
    assert parts["head, element-wise"].bound(H100)[1] == "memory"
    assert parts["teacher from the cache"].bound(H100)[1] == "host link"


def test_the_document_holds_what_the_formulas_give() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert replaced(text, "computed", computed()) == text


def test_kdbench_never_imports_the_benchmarks() -> None:
    root = Path(__file__).parents[1]
    for folder in ("kdbench", "objectives", "suites"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = []
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    modules = [node.module or ""]
                assert "benchmarks" not in {name.split(".")[0] for name in modules}, path
