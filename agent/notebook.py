"""Findings in a notebook: tables (pandas where it is installed), Plotly figures, and a rich display."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.records import Estimate, Findings
from agent.report import read_findings
from agent.report.findings_file import FILE_NAME
from agent.report.ranking import ranked

if TYPE_CHECKING:
    import plotly.graph_objects as go

Row = dict[str, Any]
_NUMBERS = (
    "change",
    "share",
    "unique",
    "shapley",
    "beyond_length",
    "beyond_rules",
    "interaction",
    "transfer",
    "length_matched",
    "gain",
    "onset",
)


@dataclass(frozen=True)
class LoadedFindings:
    """What `agent.load` gives. Every field of `agent.records.Findings` is there as an attribute: `findings.residual.estimate`.

    Tables are pandas DataFrames where pandas is installed, else lists of dicts with the same columns; missing is None.

    Attributes:
        record: Everything, as in findings.json.
        folder: Where it was read.
    """

    record: Findings
    folder: Path

    @classmethod
    def read(cls, run: Path) -> LoadedFindings:
        """Read the findings of a folder, or a findings.json.

        Raises:
            FindingsFileError: There are none, or they cannot be read.
        """
        folder = run.parent if run.name == FILE_NAME else run
        return cls(read_findings(folder), folder)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.record, name)

    # ---- tables

    @property
    def parameters(self) -> Any:
        """One row per order parameter, ranked: words, verdict, and every estimate with `_low` and `_high`."""
        return _table(self._parameters())

    @property
    def courses(self) -> Any:
        """Expected level of every order parameter at every step: parameter, step, estimate, low, high."""
        rows = []
        for entry in ranked(self.record):
            course = entry.finding.course
            if course is not None:
                columns = zip(course.steps, course.estimate, course.low, course.high, strict=True)
                rows += [{"parameter": entry.name, "step": s, "estimate": e, "low": low, "high": high} for s, e, low, high in columns]
        return _table(rows)

    @property
    def levels(self) -> Any:
        """Share of responses at every level, before and after: parameter, level, anchor, before, after."""
        rows = []
        for entry in ranked(self.record):
            found = entry.finding.levels
            if found is not None:
                anchors = zip(entry.finding.parameter.levels, found.before, found.after, strict=True)
                rows += [
                    {"parameter": entry.name, "level": k, "anchor": anchor, "before": before, "after": after}
                    for k, (anchor, before, after) in enumerate(anchors)
                ]
        return _table(rows)

    @property
    def prompts_by_parameter(self) -> Any:
        """Share at every prompt: parameter, prompt_id, prompt, share."""
        return _table(
            {"parameter": entry.name, "prompt_id": key, "prompt": self.record.prompts.get(key, ""), "share": share}
            for entry in ranked(self.record)
            for key, share in entry.finding.prompt_shares.items()
        )

    @property
    def tests(self) -> Any:
        """Every test made, whatever came out."""
        return _table(test.model_dump() for test in self.record.tests)

    @property
    def order(self) -> Any:
        """What moved before what: first, second, lag with limits, settled."""
        return _table({"first": o.first, "second": o.second, **_limits("lag", o.lag), "settled": o.settled} for o in self.record.order)

    @property
    def transition_curve(self) -> Any:
        """D at every split: split, change, low, high."""
        t = self.record.transition
        columns = () if t is None else zip(t.splits, t.curve, t.low, t.high, strict=True)
        return _table({"split": s, "change": c, "low": low, "high": high} for s, c, low, high in columns)

    def _parameters(self) -> Iterator[Row]:
        for entry in ranked(self.record):
            found = entry.finding
            row: Row = {
                "rank": entry.rank,
                "name": found.parameter.name,
                "id": found.parameter.id,
                "verdict": found.verdict,
                "badge": found.parameter.badge,
                "origin": found.parameter.origin,
                "round": found.round,
            }
            for name in _NUMBERS:
                row |= _limits(name, getattr(found, name))
            yield row | {
                "p_value": found.p_value,
                "alpha": found.alpha,
                "question": found.parameter.question,
                "definition": found.parameter.definition,
                "reason": found.reason,
            }

    # ---- figures and display

    @property
    def figures(self) -> Mapping[str, go.Figure]:
        """The report's figures by name (`transition`, `decomposition`, `prompts`, ...); those that there is nothing for are left out."""
        from agent.report.html import FIGURES

        drawn = {name: draw(self.record) for name, (draw, _) in FIGURES.items()}
        return {name: figure for name, figure in drawn.items() if figure is not None}

    def _repr_html_(self) -> str:
        from agent.report.html import html_summary

        return html_summary(self.record)

    def __repr__(self) -> str:
        accepted = sum(found.verdict == "accepted" for found in self.record.parameters)
        return f"<findings of {self.folder}: {accepted} of {len(self.record.parameters)} order parameters accepted>"


def _limits(name: str, estimate: Estimate | None) -> Row:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.estimate, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _table(rows: Any) -> Any:
    """Rows as a DataFrame where pandas is installed."""
    rows = list(rows)
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas as pd

    return pd.DataFrame(rows)
