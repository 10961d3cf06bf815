"""Recording end to end: automatic anchors against sampling and scoring every checkpoint the plain way, in one process on one core."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.anchor_plan import AutomaticAnchors
from agent.instrument import Drawing, LocalInstrument
from agent.recording import record
from probes.checkpoints import AdapterSubjects, Checkpoints
from probes.organism import set_adapter
from probes.sampler import encode_question
from tests.benchmarks.anchor_worlds import N_ANCHORS, PER_ANCHOR, REFERENCE, World, world
from tests.benchmarks.bench_anchors import cells, draws, redraw, rmse_of, shares
from tests.benchmarks.organisms import TrainedOrganism, trained_organism
from tests.benchmarks.section import Section
from tracing import Manifest, RunDirectory
from tracing.tokens import read_tokens

PER_PROMPT = (PER_ANCHOR, 1)
"""Responses per prompt that the plain way draws at each checkpoint: as many as automatic anchors at theirs, and the fewest there can be."""
MAX_TOKENS = 96
PLAIN_BATCH = 32
TIMED = 2
"""Checkpoints at which the plain way is timed; it does the same at all 61."""
BAR = 8


Seconds = np.ndarray
"""Wall and processor seconds, `(2,)`: where the machine is busy with something else only the second can be compared."""


def clock() -> Seconds:
    """Now."""
    return np.array([time.perf_counter(), time.process_time()])


@dataclass(frozen=True)
class Accuracy:
    """RMSE of rates of labels along the run, of the share whose RMSE is largest, and of D as a part of it."""

    rate: float
    share: float
    change: float

    @property
    def cells(self) -> list[str]:
        """For the table."""
        return [f"{self.rate:.3f}", f"{self.share:.3f}", f"{100 * self.change:.1f}%"]


def of_anchors(of: World, n_redraws: int) -> Accuracy:
    """Of six anchors, one or two fewer than automatic sampling takes."""
    found = redraw(of, n_redraws)
    return Accuracy(rmse_of(found.rate_rmse), float(np.sqrt((found.share_error**2).mean(axis=0)).max()), rmse_of(found.d))


def of_every(of: World, per_prompt: int, n_redraws: int) -> Accuracy:
    """Of averages at each checkpoint, and of D and shares from all responses of the two windows, redrawn from the reference."""
    everything = np.arange(of.reference.prompt.size)
    rng = np.random.default_rng([92, of.seed, per_prompt])
    rows = draws(cells(of.reference), n_redraws, rng, per_prompt)
    d, share = zip(*(shares(of, of.reference, of.reference_labels, each) for each in rows), strict=True)
    d_true, share_true = shares(of, of.reference, of.reference_labels, everything)
    rate = rmse_of(redraw(of, 2).rate_rmse_every) * np.sqrt(PER_ANCHOR / per_prompt)
    return Accuracy(
        float(rate), float(np.sqrt(((np.array(share) - share_true) ** 2).mean(axis=0)).max()), rmse_of(np.array(d) / d_true - 1)
    )


def automatic_seconds(organism: TrainedOrganism, folder: Path, plan: AutomaticAnchors) -> tuple[Seconds, RunDirectory]:
    """Time of recording with anchors, until the run directory is complete."""
    run = RunDirectory.create(folder, Manifest("organism", organism.steps, sampling=plan.settings))
    began = clock()
    with Checkpoints(AdapterSubjects(organism.subject, organism.adapters), 1) as checkpoints:
        record(run, LocalInstrument(checkpoints, organism.tokenizer, organism.questions, Drawing(PER_ANCHOR, MAX_TOKENS, 1)), plan)
    return clock() - began, run


def plain_seconds(organism: TrainedOrganism, run: RunDirectory, per_prompt: int) -> tuple[Seconds, Seconds]:
    """Time of one checkpoint the plain way: its responses drawn by `generate`, those of all checkpoints scored by full forwards.

    The responses that are scored are those of the run, again and again, as many of the same lengths; batches are sorted by length.
    """
    encoded = [encode_question(organism.tokenizer, question) for question in organism.questions]
    rows_of = [prompt for prompt in encoded for _ in range(PER_ANCHOR)]
    known = [row for step in run.recorded_steps() for row in zip(rows_of, read_tokens(run.tokens_path(step)), strict=True)]
    n = len(organism.steps) * len(encoded) * per_prompt
    rows = sorted((known[k % len(known)] for k in range(n)), key=lambda row: len(row[0]) + len(row[1]))
    sampling, scoring = [], []
    for step in (organism.steps[len(organism.steps) // 3], organism.steps[-1])[:TIMED]:
        began = clock()
        set_adapter(organism.subject, organism.adapters[step])
        _generate(organism, [prompt for prompt in encoded for _ in range(per_prompt)])
        sampling.append(clock() - began)
        began = clock()
        for start in range(0, len(rows), PLAIN_BATCH):
            _score(organism.subject, rows[start : start + PLAIN_BATCH])
        scoring.append(clock() - began)
    return np.mean(sampling, axis=0), np.mean(scoring, axis=0)


def _generate(organism: TrainedOrganism, prompts: Sequence[Sequence[int]]) -> None:
    width, pad = max(map(len, prompts)), organism.tokenizer.pad_token_id
    for start in range(0, len(prompts), PLAIN_BATCH):
        part = prompts[start : start + PLAIN_BATCH]
        tokens = torch.tensor([[pad] * (width - len(p)) + list(p) for p in part])
        with torch.inference_mode():
            organism.subject.generate(
                input_ids=tokens, attention_mask=(tokens != pad).long(), do_sample=True, top_k=0, top_p=1.0, max_new_tokens=MAX_TOKENS
            )


def _score(subject: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
    texts = [[*prompt, *response] for prompt, response in rows]
    tokens = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for k, text in enumerate(texts):
        tokens[k, : len(text)], mask[k, : len(text)] = torch.tensor(text), 1
    with torch.inference_mode():
        log_p = subject(input_ids=tokens, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        log_p.gather(2, tokens[:, 1:, None])


COLUMNS = (
    *(
        "way",
        "checkpoints sampled",
        "responses",
        "checkpoints scored",
        "wall time",
        "processor time",
        "times faster than plain, 3 a prompt",
        "than 1 a prompt",
    ),
    *("RMSE of rates along the run", "of the hardest share", "of D"),
)


def _met(ratio: Seconds) -> str:
    return "met" if ratio[0] >= BAR else "NOT met"


def run(quick: bool) -> Section:
    """One organism; in `quick` accuracies of five redraws."""
    torch.set_num_threads(1)
    organism, of, n_redraws = trained_organism(0), world(0), 5 if quick else 50
    n_steps, n_prompts = len(organism.steps), len(organism.questions)
    with tempfile.TemporaryDirectory() as folder:
        timed = {
            name: automatic_seconds(organism, Path(folder) / str(plan.score_every), plan)
            for name, plan in (("auto", AutomaticAnchors()), ("auto, --score-every 4", AutomaticAnchors(score_every=4)))
        }
        parts = [plain_seconds(organism, timed["auto"][1], n) for n in PER_PROMPT]
        recorded = {name: (each.recorded_steps(), each.scored_steps(0)) for name, (_, each) in timed.items()}
    plain = [n_steps * (sampling + scoring) for sampling, scoring in parts]

    def row(way: str, sampled: int, each: int, scored: int, taken: Seconds, accuracy: Accuracy) -> list[str]:
        counts = [str(sampled), str(sampled * n_prompts * each), str(scored), *(f"{seconds:.1f} s" for seconds in taken)]
        return [way, *counts, *("{:.1f} ({:.1f})".format(*of_plain / taken) for of_plain in plain), *accuracy.cells]

    every = [of_every(of, n, n_redraws) for n in PER_PROMPT]
    rows = [
        row(f"every checkpoint, plain, {n} a prompt", n_steps, n, n_steps, taken, accuracy)
        for n, taken, accuracy in zip(PER_PROMPT, plain, every, strict=True)
    ]
    anchors = of_anchors(of, n_redraws)
    rows += [
        row(name, len(recorded[name][0]), PER_ANCHOR, len(recorded[name][1]), seconds, anchors) for name, (seconds, _) in timed.items()
    ]
    ratios = [of_plain / timed["auto"][0] for of_plain in plain]
    rates = every[-1].rate / anchors.rate
    # the error of an average falls with the root of the responses in it, the plain way's time grows with their number
    as_good = max(1.0, (every[0].rate / anchors.rate) ** 2)
    everything = ratios[0] * as_good
    of_each = "; ".join(
        f"{n} a prompt: {sampling[1]:.2f} s of drawing, {scoring[1]:.2f} s of scoring"
        for n, (sampling, scoring) in zip(PER_PROMPT, parts, strict=True)
    )
    return Section(
        title="Recording with automatic anchors, end to end",
        command="python -m tests.benchmarks --only auto",
        columns=COLUMNS,
        rows=rows,
        bar=f"Bar: auto takes at least {BAR} times less wall time at the same accuracy. To be as accurate in everything (rates along the "
        f"run, shares, D) the plain way needs {PER_PROMPT[0] * as_good:.0f} responses a prompt and checkpoint ({everything[0]:.0f} times "
        f"auto's wall time, {everything[1]:.0f} times its processor time, continued from the first row): {_met(everything)}. With "
        f"{PER_PROMPT[0]}, whose rates are less accurate and whose D and shares more: {ratios[0][0]:.1f} ({ratios[0][1]:.1f}), "
        f"{_met(ratios[0])}. For D and shares alone, {PER_PROMPT[1]} a prompt is about as accurate: {ratios[1][0]:.1f} "
        f"({ratios[1][1]:.1f}), {_met(ratios[1])}; its rates have {rates:.1f} times the error.",
        notes=[
            f"Tiny organism, {n_prompts} prompts, one core. Plain: for each checkpoint load the adapter, draw by `generate`, score the "
            f"responses of all checkpoints by full forwards (batches of {PLAIN_BATCH}, sorted by length); timed at {TIMED} checkpoints "
            f"(processor time of each, {of_each}), times {n_steps}.",
            f"Accuracy over {n_redraws} redraws. Plain: rates are averages at each checkpoint, D and shares come from the responses of the "
            f"two windows, redrawn from {sum(REFERENCE)} a prompt and checkpoint. Automatic: of {N_ANCHORS} anchors with {PER_ANCHOR} a "
            "prompt (section anchors), no more than it takes.",
        ],
    )
