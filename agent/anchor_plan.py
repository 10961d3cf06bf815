"""`--sampling auto`: start with few checkpoints and sample more where what was drawn stands least for the others (METHOD 2b)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.errors import ConfigError
from agent.sampling_plan import EveryCheckpoint, SamplingPlan, Wanted
from probes.anchors import FIRST_ANCHORS, FLOOR, MAX_ANCHORS, Coverage, coverage, first_anchors
from tracing.run_directory import RunDirectory


@dataclass(frozen=True)
class AutomaticAnchors:
    """Sample both ends and the middle; then, one at a time, the checkpoint with the lowest effective sample size.

    Ends when the 5th percentile over prompts of the effective sample size reaches the floor at every checkpoint and the responses of the
    checkpoint added last weighed no more than they should under the proposal made without them, or with the most anchors allowed.

    Attributes:
        floor: Effective sample size per prompt and checkpoint that is enough.
        most: Most checkpoints sampled.
    """

    floor: float = FLOOR
    most: int = MAX_ANCHORS

    @property
    def settings(self) -> dict[str, Any]:
        """The kind of plan and when it ends."""
        return {"sampling": "auto", "floor": self.floor, "most_anchors": self.most}

    def wanted(self, run: RunDirectory) -> Wanted:
        """The anchors chosen so far and the next one, scored under every checkpoint."""
        steps = run.manifest.steps
        return Wanted(dict.fromkeys(sorted(steps[column] for column in self._replayed(run)[0]), steps))

    def summary(self, run: RunDirectory) -> str:
        """What was sampled and how well it stands for the rest, in one line."""
        columns, found = self._replayed(run)
        steps = run.manifest.steps
        named = ", ".join(str(steps[column]) for column in sorted(columns))
        out = f"sampled {len(columns)} of {len(steps)} checkpoints (steps {named})"
        if found is None or len(columns) == len(steps):
            return out
        out += f"; effective responses a prompt at least {found.ess.min():.1f} at every checkpoint"
        if found.enough:
            return out
        worst = steps[int(np.argmin(found.ess))]
        return (
            f"{out} (lowest at step {worst}), below the floor {self.floor:g} or not confirmed by the last one sampled: what is not known "
            "will be shown as unknown; allow more checkpoints, or sample every one (--sampling every)"
        )

    def _replayed(self, run: RunDirectory) -> tuple[list[int], Coverage | None]:
        """Columns wanted in the order of choice, as far as what is recorded decides it, and the coverage of those that are scored."""
        steps = run.manifest.steps
        chosen = list(first_anchors(len(steps)))
        last, found = None, None
        while all(set(run.scored_steps(steps[column])) >= set(steps) for column in chosen):
            found = coverage(*_scored(run, chosen), last, self.floor)
            if found.next_anchor is None or len(chosen) >= self.most:
                break
            last = found.next_anchor
            chosen.append(last)
        return chosen, found


def _scored(run: RunDirectory, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities `(n, n_steps)`, column of sampling and prompt code of the responses sampled at some checkpoints."""
    steps = run.manifest.steps
    tables, drawn, prompt = [], [], []
    codes: dict[str, int] = {}
    for column in columns:
        stored = run.read_likelihoods(steps[column])
        if stored is None:
            raise AssertionError("asked for what is scored")
        places = [stored[1].index(step) for step in steps]
        tables.append(stored[0][:, places, 0].astype(np.float64))
        drawn.append(np.full(len(tables[-1]), column))
        prompt += [codes.setdefault(key, len(codes)) for key in run.read_step(steps[column]).prompt_key]
    return np.concatenate(tables), np.concatenate(drawn), np.array(prompt)


def make_plan(sampling: str = "auto", window: int | None = None, anchors: int | None = None) -> SamplingPlan:
    """The plan of that name.

    Args:
        sampling: `auto` or `every`.
        window: Of `every`.
        anchors: Most checkpoints that `auto` samples.

    Raises:
        ConfigError: There is none, or an option is out of range or the other plan's.
    """
    if sampling not in ("auto", "every"):
        raise ConfigError(f"expected --sampling auto or every, found {sampling}")
    for option, value, belongs, least in (("--window", window, "every", 1), ("--anchors", anchors, "auto", FIRST_ANCHORS)):
        if value is not None and sampling != belongs:
            raise ConfigError(f"{option} {value}: expected with --sampling {belongs} only")
        if value is not None and value < least:
            raise ConfigError(f"expected {option} of at least {least}, found {value}")
    if sampling == "every":
        return EveryCheckpoint(window)
    return AutomaticAnchors() if anchors is None else AutomaticAnchors(most=anchors)
