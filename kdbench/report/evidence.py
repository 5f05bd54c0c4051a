"""Writes how sure a run's order is: `evidence.md`, its tables and its plots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdbench.base.store import write_text
from kdbench.base.templates import document
from kdbench.report.evidence_data import (
    GREEDY,
    METRIC,
    Evidence,
    collect,
    comparisons_frame,
    ranks_frame,
)
from kdbench.report.evidence_plots import Profile, draw_evidence, profile_of
from kdbench.report.evidence_variance import gains_frame, init_share, variance_frame
from kdbench.report.plots import write_plots
from kdbench.report.stability import write_stability
from kdbench.report.table import AVERAGE, Board, write_csv
from kdbench.runs.folder import Run
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL

SHOWN = 12
"""Comparisons that evidence.md shows; comparisons.csv has all."""

TABLES = {"ranks": ranks_frame, "comparisons": comparisons_frame, "variance": variance_frame}
"""By file name without suffix."""

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Written:
    """A run's evidence as it was written; `text` is that of evidence.md."""

    evidence: Evidence
    comparisons: pd.DataFrame
    profile: Profile
    text: str


def write_evidence(run: Run, board: Board) -> Written | None:
    """Writes `stability.md` and its tables, and, where variants can be compared, the evidence.

    That is `evidence.md`, `{ranks,comparisons,variance}.csv` and `plots/{ranks,profiles}`; it takes
    two ranked variants that share a training seed, else None is returned. The tables hold both
    decodings.
    """
    write_stability(run, board)
    evidence = collect(board, METRIC)
    if evidence is None:
        return None
    every = {METRIC: evidence, GREEDY: collect(board, GREEDY)}
    tables = {
        metric: {name: frame_of(found) for name, frame_of in TABLES.items()}
        for metric, found in every.items()
        if found is not None
    }
    for name in TABLES:
        frame = pd.concat([frames[name] for frames in tables.values()], ignore_index=True)
        write_csv(run.path / f"{name}.csv", frame)
    text = evidence_markdown(evidence, tables)
    write_text(run.path / "evidence.md", text)
    profile = profile_of(evidence)
    write_plots(run, draw_evidence(evidence, profile))
    return Written(evidence, tables[METRIC]["comparisons"], profile, text)


def evidence_markdown(evidence: Evidence, tables: Mapping[str, Frames]) -> str:
    """The evidence as Markdown, on the average over the sets; `tables` are its frames by metric."""
    shown = {name: _average(frame) for name, frame in tables[METRIC].items()}
    pairs, variance = shown["comparisons"], shown["variance"]
    against_best = pairs[pairs["variant"] == evidence.variants[0]]
    row, difference = (
        {own.component: own for own in _rows(variance[variance["scope"] == scope])}
        for scope in ("row", "difference")
    )
    return document(
        "report/evidence.md",
        evidence=evidence,
        ranks=_rows(shown["ranks"]),
        pairs=_rows(against_best.head(SHOWN)),
        greedy=_greedy(shown["ranks"], _average(tables[GREEDY]["ranks"]))
        if GREEDY in tables
        else None,
        row=row,
        difference=difference,
        n_diverged=sum(found.n_diverged for found in evidence.board.stability.values()),
        init_shares={
            what: init_share({name: own.share for name, own in found.items()})
            for what, found in (("a row's figure", row), ("a difference", difference))
        },
        gains=_rows(gains_frame(evidence, AVERAGE)),
        smallest_p=smallest_sign_flip_p(evidence.n_seeds),
        level=LEVEL,
    )


def _greedy(sampled: pd.DataFrame, greedy: pd.DataFrame) -> dict[str, Any]:
    """The ranks by greedy decoding, the best first, and how far they agree with the sampled."""
    means, other = (frame.set_index("variant")["mean"] for frame in (sampled, greedy))
    place = means.rank(ascending=False).to_dict()
    ordered = greedy.sort_values("mean", ascending=False, kind="stable")
    return {
        "rows": _rows(ordered.assign(place=ordered["variant"].map(place))),
        "correlation": other.corr(means, method="spearman"),
    }


def _average(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["set"] == AVERAGE]


def _rows(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples(index=False))
