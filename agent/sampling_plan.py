"""Which checkpoints are sampled, and under which their responses are scored: a small object that the recording loop asks again and again.

`wanted(run)` looks at what a run directory holds and says what it should hold. The loop (:func:`agent.recording.record`) draws and scores
what is missing and asks again, until nothing is. So a plan may start with few checkpoints and want more once it sees the likelihoods, and
a recording that was killed goes on without the plan knowing. A plan must be a function of what is recorded: no memory, no clock, no chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tracing.run_directory import RunDirectory


@dataclass(frozen=True)
class Wanted:
    """What a run directory should hold.

    Attributes:
        scored: Step at which responses are sampled -> ascending steps under whose checkpoints they are scored (all among the run's).
    """

    scored: Mapping[int, tuple[int, ...]]


class SamplingPlan(Protocol):
    """Decides what is recorded next."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the plan, as JSON: part of the manifest's settings, which are never mixed in one run directory."""

    def wanted(self, run: RunDirectory) -> Wanted:
        """What should be there, given what is; a plan that is done wants what there is already."""

    def summary(self, run: RunDirectory) -> str:
        """What was recorded, in one line, when nothing is missing any more."""


@dataclass(frozen=True)
class EveryCheckpoint:
    """Sample every checkpoint (METHOD 2); score each response under all of them, or under those near its own.

    Attributes:
        window: L; a response is scored under the checkpoints at most 2L-1 places from its own, which is all that windows of L
            checkpoints on both sides of a split need. None: under all.
    """

    window: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The kind of plan and its window."""
        return {"sampling": "every", "window": self.window}

    def wanted(self, run: RunDirectory) -> Wanted:
        """All steps of the manifest, each under its band."""
        steps = run.manifest.steps
        reach = len(steps) if self.window is None else 2 * self.window - 1
        return Wanted({step: steps[max(0, k - reach) : k + reach + 1] for k, step in enumerate(steps)})

    def summary(self, run: RunDirectory) -> str:
        """How many checkpoints."""
        return f"sampled all {len(run.manifest.steps)} checkpoints"
