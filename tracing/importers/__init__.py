"""Reading recordings: our run directory, and files of responses that others wrote (one file here per format)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tracing.errors import ImportFileError
from tracing.importers import csv, jsonl, parquet
from tracing.importers.interpretation import interpret
from tracing.importers.table import Table, content_digest
from tracing.recording import Recording
from tracing.run_directory import MANIFEST_NAME, RunDirectory

_READERS: dict[str, Callable[[str, bytes], Table]] = {
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".json": jsonl.read,
    ".csv": csv.read,
    ".tsv": partial(csv.read, delimiter="\t"),
    ".parquet": parquet.read,
    ".pq": parquet.read,
}


def load(path: str | Path, *, columns: Mapping[str, str] | None = None, select: Mapping[str, str] | None = None) -> Recording:
    """Read a run directory, or a JSONL, CSV or Parquet file with one response per row.

    Needed columns: `prompt`, `completion`, and `step` (whole number) or `side` (name). Also understood: `system`, `prompt_id`,
    `response_id`, `logprob` (nats, under the row's step; or an object by step), `scores` and `judge` (numbers, or objects of numbers),
    `run`. `prompt` may be a list of messages; in place of both, `messages` may hold whole conversations whose last turn is the response.

    Args:
        path: The run directory or file.
        columns: Part -> name in the file: `{"prompt": "question", "completion": "answer"}`. Dotted names reach into nested objects.
        select: Column -> value: only such rows are read (`{"run": "llama-1b-medical"}`).

    Raises:
        ImportFileError: Anything in the file is not as expected; one line says where, what was expected and what was found.
        RunDirectoryError, ResponsesError, LikelihoodsError, EventsError: Likewise for a run directory.
    """
    columns, select = columns or {}, select or {}
    file = Path(path)
    try:
        if (file / MANIFEST_NAME).exists():
            _refuse_options(path, columns, select)
            return RunDirectory.open(file).load()
        data = _bytes_of(file)
    except OSError as error:
        raise ImportFileError(f"{path}: expected a readable run directory or file, found: {error.strerror}") from error
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ImportFileError(f"{path}: expected a name ending in {', '.join(_READERS)}, found {file.suffix or 'no ending'!r}")
    how = [(f"columns.{part}", name) for part, name in sorted(columns.items())]
    how += [(f"select.{name}", value) for name, value in sorted(select.items())]
    return interpret(reader(str(path), data), columns, select, content_digest(data, how))


def _bytes_of(file: Path) -> bytes:
    if not file.exists():
        raise ImportFileError(f"{file}: expected a run directory or a file of responses, found nothing there")
    if file.is_dir():
        raise ImportFileError(f"{file}: expected a run directory with {MANIFEST_NAME}, found a folder without one")
    return file.read_bytes()


def _refuse_options(path: str | Path, columns: Mapping[str, str], select: Mapping[str, str]) -> None:
    """A run directory names its own columns and holds one run: an option that has no effect is a misunderstanding."""
    if columns or select:
        option = "--columns" if columns else "--select"
        raise ImportFileError(f"{path}: expected no {option} for a run directory (it names its own columns and holds one run), found some")
