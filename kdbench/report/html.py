"""The page of a run: one file that needs no network and trusts no text that it shows."""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import yaml

from kdbench.report.html_data import page_data
from kdbench.report.notes import notes
from kdbench.report.render import cells, columns
from kdbench.report.table import Board, stability_frame
from kdbench.store import Run, read_json

DATA_BEGIN = '<script type="application/json" id="data">'
DATA_END = "</script>"
SCRIPTS = ("base.js", "table.js", "curves.js", "samples.js", "start.js")
"""One script in the page, in this order."""


def to_html(board: Board, run: Run, samples: int | None = None) -> str:
    """The page: table, curves, samples, provenance and notes.

    What models, records and users wrote enters it in two ways only: escaped into the markup, or as
    JSON without a `<`, from which the script makes text nodes. Its content-security policy runs no
    script but the page's own and loads nothing.

    Args:
        board: of the run.
        run: whose folder holds the answers, spec.yaml and provenance.json; any of them may be
            missing.
        samples: of each evaluation set; None for as many as fit into 5 MB, 50 at most.
    """
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    spec, commands = _spec(run), _commands(run)
    header, rows = cells(board, columns(board))
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "title": escape(run.path.name),
        "about": escape(_about(spec)),
        "table": _table(header, [[cell.text for cell in row] for row in rows]),
        "notes": "\n".join(f"<li>{_inline(note)}</li>" for note in notes(board)),
        "stability": _stability(board),
        "parameters": _table(["variant", "objective", "parameters"], _parameters(board)),
        "commands": "\n".join(map(_command, commands)) or "<p>Not recorded.</p>",
        "spec": escape(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
        if spec
        else "Not recorded.",
        "data": f"{DATA_BEGIN}{_json(page_data(board, run, samples))}{DATA_END}",
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


def _spec(run: Run) -> dict[str, Any]:
    path = run.path / "spec.yaml"
    spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return spec


def _commands(run: Run) -> list[dict[str, Any]]:
    path = run.path / "provenance.json"
    commands: list[dict[str, Any]] = read_json(path)["commands"] if path.exists() else []
    return commands


def _about(spec: dict[str, Any]) -> str:
    if not spec:
        return ""
    suite = spec["shared"]["suite"]
    return f"Suite {suite['name']}. {suite['description']}"


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


def _stability(board: Board) -> str:
    frame = stability_frame(board)
    rows = [
        [value if isinstance(value, str) else _short(value) for value in row]
        for row in frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    ]
    return _table([name.replace("_", " ") for name in frame.columns], rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{''.join(f'<td>{escape(text)}</td>' for text in others)}</tr>"
        for name, *others in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _inline(note: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(note))
