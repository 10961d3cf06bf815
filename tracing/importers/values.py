"""Raw values of one column turned into texts and numbers, each checked on its line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.importers.table import Table, kind, shown

_LARGEST_STEP = 2**63 - 1


def texts(table: Table, name: str, values: list[Any]) -> list[str]:
    """A column of text without gaps.

    Raises:
        ImportFileError: A value is missing or no text.
    """
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise table.error(row, f"text in {name!r}{_as_before(table, row)}", shown(value))
    _check_unicode(table, name, values)
    return list(values)


def names(table: Table, name: str, values: list[Any]) -> list[str]:
    """A column of ids: text, or whole numbers, in every row, never empty and never both.

    Raises:
        ImportFileError: A value is missing, of another type, or of another type than the first.
    """
    first = next(value for value in values if not table.missing(value))
    wanted = str if isinstance(first, str) else int
    result = []
    for row, value in enumerate(values):
        whole = None if wanted is str else whole_number(value)
        if table.missing(value) or value == "" or (wanted is str and not isinstance(value, str)) or (wanted is int and whole is None):
            words = "text" if wanted is str else "a whole number"
            raise table.error(row, f"{words} in {name!r}{_as_before(table, row)}", shown(value))
        result.append(value if wanted is str else str(whole))
    _check_unicode(table, name, result)
    return result


def steps(table: Table, name: str, values: list[Any]) -> npt.NDArray[np.int64]:
    """A column of optimizer steps: whole numbers from 0, in every row.

    Raises:
        ImportFileError: A value is missing, negative, not finite or no whole number.
    """
    result = []
    for row, value in enumerate(values):
        number = whole_number(value) if table.typed else whole_number(_parsed(value))
        if number is None or not 0 <= number <= _LARGEST_STEP:
            raise table.error(row, f"a whole number from 0 in {name!r}{_as_before(table, row)}", shown(value))
        result.append(number)
    return np.array(result, dtype=np.int64)


def numbers(table: Table, name: str, values: list[Any], wanted: str = "a number (or nothing)") -> npt.NDArray[np.float64]:
    """A column of finite numbers; NaN in the result where the cell is empty. True and false count 1 and 0, if all are.

    Raises:
        ImportFileError: A value is no number, not finite, or of another type than the first.
    """
    result = np.full(len(values), np.nan)
    first: tuple[int, str] | None = None
    for row, value in enumerate(values):
        if table.missing(value):
            continue
        number = value if table.typed else _parsed(value)
        if not isinstance(number, int | float) or not _is_finite(number) or (first is not None and kind(number) != first[1]):
            as_before = "" if first is None else f" as on {table.line(first[0])}"
            raise table.error(row, f"{wanted} in {name!r}{as_before}", shown(value))
        first = first or (row, kind(number))
        result[row] = float(number)
    return result


def whole_number(value: Any) -> int | None:
    """`value` as an int when it is a whole number (120 or 120.0), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value) or value != int(value):
        return None
    return int(value)


def is_number(table: Table, value: Any) -> bool:
    """Whether a cell holds a number (NaN and infinities included), or true or false."""
    return isinstance(value if table.typed else _parsed(value), int | float)


def _parsed(cell: Any) -> Any:
    """The number an untyped cell spells, or the cell itself."""
    if not isinstance(cell, str) or "_" in cell:
        return cell
    for reads in (int, float):
        try:
            return reads(cell)
        except ValueError:
            continue
    return cell


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the range of float
        return False


def _as_before(table: Table, row: int) -> str:
    """` as on line 1`: every row before the first wrong one is right, so a wrong one after it mixes types."""
    return f" as on {table.line(0)}" if row else ""


def _check_unicode(table: Table, name: str, values: list[str]) -> None:
    """JSON can spell half a surrogate pair; no file, hash or terminal can."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        for row, value in enumerate(values):
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise table.error(row, f"valid Unicode in {name!r}", "half a surrogate pair (\\ud800 to \\udfff)") from None
