"""A recording in memory: what a run directory or a file of responses holds, ready for measuring."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracing.manifest import Manifest
from tracing.responses import Responses


@dataclass(frozen=True, eq=False)
class TrainingTrace:
    """What the trainer logged, in ascending order of steps.

    Attributes:
        step: (n,) int64.
        loss, grad_norm, learning_rate, epoch: (n,) float64, NaN where nothing was logged. `grad_norm` is before clipping.
    """

    step: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]
    grad_norm: npt.NDArray[np.float64]
    learning_rate: npt.NDArray[np.float64]
    epoch: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Recording:
    """Responses with everything known about them.

    Attributes:
        source: The path as given.
        digest: SHA-256 of the content and of how it was read; the same bytes give the same digest.
        responses: n responses.
        steps: The T checkpoints known by step, ascending; empty when only sides are known.
        log_likelihood: (n, T) float64, log-probability in nats of each response (with its stop token) under each checkpoint;
            NaN: not scored. None when nothing was scored.
        prefix_log_likelihood: The same for the first k tokens of each response, by k.
        training: What the trainer logged, or None.
        manifest: How it was recorded, or None for a file of responses.
        notes: What a reader should know (columns not used, prompts told apart, steps without responses).
    """

    source: str
    digest: str
    responses: Responses
    steps: tuple[int, ...] = ()
    log_likelihood: npt.NDArray[np.float64] | None = None
    prefix_log_likelihood: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)
    training: TrainingTrace | None = None
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()
