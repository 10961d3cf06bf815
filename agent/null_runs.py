"""Null runs: the whole loop again on data in which nothing changed. What it accepts there, it accepts from noise (METHOD 4).

`permute`: which response goes with which (s, weight) is drawn anew within each prompt. (Permuting sides would be no null when
s is known from likelihoods: s does not depend on the side.) `split`: two halves of one side, told apart by side alone.
Judgements are reused: a response is judged once, whatever s it is given.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from agent.config import RunConfig
from agent.graph import run_loop
from agent.hypotheses import registered
from agent.records import NullRun, OrderParameter
from agent.workbench import Progress, Workbench
from probes.dissimilarity import Contrast
from probes.errors import SampleError
from tracing import Recording

if TYPE_CHECKING:
    from agent.evidence import ProposerView

NULL = 8
"""Purpose of random numbers."""


@dataclass(frozen=True)
class Replay:
    """Offers the candidates of the real run again, round by round: a proposer that must be paid for is not asked anew."""

    id: str
    candidates: Sequence[OrderParameter]

    def propose(self, view: ProposerView, rng: np.random.Generator) -> list[OrderParameter]:
        """The next candidates not decided yet."""
        decided = {p.id for p in [*view.accepted, *view.rejected]}
        return [p for p in self.candidates if p.id not in decided][: view.n]


def null_runs(work: Workbench, kind: Literal["permute", "split"], runs: int, progress: Progress) -> NullRun:
    """Run the loop `runs` times on nulls made from a finished discovery.

    Args:
        work: The discovery; its judgements are reused and added to.
        kind: How the null is made.
        runs: How many times.
        progress: Called after each run.

    Returns:
        How many candidates were tested and accepted in all.
    """
    accepted = tested = 0
    for k in range(runs):
        rng = work.rng(NULL, k)
        null = permuted(work, rng) if kind == "permute" else halved_work(work, rng)
        with tempfile.TemporaryDirectory(prefix="null-") as folder:
            null.folder = Path(folder)
            null.__dict__["store"] = work.store
            try:
                state = run_loop(null)
            except SampleError as error:
                return NullRun(kind=kind, runs=0, accepted=0, tested=0, sentence=f"A null run ({kind}) is not possible here: {error}.")
        accepted += len(state["accepted"])
        tested += len(state.get("tests", []))
        progress("null", {"run": k + 1, "runs": runs, "accepted": accepted, "tested": tested})
    how = "labels permuted within prompt" if kind == "permute" else "halves of one side"
    noun = "run" if runs == 1 else "runs"
    sentence = f"In {runs} null {noun} ({how}) this discovery would have accepted {accepted} of {tested} candidates from noise."
    return NullRun(kind=kind, runs=runs, accepted=accepted, tested=tested, sentence=sentence)


def _like(work: Workbench, recording: Recording, config: RunConfig, contrast: Contrast | None) -> Workbench:
    proposer = work.proposer if work.proposer.id == "embedded" else Replay(work.proposer.id, list(work.parameters.values()))
    config = config.model_copy(update={"review": False})
    record = registered(work.folder)
    given = work.get(record.hypotheses) if record else []
    return Workbench(recording, config, work.folder, proposer, work.judge, given_contrast=contrast, given_hypotheses=given)


def permuted(work: Workbench, rng: np.random.Generator) -> Workbench:
    """The same discovery with responses dealt out anew over (s, weight) within each prompt."""
    contrast = work.contrast
    index = contrast.index.copy()
    for p in range(contrast.n_prompts):
        rows = np.flatnonzero(contrast.prompt == p)
        index[rows] = index[rng.permutation(rows)]
    return _like(work, work.recording, work.config, replace(contrast, index=index))


def halved_work(work: Workbench, rng: np.random.Generator) -> Workbench:
    """A discovery between two random halves of the before side."""
    spec, _ = work.chosen
    responses = work.recording.responses
    if spec.kind == "sides":
        rows = np.flatnonzero(np.array(responses.side) == spec.before)
    else:
        assert responses.step is not None  # noqa: S101 - a contrast of steps has steps
        rows = np.flatnonzero(np.isin(responses.step, [work.recording.steps[k] for k in spec.left]))
    config = work.config.model_copy(update={"contrast": "sides", "before": "half A", "after": "half B", "split": None, "window": None})
    return _like(work, halved(work.recording, rows, rng), config, None)


def halved(recording: Recording, rows: np.ndarray, rng: np.random.Generator) -> Recording:
    """Responses `rows` as two sides "half A" and "half B", every prompt divided at random as evenly as it goes."""
    keys = np.array(recording.responses.prompt_key)
    side = np.empty(len(recording.responses), dtype=object)
    for key in np.unique(keys[rows]):
        own = rng.permutation(rows[keys[rows] == key])
        first = (own.size + int(rng.integers(2))) // 2
        side[own[:first]], side[own[first:]] = "half A", "half B"
    part = recording.responses.take(rows)
    part = replace(part, side=tuple(side[rows]), step=None)
    return Recording(f"{recording.source} (halves)", recording.digest, part)
