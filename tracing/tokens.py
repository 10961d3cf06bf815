"""The sampled token ids of the responses of one step: a text can be cut into tokens in several ways, and only the sampled one is scored."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tracing.errors import ResponsesError
from tracing.responses import one_line
from tracing.whole_file import whole_file


def write_tokens(path: Path, tokens: Sequence[Sequence[int]], *, settings: str = "") -> None:
    """Write token ids, one sequence a response, to `path` (`….npz`), whole or not at all."""
    lengths = np.array([len(each) for each in tokens], dtype=np.int32)
    flat = np.array([token for each in tokens for token in each], dtype=np.int32)
    with whole_file(path) as file:
        np.savez(file, tokens=flat, lengths=lengths, settings=np.array(settings))


def read_tokens(path: Path, *, settings: str | None = None) -> list[tuple[int, ...]]:
    """Read what `write_tokens` wrote; pickled objects are refused.

    Raises:
        ResponsesError: The file is missing, damaged or was recorded under other settings.
    """
    try:
        with np.load(path, allow_pickle=False) as parts:
            flat, lengths, found = parts["tokens"], parts["lengths"], str(parts["settings"])
        ends = np.cumsum(lengths)
        if flat.ndim != 1 or lengths.ndim != 1 or (lengths < 1).any() or (ends[-1] if ends.size else 0) != flat.size:
            raise ValueError("lengths that do not add up")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ResponsesError(f"{path}: expected the sampled token ids of a step, found something else ({one_line(error)})") from error
    if settings is not None and found != settings:
        raise ResponsesError(
            f"{path}: expected tokens recorded under the settings {settings[:12]} of this run, found {found[:12] or 'none'}"
        )
    return [tuple(int(token) for token in part) for part in np.split(flat, ends[:-1])] if lengths.size else []
