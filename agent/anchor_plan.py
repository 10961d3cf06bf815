"""`--sampling auto`: start with few checkpoints and sample more where what was drawn stands least for the others (METHOD 2b)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.errors import ConfigError
from agent.sampling_plan import EveryCheckpoint, SamplingPlan, Wanted
from probes.anchors import FIRST_ANCHORS, FLOOR, MAX_ANCHORS, Coverage, coverage, first_anchors, to_refine
from tracing.run_directory import RunDirectory


@dataclass(frozen=True)
class AutomaticAnchors:
    """Sample both ends and the middle; then, one at a time, the checkpoint with the lowest effective sample size.

    Ends when the 5th percentile over prompts of the effective sample size reaches the floor at every checkpoint and the responses of the
    checkpoint added last weighed no more than they should under the proposal made without them, or with the most anchors allowed.

    With `score_every` above 1 responses are scored under every so many checkpoints and the anchors first; then under those in between
    where neighbours differ (`probes.anchors.to_refine`), and anchors are added there if need be. The others are never scored, and the
    recorded run does not have them.

    Attributes:
        floor: Effective sample size per prompt and checkpoint that is enough.
        most: Most checkpoints sampled.
        score_every: Distance of the checkpoints that are scored before it is known where the change is.
    """

    floor: float = FLOOR
    most: int = MAX_ANCHORS
    score_every: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """The kind of plan and when it ends."""
        return {"sampling": "auto", "floor": self.floor, "most_anchors": self.most, "score_every": self.score_every}

    def wanted(self, run: RunDirectory) -> Wanted:
        """The anchors chosen so far and the next one, and the checkpoints they are scored under."""
        steps = run.manifest.steps
        state = self._replayed(run)
        return Wanted(dict.fromkeys(sorted(steps[column] for column in state.chosen), tuple(steps[column] for column in state.scored)))

    def summary(self, run: RunDirectory) -> str:
        """What was sampled and how well it stands for the rest, in one line."""
        state, steps = self._replayed(run), run.manifest.steps
        named = ", ".join(str(steps[column]) for column in sorted(state.chosen))
        out = f"sampled {len(state.chosen)} of {len(steps)} checkpoints (steps {named})"
        if len(state.scored) < len(steps):
            out += f", scored under {len(state.scored)}"
        found = state.found
        if found is None or len(state.chosen) == len(steps):
            return out
        out += f"; effective responses a prompt at least {found.ess.min():.1f} at every checkpoint"
        if found.enough:
            return out
        worst = steps[state.scored[int(np.argmin(found.ess))]]
        return (
            f"{out} (lowest at step {worst}), below the floor {self.floor:g} or not confirmed by the last one sampled: what is not known "
            "will be shown as unknown; allow more checkpoints, or sample every one (--sampling every)"
        )

    def _replayed(self, run: RunDirectory) -> _State:
        """What is wanted as far as what is recorded decides it: a function of the files, so a killed recording goes on as it was."""
        n_steps = len(run.manifest.steps)
        chosen = list(first_anchors(n_steps))
        grid = {*range(0, n_steps, self.score_every), n_steps - 1}
        last, found, refined = None, None, self.score_every == 1
        while True:
            scored = tuple(sorted(grid | {*chosen}))
            if not all(set(run.scored_steps(run.manifest.steps[c])) >= {run.manifest.steps[k] for k in scored} for c in chosen):
                return _State(chosen, scored, found)
            table, drawn, prompt = _scored(run, chosen, scored)
            found = coverage(table, drawn, prompt, last, self.floor)
            if found.next_anchor is not None and len(chosen) < self.most:
                chosen.append(scored[found.next_anchor])
                last = sorted(grid | {*chosen}).index(chosen[-1])
            elif not refined:
                refined = True
                gaps = np.flatnonzero(to_refine(table, drawn, prompt))
                grid |= {column for k in gaps for column in range(scored[k], scored[k + 1])}
                last = None if last is None else sorted(grid | {*chosen}).index(chosen[-1])
            else:
                return _State(chosen, scored, found)


@dataclass(frozen=True)
class _State:
    """Columns sampled, in the order of choice; columns scored, ascending; coverage as of what is recorded."""

    chosen: list[int]
    scored: tuple[int, ...]
    found: Coverage | None


def _scored(run: RunDirectory, chosen: Sequence[int], under: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities `(n, n_under)`, column of sampling among these and prompt code of the responses sampled at some checkpoints."""
    steps = run.manifest.steps
    tables, drawn, prompt = [], [], []
    codes: dict[str, int] = {}
    for column in chosen:
        stored = run.read_likelihoods(steps[column])
        if stored is None:
            raise AssertionError("asked for what is scored")
        places = [stored[1].index(steps[k]) for k in under]
        tables.append(stored[0][:, places, 0].astype(np.float64))
        drawn.append(np.full(len(tables[-1]), under.index(column)))
        prompt += [codes.setdefault(key, len(codes)) for key in run.read_step(steps[column]).prompt_key]
    return np.concatenate(tables), np.concatenate(drawn), np.array(prompt)


def make_plan(sampling: str = "auto", window: int | None = None, anchors: int | None = None, score_every: int = 1) -> SamplingPlan:
    """The plan of that name.

    Args:
        sampling: `auto` or `every`.
        window: Of `every`.
        anchors: Most checkpoints that `auto` samples.
        score_every: Distance of the checkpoints that `auto` scores before it knows where the change is.

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
    if score_every < 1 or (score_every > 1 and sampling == "every"):
        raise ConfigError(f"expected --score-every from 1, above 1 with --sampling auto only, found {score_every}")
    if sampling == "every":
        return EveryCheckpoint(window)
    return AutomaticAnchors(most=MAX_ANCHORS if anchors is None else anchors, score_every=score_every)
