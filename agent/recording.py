"""The recording loop: draw and score what a plan wants and the run directory does not hold yet.

Three parts, each replaceable: a :class:`~agent.sampling_plan.SamplingPlan` says what should be recorded, an :class:`Instrument` draws and
scores at the checkpoints (threads of this process, or machines), a run directory keeps every piece as soon as it is computed. A piece of
work (the draws of one checkpoint; the scores one checkpoint gives) is a function of settings and step alone, so a recording that was
killed goes on where it stopped and ends in the same bytes, whoever computes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agent.errors import RecordingError
from agent.sampling_plan import SamplingPlan
from probes.likelihood import Request
from probes.sampler import Draw, Question
from tracing.responses import Responses
from tracing.run_directory import RunDirectory
from tracing.score_parts import read_part, remove_parts, sampled_in_part, write_part
from tracing.tokens import read_tokens, write_tokens

Progress = Callable[[str, int, int], None]  # what is done, how far, of how many
Missing = Mapping[int, Sequence[int]]  # step of sampling -> checkpoints that have not scored its responses

NOISE_SAMPLE = 3
"""Responses per prompt that are scored again to measure the scoring noise."""


class Instrument(Protocol):
    """Draws responses and scores them at the checkpoints of a run."""

    @property
    def questions(self) -> Sequence[Question]:
        """What is asked."""

    @property
    def encoded(self) -> Sequence[tuple[int, ...]]:
        """Token ids of the questions, ready for the answer."""

    def draw(self, steps: Sequence[int]) -> Iterator[list[Draw]]:
        """The responses drawn at each of these steps, in their order, as they become ready."""

    def score(self, steps: Sequence[int], requests: Sequence[Request]) -> Iterator[npt.NDArray[np.float64]]:
        """Nats of all requests under each of these steps, shape (n_requests, 1 + n_prefixes), in the steps' order."""


def record(run: RunDirectory, instrument: Instrument, plan: SamplingPlan, progress: Progress | None = None) -> None:
    """Bring a run directory to what a plan wants; what it holds already is kept.

    Args:
        run: Where to; hold its lock (`tracing.lock.run_lock`).
        instrument: Draws and scores.
        plan: Asked again after every pass, until it wants nothing that is missing.
        progress: Called as ("sampling" or "scoring", pieces done, pieces known to be needed).

    Raises:
        RecordingError: Responses that are there cannot be scored, since their token ids were not kept.
    """
    report = progress or (lambda phase, done, total: None)
    while True:
        wanted = plan.wanted(run).scored
        unsampled = [step for step in sorted(wanted) if not run.has_step(step)]
        _sample(run, instrument, unsampled, len(wanted), report)
        missing = {step: lacking for step, under in sorted(wanted.items()) if (lacking := sorted({*under} - {*run.scored_steps(step)}))}
        if not unsampled and not missing:
            return
        _score(run, instrument, missing, report)


def scoring_noise(run: RunDirectory, exact: Instrument) -> float:
    """Largest absolute difference (nats) between stored log-probabilities and what a more exact instrument gives.

    Measured on `NOISE_SAMPLE` responses per prompt of the middle sampled step, under the first, the middle and the last checkpoint that
    scored them; two significant digits.
    """
    steps = [step for step in run.recorded_steps() if run.has_likelihoods(step)]
    sampled = steps[len(steps) // 2]
    found = run.read_likelihoods(sampled)
    if found is None:
        raise AssertionError("a scored step has likelihoods")
    stored, columns = found
    prompts: Counter[str] = Counter()
    rows = []
    for row, key in enumerate(run.read_step(sampled).prompt_key):
        prompts[key] += 1
        if prompts[key] <= NOISE_SAMPLE:
            rows.append(row)
    requests = _requests(run, exact, sampled)
    chosen = sorted({0, len(columns) // 2, len(columns) - 1})
    scores = exact.score([columns[k] for k in chosen], [requests[row] for row in rows])
    worst = max(float(np.abs(stored[rows, k] - again).max()) for k, again in zip(chosen, scores, strict=True))
    return float(f"{worst:.2g}")


def _sample(run: RunDirectory, instrument: Instrument, steps: Sequence[int], total: int, report: Progress) -> None:
    for done, (step, draws) in enumerate(zip(steps, instrument.draw(steps), strict=True), start=1):
        write_tokens(run.tokens_path(step), [draw.tokens for draw in draws], settings=run.manifest.digest)
        asked = [instrument.questions[draw.question] for draw in draws]
        texts = [question.prompt for question in asked], [draw.text for draw in draws]
        run.write_step(step, Responses.of(*texts, system=[question.system for question in asked], step=step))
        report("sampling", total - len(steps) + done, total)


def _score(run: RunDirectory, instrument: Instrument, missing: Missing, report: Progress) -> None:
    under = sorted({step for steps in missing.values() for step in steps})
    needed = {step: tuple(sampled for sampled in missing if step in missing[sampled]) for step in under}
    groups: dict[tuple[int, ...], list[int]] = {}  # the same responses are planned once for all checkpoints that score them
    for step, sampled in needed.items():
        if rest := tuple(sorted({*sampled} - {*sampled_in_part(run, step)})):
            groups.setdefault(rest, []).append(step)
    done = len(under) - sum(map(len, groups.values()))
    for sampled, steps in groups.items():
        parts = [_requests(run, instrument, step) for step in sampled]
        ends = np.cumsum([len(part) for part in parts])[:-1]
        requests = [request for part in parts for request in part]
        for step, scores in zip(steps, instrument.score(steps, requests), strict=True):
            write_part(run, step, dict(zip(sampled, np.split(scores.astype(np.float32), ends), strict=True)))
            report("scoring", done := done + 1, len(under))
    for step, lacking in missing.items():
        _assemble(run, step, lacking)
    remove_parts(run, under)


def _requests(run: RunDirectory, instrument: Instrument, step: int) -> list[Request]:
    if not run.tokens_path(step).exists():
        raise RecordingError(
            f"{run.path}: expected the token ids of the responses of step {step} (tokens/), found none: what was recorded without them "
            "cannot be scored any further; record into another folder"
        )
    place = {(question.system, question.prompt): k for k, question in enumerate(instrument.questions)}
    responses = run.read_step(step)
    asked = [instrument.encoded[place[key]] for key in zip(responses.system, responses.prompt, strict=True)]
    tokens = read_tokens(run.tokens_path(step), settings=run.manifest.digest)
    return [Request(prompt, response) for prompt, response in zip(asked, tokens, strict=True)]


def _assemble(run: RunDirectory, step: int, lacking: Sequence[int]) -> None:
    """Put the parts into the likelihoods of the responses sampled at `step`, beside what stood there."""
    columns: dict[int, npt.NDArray[np.float32]] = {}
    if run.has_likelihoods(step) and (found := run.read_likelihoods(step)) is not None:
        columns = {scored: found[0][:, k] for k, scored in enumerate(found[1])}
    for scored in lacking:
        part = read_part(run, scored, step)
        if part is None:
            raise AssertionError("every part was written in this pass or an earlier one")
        columns[scored] = part
    steps = sorted(columns)
    run.write_likelihoods(step, np.stack([columns[scored] for scored in steps], axis=1), steps)
