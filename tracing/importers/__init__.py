"""Reading recordings: our run directory, and files of responses that others wrote (one file per format)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tracing.recording import Recording
from tracing.run_directory import RunDirectory


def load(path: str | Path, *, columns: Mapping[str, str] | None = None, select: Mapping[str, str] | None = None) -> Recording:
    """Read a run directory or a file of responses."""
    return RunDirectory.open(path).load()
