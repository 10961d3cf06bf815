"""Which rows of a file are read: those a user selects, and never several runs at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracing.importers.columns import Columns
from tracing.importers.table import Table, listed
from tracing.responses import Responses


def selected(table: Table, select: Mapping[str, str]) -> Table:
    """The rows whose columns equal the wanted values (numbers by value, everything else as written).

    Args:
        table: The file.
        select: Column (dotted names reach into nested objects) -> wanted value.

    Raises:
        ImportFileError: A column is not in the file, or no row is left.
    """
    for name, wanted in select.items():
        values = table.column(name)
        if values is None:
            raise table.file_error(f"a column {name!r} to select by", f"the columns {listed(table.names)}")
        rows = [row for row, value in enumerate(values) if _equals(value, wanted)]
        if not rows:
            raise table.file_error(f"rows with {name}={wanted}", f"{name} = {listed(sorted({_written(value) for value in values}))}")
        table = table.take(rows)
    return table


def check_one_run(columns: Columns, responses: Responses) -> tuple[str, ...]:
    """Check that no prompt is answered at the same step and side by several runs.

    Args:
        columns: The file.
        responses: What was read from it.

    Returns:
        Notes for the reader.

    Raises:
        ImportFileError: A prompt is, so that the file holds several runs.
    """
    values = columns.find("run")
    if values is None:
        return ()
    runs = [_written(value) for value in values]
    every = list(dict.fromkeys(runs))
    if len(every) == 1:
        return ()
    n, table, name = len(responses), columns.table, columns.name("run")
    steps = [None] * n if responses.step is None else responses.step.tolist()
    sides = [None] * n if responses.side is None else responses.side
    first: dict[tuple[str, int | None, str | None], str] = {}
    for row, place in enumerate(zip(responses.prompt_key, steps, sides, strict=True)):
        if first.setdefault(place, runs[row]) != runs[row]:
            raise table.error(
                row,
                "the responses of one run",
                f"one prompt at one step or side in several of {len(every)} runs ({listed(every)}); choose one: --select {name}={every[0]}",
            )
    return (f"{len(every)} runs are read together, with different prompts, steps or sides: {listed(every)}",)


def _equals(value: Any, wanted: str) -> bool:
    if _written(value) == wanted:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(wanted) == value
    except ValueError:
        return False


def _written(value: Any) -> str:
    """A value as a user would type it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
