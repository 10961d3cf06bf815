"""Append-only files of one JSON object per line, where a crash costs at most the line being written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tracing.errors import EventsError


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one line per row and flush them to disk.

    A line that a killed process left half-written at the end is cut off first; whole lines are never touched.

    Args:
        path: The file; created with its folder when missing.
        rows: JSON objects. NaN and infinities are not JSON: pass None.

    Raises:
        ValueError: A value is not JSON.
    """
    text = "".join(json.dumps(dict(row), ensure_ascii=True, allow_nan=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _cut_half_line(path, file.tell())
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _cut_half_line(path: Path, size: int) -> None:
    if size == 0:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every whole line; a last line without its line break is what a crash left and is ignored.

    Raises:
        EventsError: A whole line is not a JSON object.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise EventsError(f"{path}:{number}: expected one JSON object, found {line[:40]!r}") from error
        if not isinstance(row, dict):
            raise EventsError(f"{path}:{number}: expected one JSON object, found {line[:40]!r}")
        yield number, row
