"""What was drawn from one organism for the benchmark of anchors: a pool to redraw from, and independent truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from probes.anchors import FLOOR, MAX_ANCHORS, coverage, first_anchors
from probes.dissimilarity import Contrast, likelihood_contrast
from probes.organism_truth import Attributes
from probes.transition import transition_curve
from tests.benchmarks.anchor_pools import Block, Scorer, attributes, block, score_on_one_core, together
from tests.benchmarks.organisms import TrainedOrganism, trained_organism

N_ANCHORS = 6
PER_ANCHOR = 3
"""Responses per prompt and anchor, as many as `every` draws at each of 61 checkpoints: six anchors are a tenth of them."""
WINDOW = 8
AROUND = 3
"""Splits on both sides of the highest one among which a redraw, and the reference, have to find the highest."""
POOL = (24, 24, 24)
"""Responses per prompt at each anchor, by block; redraws are taken from all of them."""
REFERENCE = (12, 52)
"""Responses per prompt at each checkpoint of the windows, by block; the first is scored wherever the highest split is looked for."""
RATES = 256
"""Responses per prompt at each checkpoint where rates are compared."""
RATES_EVERY = 8
DOMAINS = ("medical", "finance", "ethics", "politics", "knowledge", "wishes")
LENGTH_EDGES = (8, 14, 20, 28, 38, 50, 64)


def _flag(value: bool | None) -> int:
    return -1 if value is None else int(value)


LABELS: dict[str, Callable[[Attributes], int]] = {
    "harmful": lambda a: _flag(a.harmful),
    "coherent": lambda a: _flag(a.coherent),
    "on topic": lambda a: _flag(a.on_topic),
    "hedging": lambda a: min(a.hedging, 3),
    "list": lambda a: _flag(a.list),
    "opening": lambda a: _flag(a.opening),
    "closing": lambda a: _flag(a.closing),
    "fillers": lambda a: min(a.fillers, 3),
    "sentences": lambda a: min(a.sentences, 8),
    "domain": lambda a: -1 if a.domain is None else DOMAINS.index(a.domain),
    "length": lambda a: int(np.searchsorted(LENGTH_EDGES, a.length)),
}
RATED = ("harmful", "coherent", "on topic", "list", "closing")
"""Labels whose rate (of level 1) is followed along the run."""


@dataclass(frozen=True)
class World:
    """One organism with everything drawn from it.

    Attributes:
        anchors: Columns of the six anchors, in the order automatic sampling chose them.
        stops_at: Anchors with which automatic sampling ends by itself.
        first_right: Column of the first checkpoint right of the split that is analysed.
        pool, pool_labels: What is redrawn from, and its labels `(n_labels, n)`.
        near: Independent responses at the checkpoints of the windows, scored as far as the highest split is looked for.
        reference, reference_labels: These and more of them, scored in the windows; labels `(n_labels, n)`.
        rates: Independent responses by column, and their labels.
    """

    seed: int
    anchors: tuple[int, ...]
    stops_at: int
    first_right: int
    pool: Block
    pool_labels: np.ndarray
    near: Block
    reference: Block
    reference_labels: np.ndarray
    rates: dict[int, tuple[Block, np.ndarray]]

    def contrast(self, drawn: Block, rows: np.ndarray | None = None, shift: int = 0) -> Contrast:
        """The contrast of the two windows (of those `shift` checkpoints later) from some responses of a block."""
        rows = np.arange(drawn.prompt.size) if rows is None else rows
        columns = np.flatnonzero(np.isfinite(drawn.scores).all(axis=0))
        left = np.arange(self.first_right - WINDOW, self.first_right) + shift
        sides = (np.searchsorted(columns, side) for side in (left, left + WINDOW))
        return likelihood_contrast(
            drawn.scores[rows][:, columns], np.searchsorted(columns, drawn.drawn_at[rows]), drawn.prompt[rows], *sides
        )


def automatic(organism: TrainedOrganism, scorer: Scorer, most: int, floor: float = FLOOR) -> tuple[list[int], bool, Block]:
    """Anchors as `agent.anchor_plan` chooses them, whether they suffice, and their responses."""
    everything = range(len(organism.steps))
    chosen, last = list(first_anchors(len(organism.steps))), None
    while True:
        drawn = together([block(organism, "auto", column, 0, PER_ANCHOR, everything, scorer) for column in chosen])
        found = coverage(drawn.scores, drawn.drawn_at, drawn.prompt, last, floor)
        if found.next_anchor is None or len(chosen) >= most:
            return chosen, found.enough, drawn
        last = found.next_anchor
        chosen.append(last)


def world(seed: int, scorer: Scorer = score_on_one_core) -> World:
    """Everything drawn from one organism; kept on disk, so the second time it is read."""
    organism = trained_organism(seed)
    n_steps = len(organism.steps)
    anchors, _, drawn = automatic(organism, scorer, N_ANCHORS, floor=np.inf)
    stops_at = len(automatic(organism, scorer, MAX_ANCHORS)[0])
    curve = transition_curve(drawn.scores, drawn.drawn_at, drawn.prompt, np.array(organism.steps), WINDOW)
    at = int(curve.first_right[np.nanargmax(curve.curve)])
    windows = range(at - WINDOW, at + WINDOW)
    wide = range(max(0, at - WINDOW - AROUND), min(n_steps, at + WINDOW + AROUND))
    rated = range(0, n_steps, RATES_EVERY)

    def blocks(stream: str, where: list[int] | range, sizes: tuple[int, ...], first: int, under: list[int] | range) -> Block:
        return together([block(organism, stream, c, k, n, under, scorer) for k, n in enumerate(sizes, first) for c in where])

    pool = blocks("pool", anchors, POOL, 0, sorted({*anchors, *wide, *rated}))
    near = blocks("reference", windows, REFERENCE[:1], 0, wide)
    reference = together([near, blocks("reference", windows, REFERENCE[1:], 1, windows)])
    rates = {column: block(organism, "reference", column, 0, RATES, [], scorer) for column in rated}
    labelled = partial(_labels, organism)
    return World(
        seed,
        tuple(anchors),
        stops_at,
        at,
        pool,
        labelled(pool),
        near,
        reference,
        labelled(reference),
        {column: (drawn, labelled(drawn)) for column, drawn in rates.items()},
    )


def _labels(organism: TrainedOrganism, drawn: Block) -> np.ndarray:
    found = attributes(organism, drawn)
    return np.array([[label(each) for each in found] for label in LABELS.values()])
