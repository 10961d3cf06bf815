"""Are two order parameters the same thing in other words? Labels on shared responses decide first, texts second.

The thresholds were measured, not guessed: `tests/benchmarks/bench_memory_duplicates.py` gives precision and recall on paraphrased
and distinct pairs over all thresholds, and its table stands in `tests/benchmarks/RESULTS.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from agent.memory_entries import MemoryEntry

How = Literal["same question", "labels", "text"]
Labels = Mapping[str, int | None]

LABEL_THRESHOLD = 0.8
"""|rank correlation| of two label vectors from which they count as one parameter."""

TEXT_THRESHOLD = 0.6
"""Cosine of two texts (default embedder) from which they count as one parameter when labels cannot decide."""

MIN_SHARED_LABELS = 20
"""Shared responses, read on both sides, below which labels cannot decide."""

MIN_MINORITY = 3
"""Responses that must lie off the commonest level on each side: below, a correlation rests on one or two responses."""


class Duplicate(NamedTuple):
    """A remembered parameter that is the same thing: the entry, how similar it is in [0, 1], and what decided."""

    entry: MemoryEntry
    similarity: float
    how: How


def label_correlation(one: Labels, other: Labels) -> float | None:
    """Absolute rank correlation (Spearman, mid-ranks) of two label vectors over the responses both judged.

    Absolute, because a scale turned round asks the same thing. Judgements that were not read are left out.

    Returns:
        A number in [0, 1]; None when fewer than `MIN_SHARED_LABELS` responses are shared or either side hardly varies there.
    """
    pairs = [(level, other[key]) for key, level in one.items() if level is not None and other.get(key) is not None]
    if len(pairs) < MIN_SHARED_LABELS:
        return None
    levels = np.array(pairs, dtype=float)
    if min(len(levels) - np.unique(column, return_counts=True)[1].max() for column in levels.T) < MIN_MINORITY:
        return None
    from scipy.stats import rankdata

    return float(abs(np.corrcoef(rankdata(levels[:, 0]), rankdata(levels[:, 1]))[0, 1]))


def entry_correlation(entry: MemoryEntry, labels: Labels) -> float | None:
    """Label correlation with the judge's vector that shares the most responses; None when none can decide."""
    by_overlap = sorted(entry.labels.values(), key=lambda levels: len(levels.keys() & labels.keys()), reverse=True)
    return next((value for levels in by_overlap if (value := label_correlation(levels, labels)) is not None), None)
