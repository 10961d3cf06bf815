"""Recording end to end: automatic anchors against sampling and scoring every checkpoint the plain way, in one process on one core."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
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
from tests.benchmarks.organisms import TrainedOrganism, trained_organism
from tests.benchmarks.section import Section
from tracing import Manifest, RunDirectory
from tracing.tokens import read_tokens

PER_PROMPT = 3
MAX_TOKENS = 96
PLAIN_BATCH = 32
TIMED = 2
"""Checkpoints at which the plain way is timed; it does the same at all 61."""


def automatic_seconds(organism: TrainedOrganism, folder: Path, plan: AutomaticAnchors) -> tuple[float, RunDirectory]:
    """Wall time of recording with anchors, until the run directory is complete."""
    run = RunDirectory.create(folder, Manifest("organism", organism.steps, sampling=plan.settings))
    began = time.perf_counter()
    with Checkpoints(AdapterSubjects(organism.subject, organism.adapters), 1) as checkpoints:
        record(run, LocalInstrument(checkpoints, organism.tokenizer, organism.questions, Drawing(PER_PROMPT, MAX_TOKENS, 1)), plan)
    return time.perf_counter() - began, run


def plain_seconds(organism: TrainedOrganism, run: RunDirectory) -> tuple[float, float]:
    """Wall time of one checkpoint the plain way: its 72 responses drawn by `generate`, all 61 x 72 responses scored by full forwards.

    The responses that are scored are those of the run, again and again: as many of the same lengths.
    """
    prompts = [encode_question(organism.tokenizer, question) for question in organism.questions for _ in range(PER_PROMPT)]
    known = [row for step in run.recorded_steps() for row in zip(prompts, read_tokens(run.tokens_path(step)), strict=True)]
    rows = [known[k % len(known)] for k in range(len(organism.steps) * len(prompts))]
    sampling, scoring = [], []
    for step in (organism.steps[len(organism.steps) // 3], organism.steps[-1])[:TIMED]:
        began = time.perf_counter()
        set_adapter(organism.subject, organism.adapters[step])
        _generate(organism, prompts)
        sampling.append(time.perf_counter() - began)
        began = time.perf_counter()
        for start in range(0, len(rows), PLAIN_BATCH):
            _score(organism.subject, rows[start : start + PLAIN_BATCH])
        scoring.append(time.perf_counter() - began)
    return float(np.mean(sampling)), float(np.mean(scoring))


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


def run(quick: bool) -> Section:
    """One organism; `quick` is the same."""
    torch.set_num_threads(1)
    organism = trained_organism(0)
    n_steps, n_each = len(organism.steps), len(organism.questions) * PER_PROMPT
    with tempfile.TemporaryDirectory() as folder:
        seconds, recorded = automatic_seconds(organism, Path(folder) / "auto", AutomaticAnchors())
        coarse, other = automatic_seconds(organism, Path(folder) / "coarse", AutomaticAnchors(score_every=4))
        sampling, scoring = plain_seconds(organism, recorded)
        n_sampled = [len(each.recorded_steps()) for each in (recorded, other)]
        n_scored = [len(each.scored_steps(0)) for each in (recorded, other)]
    plain = n_steps * (sampling + scoring)
    ratio = plain / seconds

    def row(way: str, k: int, wall: float) -> list[str]:
        return [way, str(n_sampled[k]), str(n_sampled[k] * n_each), str(n_scored[k]), f"{wall:.1f} s", f"{plain / wall:.1f}"]

    return Section(
        title="Recording with automatic anchors, end to end",
        command="python -m tests.benchmarks --only auto",
        columns=("way", "checkpoints sampled", "responses", "checkpoints scored", "wall time", "times faster"),
        rows=[
            ["every checkpoint, plain", str(n_steps), str(n_steps * n_each), str(n_steps), f"{plain:.0f} s", "1"],
            row("auto", 0, seconds),
            row("auto, --score-every 4", 1, coarse),
        ],
        bar=f"Bar: at least 8 times less wall time than the plain way ({ratio:.1f}): {'met' if ratio >= 8 else 'NOT met'}.",
        notes=[
            f"Tiny organism, 24 prompts x {PER_PROMPT}, one core. Plain: for each checkpoint load the adapter, draw by `generate`, score "
            f"all responses by full forwards (batches of {PLAIN_BATCH}); timed at {TIMED} checkpoints ({sampling:.1f} s of drawing and "
            f"{scoring:.1f} s of scoring each), times {n_steps}.",
            "Accuracy: rates of labels along the run are nearer to the truth from six anchors than from averages of all that every "
            "checkpoint gives, and shares have RMSE below .04 (section anchors).",
        ],
    )
