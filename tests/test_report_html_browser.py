"""The page of a run in a real browser: it works, by mouse and keyboard, and obeys no answer."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from kdbench.report.publish import publish
from kdbench.report.write import write_report
from kdbench.runs.folder import Run
from tests.browser import CHROMIUM, Page, chromium, tab
from tests.page_run import HOSTILE

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"
)

INJECT = (
    "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=document.title=\"ran\">')"
)
NAMES = "#table tbody th"


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as address:
        yield address


@pytest.fixture
def page(browser: str, page_run: Run) -> Iterator[Page]:
    with tab(browser) as page:
        page.screen(1280, 900)
        page.open(page_run.path / "leaderboard.html")
        yield page


def test_it_opens_without_a_word_on_the_console_and_asks_for_nothing(page: Page) -> None:
    page.choose("#sample-set", "vicuna")
    page.choose("#metric", "distinct_2")
    assert page.problems == []
    assert [url for url in page.requests if not url.endswith("/leaderboard.html")] == []
    assert page.texts("h1") == ["toy"]


def test_it_begins_with_the_best_mean_and_says_so(page: Page) -> None:
    assert page.texts(NAMES) == [
        "teacher",
        "amid[alpha=-3]",
        "sft",
        "initial student",
        "amid[alpha=1]",
    ]
    assert page.texts('[aria-sort="descending"]') == ["ROUGE-L"]


def test_a_click_on_a_head_sorts_and_a_second_one_turns_it_round(page: Page) -> None:
    head = "#table th:first-child button"
    page.click(head)
    names = page.texts(NAMES)
    assert names == ["amid[alpha=-3]", "amid[alpha=1]", "initial student", "sft", "teacher"]
    assert page.texts('[aria-sort="ascending"]') == ["variant"]
    page.click(head)
    assert page.texts(NAMES) == names[::-1]


def test_rows_without_a_number_stay_last_in_both_directions(page: Page) -> None:
    for _ in range(2):
        page.click("#table th:nth-child(2) button")
        assert set(page.texts(NAMES)[-2:]) == {"teacher", "initial student"}


def test_the_filter_keeps_what_holds_every_word(page: Page) -> None:
    page.choose("#filter", "AMID =1")
    assert page.texts(NAMES) == ["amid[alpha=1]"]
    assert page.texts("#count") == ["1 of 5 variants"]


def test_set_and_metric_change_the_figures(page: Page) -> None:
    figures = "#table tbody td:nth-child(3)"
    seen = [page.texts(figures)]
    page.choose("#set", "dolly")
    seen.append(page.texts(figures))
    page.choose("#metric", "length")
    seen.append(page.texts(figures))
    assert len(set(map(tuple, seen))) == 3
    assert page.texts("[aria-sort]") == ["words"]


def test_every_interval_is_drawn_and_named(page: Page) -> None:
    labels = page.run(
        "[...document.querySelectorAll('#table .interval svg')].map(e => e.ariaLabel)"
    )
    assert len(labels) == 5
    assert all(re.fullmatch(r"-?\d+\.\d\d to -?\d+\.\d\d", label) for label in labels)
    lines = page.run(
        "[...document.querySelectorAll('#table line')].map(e => e.getBoundingClientRect().width)"
    )
    assert all(width > 2 for width in lines)


def test_curves_are_switched_by_objective_and_by_column(page: Page) -> None:
    def drawn() -> int:
        return len(page.texts("#plot .curve"))

    assert drawn() == 3
    page.click("#shown input[value=sft]")
    assert drawn() == 2
    page.click("#none")
    assert drawn() == 0
    page.click("#all")
    assert drawn() == 3
    before = page.run("document.querySelector('#plot .curve').getAttribute('points')")
    page.choose("#curve", str(len(page.texts("#curve option")) - 1))
    assert "gradient norm" in page.run("document.querySelector('#plot svg').ariaLabel")
    assert page.run("document.querySelector('#plot .curve').getAttribute('points')") != before


def test_one_click_switches_all_variants_of_an_objective(page: Page) -> None:
    assert page.texts("#families button") == ["amid"]
    page.click("#families button")
    assert page.texts("#plot .curve") == ["sft"]
    assert page.run("document.querySelector('#families button').ariaPressed") == "false"
    page.click("#families button")
    assert sorted(page.texts("#plot .curve")) == ["amid[alpha=-3]", "amid[alpha=1]", "sft"]
    assert page.run("document.querySelector('#families button').ariaPressed") == "true"


def test_profiles_are_of_the_ticked_variants(page: Page) -> None:
    assert len(page.texts("#profile .curve")) == 3
    page.click("#shown input[value=sft]")
    assert page.texts("#profile .curve") == ["amid[alpha=-3]", "amid[alpha=1]"]
    for points in page.run(
        "[...document.querySelectorAll('#profile .curve')].map(e => e.getAttribute('points'))"
    ):
        heights = [float(point.split(",")[1]) for point in points.split()]
        assert heights == sorted(heights)  # downwards on the screen: a share above a rising level


@pytest.mark.parametrize("chosen", ["amid[alpha=-3]", "sft", "amid[alpha=1]"])
@pytest.mark.parametrize("name", ["average", "vicuna"])
def test_any_variant_is_compared_with_all_others(
    page: Page, page_run: Run, chosen: str, name: str
) -> None:
    table = pd.read_csv(page_run.path / "comparisons.csv")
    table = table[(table["set"] == name) & (table.metric == "rouge_l")]
    ahead = table[table.variant == chosen].set_index("other")
    behind = table[table.other == chosen].set_index("variant")
    expected = {**ahead.difference, **-behind.difference}
    wins = {**ahead.win_rate, **(1 - behind.win_rate)}
    page.choose("#evidence-set", name)
    page.choose("#against", page.run(f"data.evidence.variants.indexOf({json.dumps(chosen)})"))
    others = page.texts("#pairs tbody th")
    assert set(others) == {"amid[alpha=-3]", "sft", "amid[alpha=1]"} - {chosen}
    shown = [float(text.replace("−", "-")) for text in page.texts("#pairs td:nth-child(2)")]  # noqa: RUF001
    assert shown == pytest.approx([expected[other] for other in others], abs=0.0051)
    assert shown == sorted(shown)
    shares = [float(text.removesuffix(" %")) for text in page.texts("#pairs td:nth-child(6)")]
    assert shares == pytest.approx([100 * wins[other] for other in others], abs=0.51)
    low, high = (ahead.ci_low, ahead.ci_high) if len(ahead) else (-behind.ci_high, -behind.ci_low)
    label = f"{low.iloc[0]:.2f} to {high.iloc[0]:.2f}"
    labels = page.run("[...document.querySelectorAll('#pairs svg')].map(e => e.ariaLabel)")
    assert label in labels


def test_a_sample_shows_prompt_references_answers_and_scores(page: Page) -> None:
    page.click("#next")
    assert page.texts("#prompt .text") == [
        "dolly-question-1 <i>", "dolly-input-1", "dolly-reference-1", "dolly-other-1 <i>",
    ]  # fmt: skip
    assert page.texts("#answers h3 span:first-child") == [
        "teacher", "amid[alpha=-3]", "amid[alpha=1]", "sft", "initial student",
    ]  # fmt: skip
    assert page.texts("#answers .text") == [HOSTILE[1]] * 5
    sampled = page.texts("#answers h3 span:last-child")
    page.choose("#decoding", "greedy")
    assert page.texts("#answers h3 span:last-child") != sampled
    for _ in range(2):
        page.click("#previous")
    assert page.texts("#prompt .text")[0] == "dolly-question-5 <i>"


def test_no_answer_becomes_markup_even_without_the_policy(
    browser: str, page_run: Run, tmp_path: Path
) -> None:
    text = (page_run.path / "leaderboard.html").read_text(encoding="utf-8")
    bare, count = re.subn(r"<meta http-equiv=[^>]*>", "", text)
    assert count == 1
    (tmp_path / "bare.html").write_text(bare, encoding="utf-8")
    with tab(browser) as page:
        page.open(tmp_path / "bare.html")
        for answer in HOSTILE:
            assert page.texts("#answers .text") == [answer] * 5
            assert (
                page.run("document.querySelectorAll('img, script:not([type]), b, i').length") == 1
            )
            page.click("#next")
        assert page.run("document.title") == "toy · kdbench"
        page.run(INJECT)  # the same text as markup does run, so the above could have failed
        assert title_becomes_ran(page)


def test_the_policy_stops_what_would_have_become_markup(page: Page) -> None:
    page.run(INJECT)
    assert not title_becomes_ran(page)
    assert "Content Security Policy" in " ".join(page.problems)


def title_becomes_ran(page: Page) -> bool:
    """Whether an injected handler ran within half a second."""
    answer = page.send(
        "Runtime.evaluate",
        expression="new Promise(done => setTimeout(() => done(document.title), 500))",
        awaitPromise=True,
        returnByValue=True,
    )
    return bool(answer["result"]["value"] == "ran")


def test_published_page_says_why_prompts_are_missing(
    browser: str, page_run: Run, tmp_path: Path
) -> None:
    with tab(browser) as page:
        page.open(publish(page_run, tmp_path) / "leaderboard.html")
        page.choose("#sample-set", "vicuna")
        assert page.texts("#prompt p") == [
            "Prompt and references are left out: this set's records may not be passed on "
            "(redistribute: false)."
        ]
        assert page.texts("#answers .text") == [HOSTILE[0]] * 5
        assert page.problems == []


def test_a_run_without_answers_or_logs_shows_its_table(browser: str, tmp_path: Path) -> None:
    from tests.synthetic_run import Variant, write_run

    run = write_run(tmp_path / "bare", [Variant("sft", 54.0)], steps=0)
    write_report(run)
    with tab(browser) as page:
        page.open(run.path / "leaderboard.html")
        assert page.problems == []
        assert page.texts(NAMES) == ["teacher", "sft", "initial student"]
        hidden = page.run("[...document.querySelectorAll('main > section[hidden]')].map(e => e.id)")
        assert hidden == ["curves", "samples"]


def test_the_keyboard_alone_skips_and_sorts(page: Page) -> None:
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    page.press("Enter")
    for _ in range(5):  # set, metric, filter, the table that scrolls, its first head
        page.press("Tab")
    assert page.run("document.activeElement.textContent") == "variant"
    page.press("Enter")
    assert page.texts('[aria-sort="ascending"]') == ["variant"]
    page.press(" ")
    assert page.texts('[aria-sort="descending"]') == ["variant"]
    assert page.run("document.activeElement.textContent") == "variant"


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.run(
        "[...document.querySelectorAll('button, select, input, meter, [role=region]')]"
        ".filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, scheme: str) -> None:
    page.prefer(scheme)
    shades = page.run("[...document.querySelectorAll('.heat td[class]')].map(e => e.className)")
    assert "heat-10" in shades
    for selector in ("body", ".hint", "a", "tbody td.first", ".card.reference", *_classes(shades)):
        assert page.run(f"{CONTRAST}(document.querySelector('{selector}'))") >= 4.5, selector
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def _classes(names: list[str]) -> set[str]:
    return {f".{name}" for name in names}


CONTRAST = """(element => {
  const light = (colour) => {
    const most = colour.startsWith("color(") ? 1 : 255;
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / most);
    const linear = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : colour;
  };
  const both = [light(getComputedStyle(element).color), light(ground(element))];
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
})"""
"""WCAG 2.2's contrast ratio of an element's text; 4.5 is what it asks for (1.4.3)."""


def test_on_a_phone_only_the_tables_scroll_sideways(page: Page) -> None:
    page.screen(390, 844)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))")
    assert page.run("document.querySelector('#plot svg').clientWidth") <= 390
    names = page.run("[...document.querySelectorAll('tbody th')].map(e => e.clientWidth)")
    assert min(width for width in names if width) >= 85


def test_without_scripts_the_table_still_stands_there(browser: str, page_run: Run) -> None:
    with tab(browser) as page:
        page.send("Emulation.setScriptExecutionDisabled", value=True)
        page.open(page_run.path / "leaderboard.html")
        page.send("DOM.enable")
        root = page.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        cells = page.send("DOM.querySelectorAll", nodeId=root, selector="noscript tbody th")
        assert len(cells["nodeIds"]) == 5
        hidden = page.send("DOM.querySelectorAll", nodeId=root, selector=".scripted:not([hidden])")
        assert hidden["nodeIds"] == []
