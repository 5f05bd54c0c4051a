"""The page of a run: one file that needs no network and trusts no text that it shows."""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from kdbench.report.evidence import Written
from kdbench.report.html_data import page_data
from kdbench.report.html_evidence import evidence_data, evidence_markup
from kdbench.report.html_markup import from_markdown, inline, scrolling, table
from kdbench.report.notes import notes
from kdbench.report.render import cells, columns
from kdbench.report.stability import stability_markdown
from kdbench.report.table import Board, stability_frame
from kdbench.runs.folder import Run
from kdbench.runs.results import cost_frame

DATA_BEGIN = '<script type="application/json" id="data">'
DATA_END = "</script>"
SCRIPTS = ("base.js", "table.js", "curves.js", "evidence.js", "samples.js", "start.js")
"""One script in the page, in this order."""
NOTHING_TO_COMPARE = "It takes two variants with a training seed in common."


def to_html(
    board: Board, run: Run, samples: int | None = None, written: Written | None = None
) -> str:
    """The page: table, curves, evidence, stability, costs, samples, notes and provenance.

    What models, records and users wrote enters it in two ways only: escaped into the markup, or as
    JSON without a `<`, from which the script makes text nodes. Its content-security policy runs no
    script but the page's own and loads nothing.

    Args:
        board: of the run.
        run: whose folder holds spec.yaml and, where they are kept, answers and provenance.json.
        samples: of each evaluation set; None for as many as fit into 5 MB, 20 at most.
        written: the run's evidence, where it has some.
    """
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    spec, provenance = run.spec, run.provenance
    origins = [*map(_accepted, provenance.accepted), *map(_command, provenance.commands)]
    header, rows = cells(board, columns(board))
    data = page_data(board, run, samples)
    if written is not None:
        data["evidence"] = evidence_data(written)
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "title": escape(run.path.name),
        "about": escape(f"Suite {spec.shared.suite.name}. {spec.shared.suite.description}"),
        "table": table(header, [[cell.text for cell in row] for row in rows]),
        "notes": "\n".join(f"<li>{inline(note)}</li>" for note in notes(board)),
        "evidence": evidence_markup(written) if written else f"<p>{NOTHING_TO_COMPARE}</p>",
        "stability": from_markdown(stability_markdown(board, ""), deeper=1),
        "figures": scrolling(_plain_table(stability_frame(board)), "Stability figures"),
        "costs": scrolling(_plain_table(cost_frame(board.costs())), "Costs"),
        "parameters": table(["variant", "objective", "parameters"], _parameters(board)),
        "commands": "\n".join(origins) or "<p>Not recorded.</p>",
        "spec": escape(
            yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        ),
        "data": f"{DATA_BEGIN}{_json(data)}{DATA_END}",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def withhold(page: str, free: Collection[str]) -> str:
    """A page without the prompts and references of all sets but the `free` ones.

    The students' answers stay.
    """
    head, found, rest = page.partition(DATA_BEGIN)
    text, _, tail = rest.partition(DATA_END)
    data = json.loads(text)
    for name, samples in data["samples"].items():
        if name not in free:
            samples["withheld"] = True
            for item in samples["items"]:
                for field in ("instruction", "input", "references"):
                    item.pop(field, None)
    return f"{head}{found}{_json(data)}{DATA_END}{tail}"


def _json(data: dict[str, Any]) -> str:
    """JSON that can end no script element and begin no comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("kdbench.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _accepted(entry: dict[str, Any]) -> str:
    """The trials that the run took from one board."""
    commits = ", ".join(commit[:12] for commit in entry["commits"] if commit)
    text = (
        f"Not made here but taken from the board {entry['board']} (commit "
        f"{commits or 'not known'}; archive {entry['archive'][:12]}): {', '.join(entry['trials'])}."
    )
    return f"<p>{escape(text)}</p>"


def _command(entry: dict[str, Any]) -> str:
    """One command of the run: what was typed, and under what."""
    facts = {key: value for key, value in entry.items() if key not in ("command", "weights")}
    terms = "\n".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(_fact(value))}</dd>"
        for key, value in facts.items()
    )
    return f"<pre><code>{escape(entry['command'])}</code></pre>\n<dl>{terms}</dl>"


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _parameters(board: Board) -> list[list[str]]:
    return [
        [name, group[0].objective, group[0].params]
        for name, group in board.trials.items()
        if not group[0].reference
    ]


def _plain_table(frame: pd.DataFrame) -> str:
    rows = [
        [value if isinstance(value, str) else _short(value) for value in row]
        for row in frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    ]
    return table([name.replace("_", " ") for name in frame.columns], rows)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
