"""Where along the run each response belongs: its step, its side, or both."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.importers.columns import Columns
from tracing.importers.values import names, steps


def read_places(columns: Columns) -> tuple[npt.NDArray[np.int64] | None, list[str] | None, tuple[str, ...]]:
    """Read steps and sides.

    Where every row has the one and some lack the other, the other is not used, and a note says so.

    Returns:
        (n,) steps or None, (n,) sides or None, and notes; never None twice.

    Raises:
        ImportFileError: The file has neither, a row has neither, or a value is no step or no name.
    """
    table = columns.table
    step, side = columns.find("step"), columns.find("side")
    if step is None and side is None:
        raise columns.need("step", "side")
    notes: tuple[str, ...] = ()
    if step is not None and side is not None:
        _check_no_gap(columns, step, side)
        if gaps := sum(map(table.missing, step)):
            known = [row for row, value in enumerate(step) if not table.missing(value)]
            steps(table.take(known), columns.name("step"), [step[row] for row in known])  # what is not used is checked all the same
            notes, step = (_not_used(columns, "step", gaps),), None
        elif gaps := sum(map(table.missing, side)):
            notes, side = (_not_used(columns, "side", gaps),), None
    return (
        None if step is None else steps(table, columns.name("step"), step),
        None if side is None else names(table, columns.name("side"), side),
        notes,
    )


def check_two_places(columns: Columns, step: npt.NDArray[np.int64] | None, side: list[str] | None) -> None:
    """Check that there is something to compare.

    Raises:
        ImportFileError: All responses are of one step and one side.
    """
    if (step is not None and np.any(step != step[0])) or (side is not None and len(set(side)) > 1):
        return
    only = [] if step is None else [f"only {columns.name('step')} {step[0]}"]
    only += [] if side is None else [f"only {columns.name('side')} {side[0]!r}"]
    rows = len(columns.table)
    raise columns.table.file_error("responses of at least two steps or two sides, to compare them", f"{' and '.join(only)} in {rows} rows")


def _check_no_gap(columns: Columns, step: list[Any], side: list[Any]) -> None:
    """Check that every row has a step or a side, and that one of the two columns has no gap."""
    table, names_of_both = columns.table, f"{columns.name('step')!r} or {columns.name('side')!r}"
    without_step, without_side = ({row for row, value in enumerate(values) if table.missing(value)} for values in (step, side))
    if neither := without_step & without_side:
        raise table.error(min(neither), f"a value in {names_of_both}", "neither")
    if without_step and without_side:
        row, other = min(without_step), min(without_side)
        raise table.error(
            row, f"a step in every row or a side in every row ({names_of_both})", f"no step here and no side on {table.line(other)}"
        )


def _not_used(columns: Columns, part: str, gaps: int) -> str:
    return f"column {columns.name(part)!r} is not used: {gaps} of {len(columns.table)} rows have no {part}"
