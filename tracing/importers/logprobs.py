"""Log-probabilities that a file brings along."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.importers.columns import Columns
from tracing.importers.table import Table, kind, shown
from tracing.importers.values import numbers
from tracing.likelihoods import ROUNDING_NATS


def read_logprobs(
    columns: Columns, step: npt.NDArray[np.int64] | None
) -> tuple[tuple[int, ...], npt.NDArray[np.float64] | None, tuple[str, ...]]:
    """Read the column `logprob`.

    A number is the log-probability in nats under the row's own step; an object gives it by step: `{"0": -31.2, "120": -18.9}`.

    Returns:
        The T known steps, ascending; (n, T) float64 log-probabilities, NaN where none is given, or None; and notes.

    Raises:
        ImportFileError: A value is no log-probability, or the rows mix numbers and objects.
    """
    table, name = columns.table, columns.name("logprob")
    own = () if step is None else tuple(sorted(set(step.tolist())))
    values = columns.find("logprob")
    if values is None:
        return own, None, ()
    if step is None:
        return own, None, (f"column {name!r} is not used: a log-probability belongs to a step, and the rows have sides only",)
    values = [_object(table, value) for value in values]
    if not any(isinstance(value, dict) for value in values):
        by_row = numbers(table, name, values, "a log-probability (or nothing)")
        cells = [(row, int(step[row]), value) for row, value in enumerate(by_row.tolist()) if not np.isnan(value)]
    else:
        cells = list(_cells(table, name, values))
    known = tuple(sorted({*own, *(at for _, at, _ in cells)}))
    place = {at: k for k, at in enumerate(known)}
    array = np.full((len(table), len(known)), np.nan)
    for row, at, value in cells:
        if value > ROUNDING_NATS:
            raise table.error(row, f"a log-probability in nats (at most 0) in {name!r}", f"{value}")
        array[row, place[at]] = value
    return known, array, ()


def _object(table: Table, value: Any) -> Any:
    """In formats without objects (CSV) one is written as JSON: read it; everything else stays as it is."""
    if table.typed or not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _cells(table: Table, name: str, values: list[Any]) -> list[tuple[int, int, float]]:
    """(row, step, nats) of every log-probability in a column of objects by step."""
    cells = []
    for row, value in enumerate(values):
        if table.missing(value):
            continue
        if not isinstance(value, dict):
            raise table.error(row, f'log-probabilities by step in {name!r} ({{"0": -31.2, …}}) as on other lines', shown(value))
        for key, number in value.items():
            at = int(key) if key.isascii() and key.isdigit() else None
            if at is None:
                raise table.error(row, f"steps as the keys of {name!r}", repr(key))
            if number is None:
                continue
            if kind(number) != "a number" or not np.isfinite(number):
                raise table.error(row, f"a log-probability (or nothing) in '{name}.{key}'", shown(number))
            cells.append((row, at, float(number)))
    return cells
