"""A file that is either whole or absent: written beside its place, flushed to disk, then renamed into it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`; on success it replaces `path`, on failure nothing is left or changed.

    A killed process can leave `.NAME.XXXX.tmp` behind; no reader looks at such names.

    Args:
        path: Where the file will be. Its folder is created when missing.

    Yields:
        The open binary file to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def whole_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write several UTF-8 text files of a folder, each whole: file name -> content."""
    for name, text in texts.items():
        with whole_file(folder / name) as file:
            file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut (POSIX; elsewhere the file system decides)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
