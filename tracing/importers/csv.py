"""Reading CSV (and TSV): a header line, then one record per response; quoted fields may hold line breaks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager

from tracing.errors import ImportFileError
from tracing.importers.table import Table, decoded, listed

_LONGEST_FIELD = 2**31 - 1  # the standard library's 131072 is less than some responses


def read(path: str, data: bytes, delimiter: str = ",") -> Table:
    """Parse `data`, the bytes of the file at `path`. All values are text; an empty cell is a missing number or an empty text.

    Raises:
        ImportFileError: The file is empty or no UTF-8, a quote stays open, or a record does not have as many fields as the header.
    """
    records = _records(path, decoded(path, data), delimiter)
    _, header = next(records)
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ImportFileError(f"{path}:1: expected a different name for each column, found {twice!r} in {listed(header)}")
    lines, rows = [], []
    for line, record in records:
        if len(record) != len(header):
            raise ImportFileError(f"{path}:{line}: expected {len(header)} fields as in the header ({listed(header)}), found {len(record)}")
        lines.append(line)
        rows.append(record)
    if not rows:
        raise ImportFileError(f"{path}:1: expected at least one response, found only the header")
    place = {name: k for k, name in enumerate(header)}
    return Table(path, tuple(header), tuple(lines), lambda name: [row[place[name]] for row in rows], typed=False)


def _records(path: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which the record starts, fields); empty lines at the end of the file are not records."""
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        start, empty = 1, 0
        while True:
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                found = "a quote that is never closed" if "unexpected end" in str(error) else str(error)
                raise ImportFileError(f"{path}:{start}: expected a CSV record, found {found}") from error
            if record and empty:
                raise ImportFileError(f"{path}:{empty}: expected a CSV record, found an empty line")
            if record:
                yield start, record
            else:
                empty = empty or start
            start = reader.line_num + 1


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the process-wide limit of the standard library while one file is read."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
