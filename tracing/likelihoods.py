"""Log-probabilities of responses under checkpoints: one float32 array per step at which the responses were sampled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tracing.errors import LikelihoodsError
from tracing.responses import one_line
from tracing.whole_file import sync_folder, whole_file

ROUNDING_NATS = 1e-3
"""A log-probability may lie this far above 0: the rounding of a sum of float32 terms."""


def check_likelihoods(array: npt.NDArray[np.floating], n_responses: int, n_steps: int, n_prefixes: int, where: str) -> None:
    """Check shape and range of an array of log-probabilities.

    Args:
        array: Shape (n_responses, n_steps, 1 + n_prefixes), nats, at most 0; NaN where a response was not scored.
        n_responses: Responses sampled at the step.
        n_steps: Checkpoints they were scored under.
        n_prefixes: Prefix lengths stored beside the whole response.
        where: Start of an error message.

    Raises:
        LikelihoodsError: The shape differs, a value is positive or infinite.
    """
    shape = (n_responses, n_steps, 1 + n_prefixes)
    if array.shape != shape:
        raise LikelihoodsError(f"{where}: expected the shape (responses, scored steps, 1 + prefixes) = {shape}, found {array.shape}")
    bad = np.isinf(array) | (array > ROUNDING_NATS)
    if bad.any():
        row, step, prefix = (int(i) for i in np.argwhere(bad)[0])
        raise LikelihoodsError(
            f"{where}: expected log-probabilities in nats (finite, at most 0; NaN: not scored), "
            f"found {array[row, step, prefix]} at [{row}, {step}, {prefix}]"
        )


def write_likelihoods(path: Path, array: npt.NDArray[np.floating], scored_steps: Sequence[int], *, settings: str = "") -> None:
    """Write `array` as float32 to `path` and its steps to the sidecar `NAME.steps.json`.

    The array is the mark that both are there: an old one is removed first and the new one renamed into place last.

    Args:
        path: Destination `….npy`.
        array: Shape (n_responses, len(scored_steps), 1 + n_prefixes), nats.
        scored_steps: The checkpoint of each column.
        settings: Digest of the settings it was recorded under.

    Raises:
        LikelihoodsError: `scored_steps` are not ascending.
    """
    steps = [int(step) for step in scored_steps]
    if steps != sorted(set(steps)):
        raise LikelihoodsError(f"{path}: expected scored steps in ascending order, found {steps}")
    if path.exists():
        path.unlink()
        sync_folder(path.parent)
    with whole_file(steps_path(path)) as file:
        file.write(json.dumps({"steps": steps, "settings": settings}).encode() + b"\n")
    with whole_file(path) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)


def read_likelihoods(path: Path) -> npt.NDArray[np.float32]:
    """Read an array of log-probabilities; pickled objects are refused, never loaded.

    Returns:
        Shape (n_responses, n_scored_steps, 1 + n_prefixes), float32, nats; `[:, :, 0]` is the whole response with its stop token,
        `[:, :, k]` its first `prefixes[k - 1]` tokens; NaN: not scored.

    Raises:
        LikelihoodsError: The file is no such array.
    """
    try:
        with path.open("rb") as file:
            array: npt.NDArray[np.float32] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise LikelihoodsError(f"{path}: expected a .npy array of float32, found something else ({one_line(error)})") from error
    if array.dtype != np.float32 or array.ndim != 3:
        raise LikelihoodsError(f"{path}: expected float32 of 3 dimensions, found {array.dtype} of {array.ndim}")
    return array


def read_scored_steps(path: Path, *, settings: str | None = None) -> tuple[int, ...] | None:
    """The checkpoints of the columns of the array at `path`, from its sidecar; None when there is no sidecar.

    Raises:
        LikelihoodsError: The sidecar is damaged or was written under other settings.
    """
    sidecar = steps_path(path)
    if not sidecar.exists():
        return None
    try:
        content = json.loads(sidecar.read_bytes())
        steps, found = tuple(int(step) for step in content["steps"]), str(content["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise LikelihoodsError(f'{sidecar}: expected {{"steps": [...], "settings": "..."}}, found something else') from error
    if settings is not None and found != settings:
        raise LikelihoodsError(
            f"{sidecar}: expected likelihoods recorded under the settings {settings[:12]} of this run, found {found[:12] or 'none'}"
        )
    return steps


def steps_path(path: Path) -> Path:
    """Where the scored steps of the array at `path` are written down."""
    return path.with_suffix(".steps.json")
