"""What a command that measures leaves: its answer as JSON or for people, and with --out a JSON file and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer


def give_answer(name: str, text: str, page: Callable[[], str], show: Callable[[], None], out: Path | None, as_json: bool) -> None:
    """Write `NAME.json` and `NAME.html` when a folder is given, then print.

    Args:
        name: Of both files, without suffix.
        text: The answer as JSON.
        page: Makes the page; asked only when it is written.
        show: Prints the answer for people.
        out: Folder for the files, or None.
        as_json: Print `text` and nothing else.
    """
    if out is not None:
        from tracing.whole_file import whole_texts

        whole_texts(out, {f"{name}.json": text, f"{name}.html": page()})
    if as_json:
        sys.stdout.write(text)
        return
    show()
    if out is not None:
        typer.echo(f"Page: {out / f'{name}.html'}")
