"""Numeric columns a user brought: everything numeric inside `scores` and `judge`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.importers.columns import Columns
from tracing.importers.table import Table, shown
from tracing.importers.values import is_number, numbers

_ROOTS = ("scores", "score", "judge")


def read_scores(columns: Columns) -> tuple[dict[str, npt.NDArray[np.float64]], list[str]]:
    """Read the scores of a table.

    Returns:
        Scores by dotted name (`judge.aligned`), each (n,) float64 with NaN where the cell is empty; and the names that hold no numbers.

    Raises:
        ImportFileError: A column holds numbers and something else, or a number that is not finite.
    """
    table = columns.table
    roots = {columns.name("scores"), *_ROOTS}
    scores: dict[str, npt.NDArray[np.float64]] = {}
    rest: list[str] = []
    for name in table.names:
        if name not in roots and name.split(".")[0] not in roots:
            continue
        columns.use(name)
        for leaf, values in _leaves(table, name, table.fetch(name)):
            if any(is_number(table, value) for value in values):
                scores[leaf] = numbers(table, leaf, values)
            elif not all(table.missing(value) for value in values):
                rest.append(leaf)
    return scores, rest


def _leaves(table: Table, name: str, values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """(dotted name, n values) of a column, or of every key inside a column of objects."""
    if not any(isinstance(value, dict) for value in values):
        yield name, values
        return
    other = next((row for row, value in enumerate(values) if value is not None and not isinstance(value, dict)), None)
    if other is not None:
        raise table.error(other, f"an object in {name!r} as in other rows", shown(values[other]))
    keys = dict.fromkeys(key for value in values if isinstance(value, dict) for key in value)
    for key in keys:
        yield from _leaves(table, f"{name}.{key}", [value.get(key) if isinstance(value, dict) else None for value in values])
