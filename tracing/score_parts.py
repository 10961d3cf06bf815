"""Scores on their way: what one checkpoint gave for the responses of several steps, kept until every checkpoint has had its turn.

A recording computes by checkpoint (weights are loaded once), and keeps likelihoods by the step at which responses were sampled. A part is
the work that a crash can lose.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tracing.responses import step_name
from tracing.run_directory import RunDirectory
from tracing.whole_file import whole_file


def part_path(run: RunDirectory, scored_step: int) -> Path:
    """Where the part of a checkpoint lies."""
    return run.path / "likelihoods" / "parts" / f"{step_name(scored_step)}.npz"


def write_part(run: RunDirectory, scored_step: int, scores: Mapping[int, npt.NDArray[np.float32]]) -> None:
    """Write what a checkpoint gave: step of sampling -> nats, shape (n_responses, 1 + n_prefixes). What the part held before stays."""
    kept = {step: read_part(run, scored_step, step) for step in sampled_in_part(run, scored_step) if step not in scores}
    arrays = {step_name(step): array for step, array in {**kept, **scores}.items() if array is not None}
    with whole_file(part_path(run, scored_step)) as file:
        np.savez(file, allow_pickle=False, settings=np.array(run.manifest.digest), **arrays)


def sampled_in_part(run: RunDirectory, scored_step: int) -> tuple[int, ...]:
    """Steps whose responses the part of a checkpoint holds; none when it is missing, damaged or of other settings: it is made again."""
    try:
        with np.load(part_path(run, scored_step), allow_pickle=False) as parts:
            if str(parts["settings"]) != run.manifest.digest:
                return ()
            return tuple(sorted(int(name.removeprefix("step-")) for name in parts.files if name.startswith("step-")))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return ()


def read_part(run: RunDirectory, scored_step: int, sampled_step: int) -> npt.NDArray[np.float32] | None:
    """What a checkpoint gave for the responses of one step, or None."""
    if sampled_step not in sampled_in_part(run, scored_step):
        return None
    with np.load(part_path(run, scored_step), allow_pickle=False) as parts:
        return np.asarray(parts[step_name(sampled_step)], dtype=np.float32)


def remove_parts(run: RunDirectory, scored_steps: Iterable[int]) -> None:
    """Remove parts whose scores stand where they belong."""
    for step in scored_steps:
        part_path(run, step).unlink(missing_ok=True)
    folder = part_path(run, 0).parent
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
