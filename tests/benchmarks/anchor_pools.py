"""Responses of the organisms drawn once and scored once, from which a benchmark redraws by arithmetic.

A *stream* is a purpose (`auto`: what automatic sampling draws; `pool`: what is redrawn from; `reference`: independent truth). A *block*
is a number of responses per prompt at one checkpoint, drawn with a seed of its own; its file keeps texts and tokens, a second file the
scores `(n, n_steps)`, NaN where not scored. Blocks are only ever completed, never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.checkpoints import AdapterSubjects, Checkpoints
from probes.organism import set_adapter
from probes.organism_truth import Attributes, read_attributes
from probes.request import Request
from probes.sampler import encode_question, sample
from tests.benchmarks.organisms import TrainedOrganism
from tracing.whole_file import whole_file

STREAMS = ("auto", "pool", "reference")
MAX_TOKENS = 96
Scorer = Callable[[TrainedOrganism, Sequence[Request], Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Block:
    """Responses drawn at one checkpoint.

    Attributes:
        prompt: `(n,)` number of the question.
        drawn_at: `(n,)` column of the checkpoint, the same for all.
        text: `(n,)` responses.
        scores: `(n, n_steps)` nats, NaN where not scored.
    """

    prompt: np.ndarray
    drawn_at: np.ndarray
    text: tuple[str, ...]
    scores: np.ndarray


def score_on_one_core(organism: TrainedOrganism, requests: Sequence[Request], columns: Sequence[int]) -> np.ndarray:
    """Log-probabilities `(n, len(columns))` of responses under checkpoints."""
    with Checkpoints(AdapterSubjects(organism.subject, organism.adapters), 1) as checkpoints:
        return np.stack([scores[:, 0] for scores in checkpoints.score(requests, [organism.steps[c] for c in columns])], axis=1)


def block(
    organism: TrainedOrganism,
    stream: str,
    column: int,
    number: int,
    per_prompt: int,
    columns: Sequence[int],
    scorer: Scorer = score_on_one_core,
) -> Block:
    """A block, drawn and scored as far as it is not kept yet.

    Args:
        organism: Who is asked.
        stream: One of `STREAMS`.
        column: Checkpoint that is sampled.
        number: Number of the block within its stream and checkpoint.
        per_prompt: Responses to each prompt.
        columns: Checkpoints that it is to be scored under.
        scorer: How.
    """
    name = f"{stream}-{organism.steps[column]:06d}-{number}-{per_prompt}"
    folder = organism.folder / "pools"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _drawn(organism, folder / f"{name}.npz", [STREAMS.index(stream), column, number], per_prompt)
    path = folder / f"{name}-scores.npy"
    prompt = drawn["prompt"]
    scores = np.load(path) if path.exists() else np.full((prompt.size, len(organism.steps)), np.nan, dtype=np.float32)
    missing = [c for c in columns if np.isnan(scores[0, c])]
    if missing:
        encoded = [encode_question(organism.tokenizer, question) for question in organism.questions]
        ends = np.cumsum(drawn["length"])
        requests = [
            Request(encoded[p], tuple(drawn["tokens"][end - n : end].tolist()))
            for p, n, end in zip(prompt, drawn["length"], ends, strict=True)
        ]
        scores[:, missing] = scorer(organism, requests, missing)
        _save(path, lambda file: np.save(file, scores))
    return Block(prompt, np.full(prompt.size, column), tuple(drawn["text"].tolist()), scores.astype(float))


def _drawn(organism: TrainedOrganism, path: Path, key: list[int], per_prompt: int) -> dict[str, np.ndarray]:
    if not path.exists():
        set_adapter(organism.subject, organism.adapters[organism.steps[key[1]]])
        seed = int(np.random.SeedSequence([organism.seed, 77, *key]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        draws = sample(organism.subject, organism.tokenizer, organism.questions, per_prompt, seed, MAX_TOKENS, rows_per_batch=1024)
        arrays: dict[str, Any] = {
            "prompt": np.array([d.question for d in draws]),
            "length": np.array([len(d.tokens) for d in draws]),
            "tokens": np.concatenate([np.array(d.tokens, dtype=np.int16) for d in draws]),
            "text": np.array([d.text for d in draws]),
        }
        _save(path, lambda file: np.savez_compressed(file, **arrays))
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _save(path: Path, write: Callable[[Any], None]) -> None:
    with whole_file(path) as file:
        write(file)


def together(blocks: Sequence[Block]) -> Block:
    """Several blocks as one."""
    return Block(
        np.concatenate([b.prompt for b in blocks]),
        np.concatenate([b.drawn_at for b in blocks]),
        tuple(text for b in blocks for text in b.text),
        np.concatenate([b.scores for b in blocks]),
    )


def attributes(organism: TrainedOrganism, drawn: Block) -> list[Attributes]:
    """Ground truth of every response."""
    return [read_attributes(organism.questions[p].prompt, text) for p, text in zip(drawn.prompt, drawn.text, strict=True)]
