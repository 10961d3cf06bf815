"""Reading JSONL: one JSON object per line."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tracing.errors import ImportFileError
from tracing.importers.table import Table, decoded, shown


def read(path: str, data: bytes) -> Table:
    """Parse `data`, the bytes of the file at `path`.

    Raises:
        ImportFileError: The file is empty or no UTF-8, or a line is no JSON object, holds a key twice, or NaN.
    """
    lines = decoded(path, data).split("\n")  # never splitlines(): a response may hold U+2028 unescaped
    while not lines[-1].strip():
        lines.pop()
    rows = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(path, names, tuple(range(1, len(rows) + 1)), lambda name: [row.get(name) for row in rows])


def _parse(path: str, number: int, line: str) -> dict[str, Any]:
    place = f"{path}:{number}: expected one JSON object"
    if not line.strip():
        raise ImportFileError(f"{place}, found an empty line")
    try:
        row = json.loads(line, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        hint = "; a JSON array becomes JSONL with: jq -c '.[]' FILE" if number == 1 and line.lstrip().startswith("[") else ""
        raise ImportFileError(f"{place}, found broken JSON ({error.msg} at character {error.colno}){hint}") from error
    except (ValueError, RecursionError) as error:
        raise ImportFileError(f"{place}, found {error}") from error
    if not isinstance(row, dict):
        raise ImportFileError(f"{place}, found {shown(row)}" + ("; one object per line, not one array" if isinstance(row, list) else ""))
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return row


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not JSON (write null for a missing number)")
