"""The page of a run: one file that needs no network and trusts no text that it shows."""

import base64
import hashlib
import json
from collections.abc import Collection
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from kdbench.base.strict_yaml import dump_yaml
from kdbench.base.templates import render
from kdbench.report.evidence import Written
from kdbench.report.markdown import from_markdown
from kdbench.report.notes import notes
from kdbench.report.page_data import page_data
from kdbench.report.render import cells, columns
from kdbench.report.stability import stability_markdown
from kdbench.report.table import AVERAGE, Board, stability_frame
from kdbench.runs.folder import Run
from kdbench.runs.results import cost_frame

DATA_BEGIN = '<script type="application/json" id="data">'
DATA_END = "</script>"
SCRIPTS = ("base.js", "table.js", "curves.js", "evidence.js", "samples.js", "start.js")
"""One script in the page, in this order."""
PAIR = ("difference", "ci_low", "ci_high", "p_holm", "effect_size", "improvement", "win_rate")
"""The figures of a pair of variants, in this order on the page."""


def to_html(
    board: Board, run: Run, samples: int | None = None, written: Written | None = None
) -> str:
    """The page: table, curves, evidence, stability, costs, samples, notes and provenance.

    What models, records and users wrote enters it in two ways only: escaped into the markup, or as
    JSON without a `<`, from which the script makes text nodes. Its content-security policy runs no
    script but the page's own and loads nothing. Without a number of samples of each set, it has as
    many as fit into 5 MB, 20 at most.
    """
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    spec = run.spec.model_dump(mode="json")
    header, rows = cells(board, columns(board))
    data = page_data(board, run, samples)
    if written is not None:
        data["evidence"] = evidence_data(written)
    return render(
        "report/page.html",
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        data=Markup(f"{DATA_BEGIN}{_json(data)}{DATA_END}"),
        title=run.path.name,
        suite=spec["shared"]["suite"],
        header=header,
        rows=[[cell.text for cell in row] for row in rows],
        notes=notes(board),
        evidence=evidence_markup(written) if written else None,
        stability=from_markdown(stability_markdown(board, ""), deeper=1),
        figures=_texts(stability_frame(board)),
        costs=_texts(cost_frame(board.costs())),
        parameters=[
            [name, group[0].objective, group[0].params]
            for name, group in board.trials.items()
            if not group[0].reference
        ],
        provenance=run.provenance,
        spec=dump_yaml(spec),
    )


def evidence_data(written: Written) -> dict[str, Any]:
    """What the page's script draws.

    `pairs` are per set [place of one variant, place of the other, *PAIR], the places among
    `variants`; `profile` is per variant [level, share, low, high].
    """
    variants, profile = written.evidence.variants, written.profile
    place = {name: number for number, name in enumerate(variants)}
    pairs: dict[str, list[list[float | None]]] = {name: [] for name in written.evidence.columns}
    for row in written.comparisons.itertuples(index=False):
        figures = [_number(getattr(row, name)) for name in PAIR]
        pairs[str(row.set)].append([place[str(row.variant)], place[str(row.other)], *figures])
    shares = profile.shares
    bands = zip(shares.estimate, shares.low, shares.high, strict=True)
    return {
        "variants": variants,
        "pairs": pairs,
        "label": profile.label,
        "profile": {
            name: [list(map(_number, point)) for point in zip(profile.levels, *band, strict=True)]
            for name, band in zip(variants, bands, strict=True)
        },
    }


def evidence_markup(written: Written) -> Markup:
    """What needs no script: how often each variant takes each rank, and evidence.md.

    A rank's cell has a shade for its share, in tenths.
    """
    evidence = written.evidence
    shares = evidence.ranks[AVERAGE].share
    ranks = [
        (name, [(share, int(np.ceil(10 * share))) for share in row])
        for name, row in zip(evidence.variants, shares, strict=True)
    ]
    table = render("report/ranks.html", evidence=evidence, ranks=ranks)
    return Markup(table) + from_markdown(written.text, deeper=1)


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


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.4g}")


def _json(data: dict[str, Any]) -> str:
    """JSON that can end no script element and begin no comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("kdbench.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _texts(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table, its numbers to four digits."""
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return (
        [name.replace("_", " ") for name in frame.columns],
        [[value if isinstance(value, str) else _short(value) for value in row] for row in rows],
    )


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
