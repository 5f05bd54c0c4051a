"""The page of a run as text: what it holds, what it leaves out, how large it becomes."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kdbench.base.store import write_jsonl
from kdbench.config.load import load_suite
from kdbench.data.files import locate
from kdbench.data.records import read_split
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.run import write_samples
from kdbench.report.page import to_html, withhold
from kdbench.report.publish import publish
from kdbench.report.table import build_board
from kdbench.runs.folder import Run
from kdbench.runs.samples import read_samples
from kdbench.score.metrics import write_scores
from tests.page_run import HOSTILE, SETS, VARIANTS, write_page_run
from tests.synthetic_run import Variant

FIVE_MB = 5_000_000


class Markup(HTMLParser):
    """Every tag with its attributes, and the text of the scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data: str) -> None:
        if self._within in self.raw:
            self.raw[self._within][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture
def page(page_run: Run) -> str:
    return (page_run.path / "leaderboard.html").read_text(encoding="utf-8")


def test_it_refers_to_nothing_outside_itself(page: str) -> None:
    markup = Markup(page)
    addresses = [
        value
        for _, attributes in markup.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset", "poster", "data", "style")
    ]
    assert addresses
    assert all(address is not None and address.startswith("#") for address in addresses)
    assert not re.search(r"url\(|@import|@font-face", "".join(markup.raw["style"]))


def test_its_policy_names_the_page_s_own_script_and_style_only(page: str) -> None:
    markup = Markup(page)
    policy = next(
        attributes["content"]
        for tag, attributes in markup.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    _, script = markup.raw["script"]
    (style,) = markup.raw["style"]
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    ]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_what_users_and_models_wrote_is_no_markup(page: str) -> None:
    tags = [tag for tag, _ in Markup(page).tags]
    assert tags.count("script") == 2
    assert not {"img", "b", "i"} & set(tags)
    assert not [text for text in HOSTILE if "<" in text and text in page]


def test_answers_are_kept_to_the_last_character(page: str) -> None:
    items = data_of(page)["samples"]["dolly"]["items"]
    for decoding in ("sampled", "greedy"):
        assert [{answer[0] for answer in item[decoding]} for item in items] == [
            {text} for text in HOSTILE
        ]


def test_the_scores_beside_the_answers_are_those_of_the_first_seeds(
    page_run: Run, page: str
) -> None:
    data = data_of(page)
    variants = [variant["name"] for variant in data["variants"]]
    trial = next(t for t in page_run.trials() if t.spec.variant == "sft" and t.spec.seed == 0)
    rows = pq.read_table(trial.scores_path).to_pylist()
    for decoding, metric in (("sampled", "rouge_l"), ("greedy", "rouge_l_greedy")):
        stored = [row["value"] for row in rows if (row["set"], row["metric"]) == ("dolly", metric)]
        shown = [
            item[decoding][variants.index("sft")][1] for item in data["samples"]["dolly"]["items"]
        ]
        assert shown == [round(value, 1) for value in stored]


def test_of_several_decoding_seeds_the_first_is_shown(tmp_path: Path) -> None:
    run = write_page_run(tmp_path / "toy", variants=VARIANTS[2:])
    trial = next(t for t in run.trials() if t.spec.seed == 0 and t.spec.variant == "sft")
    rows = [
        {"sample": sample, "decoding_seed": seed, "text": f"{sample} by {seed}"}
        for seed in (10, 20)
        for sample in range(SETS["dolly"])
    ]
    write_jsonl(trial.generations("dolly"), rows)
    scores = [tuple(row.values()) for row in pq.read_table(trial.scores_path).to_pylist()]
    second = [(row[0], row[1], 20, row[3], 1.0) for row in scores if row[3] == "rouge_l"]
    write_scores(trial.scores_path, [*scores, *second])
    data = data_of(to_html(build_board(run), run))
    place = [variant["name"] for variant in data["variants"]].index("sft")
    text, score = data["samples"]["dolly"]["items"][3]["sampled"][place]
    assert text == "3 by 10"
    assert score == next(round(r[4], 1) for r in scores if r[:4] == ("dolly", 3, 10, "rouge_l"))


def test_every_view_shows_the_figures_of_the_table(page_run: Run, page: str) -> None:
    data = data_of(page)
    board = build_board(page_run)
    for (variant, name, metric), row in board.rows.items():
        view = data["views"][name][metric]
        place = [entry["name"] for entry in data["variants"]].index(variant)
        assert view["cells"][place][2][1] == row.mean
        assert view["intervals"][place]["mean"] == row.mean


def test_trials_that_were_taken_from_a_board_are_named(page: str) -> None:
    taken = "taken from the board &lt;b&gt;there (commit c0ffee; archive aaaaaaaaaaaa): sft seed 0."
    assert taken in page


def test_default_page_stays_below_five_megabytes(tmp_path: Path) -> None:
    variants = [Variant(f"amid[alpha={a}]", 60.0, {"alpha": a}, seeds=(0,)) for a in range(30)]
    run = write_page_run(tmp_path / "toy", ["word < word é " * 1500], variants=variants)
    board = build_board(run)
    page, every = to_html(board, run), to_html(board, run, 6)
    assert 2_000_000 < len(page.encode()) < FIVE_MB < len(every.encode())
    assert [len(s["items"]) for s in data_of(every)["samples"].values()] == [6, 4]
    assert {len(s["items"]) for s in data_of(page)["samples"].values()} == {1}
    assert data_of(to_html(board, run, 0))["samples"] == {}


def test_without_prompts_the_answers_stand_alone(tmp_path: Path) -> None:
    run = write_page_run(tmp_path / "toy", prompts=False)
    (item, *_) = data_of(to_html(build_board(run), run))["samples"]["dolly"]["items"]
    assert set(item) == {"sampled", "greedy"}


def test_withheld_sets_lose_prompts_and_references_and_keep_answers(page: str) -> None:
    before, after = data_of(page), data_of(withhold(page, {"dolly"}))
    assert after["samples"]["dolly"] == before["samples"]["dolly"]
    assert after["samples"]["vicuna"]["withheld"]
    kept = [
        {k: item[k] for k in ("sampled", "greedy")} for item in before["samples"]["vicuna"]["items"]
    ]
    assert after["samples"]["vicuna"]["items"] == kept
    assert after | {"samples": None} == before | {"samples": None}


def test_published_files_hold_no_record_that_may_not_be_passed_on(
    page_run: Run, tmp_path: Path
) -> None:
    folder = publish(page_run, tmp_path)
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in (b"vicuna-question", b"vicuna-input", b"vicuna-reference", b"vicuna-other"):
        assert not any(secret in text for text in texts)
    assert any(b"dolly-question-0" in text for text in texts)
    assert (folder / "leaderboard.tex").exists()


def test_samples_are_the_records_of_the_evaluation_sets(micro: Path, tmp_path: Path) -> None:
    suite = load_suite(str(micro))
    artifacts = Artifacts(suite, locate(suite, None))
    run = Run(tmp_path / "run")
    write_samples(run, artifacts)
    for name, split in suite.data.evaluation.items():
        records = read_split(artifacts.data_folder, split)
        assert [(r.instruction, r.input, r.outputs) for r in records] == [
            (s.instruction, s.input, s.references) for s in read_samples(run, name)
        ]


def test_samples_that_are_not_the_suites_are_written_again(micro: Path, tmp_path: Path) -> None:
    suite = load_suite(str(micro))
    run = Run(tmp_path / "run")
    write_jsonl(run.path / "samples" / "dolly.jsonl", [{"text": ["a", ""], "references": ["b"]}])
    write_samples(run, Artifacts(suite, locate(suite, None)))
    assert len(read_samples(run, "dolly")) == 8
    assert len(read_samples(run, "vicuna")) == 6
