"""Are two order parameters the same thing in other words? Labels on shared responses decide first, texts second.

The thresholds were measured, not guessed: `tests/benchmarks/bench_memory_duplicates.py` gives precision and recall on paraphrased
and distinct pairs over all thresholds, and its table stands in `tests/benchmarks/RESULTS.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from agent.memory_entries import MemoryEntry
from agent.records import OrderParameter

How = Literal["same question", "labels", "text"]
Labels = Mapping[str, int | None]


@dataclass(frozen=True)
class Thresholds:
    """When two order parameters count as one.

    Attributes:
        exact_labels: |rank correlation| from which two exact rules are one, and below which they are two: no judge's noise is in it.
        same_labels: |rank correlation| of label vectors from which they are one, whatever their words.
        other_labels: |rank correlation| below which they are two, whatever their words. In between a noisy judge's two readings of
            one parameter and exact readings of two related ones look alike, so the words decide.
        text: Cosine of their texts from which they are one when labels leave it open. Measured for the default embedder.
    """

    exact_labels: float = 0.9
    same_labels: float = 0.8
    other_labels: float = 0.5
    text: float = 0.46


THRESHOLDS = Thresholds()

MIN_SHARED_LABELS = 20
"""Shared responses, read on both sides, below which labels cannot decide."""

MIN_MINORITY = 3
"""Responses that must lie off the commonest level on each side: below, a correlation rests on one or two responses."""


def decide(
    correlation: float | None, cosine: float | None, thresholds: Thresholds = THRESHOLDS, *, exact: bool = False
) -> tuple[float, How] | None:
    """Decide one pair: labels first, words second.

    Args:
        correlation: |rank correlation| of their labels, None when labels cannot tell.
        cosine: Cosine of their texts, None when it is not among the nearest.
        thresholds: Where the lines lie.
        exact: Both labels come from exact rules.

    Returns:
        The similarity and what decided when they are one thing, None when they are two.
    """
    same, other = (thresholds.exact_labels,) * 2 if exact else (thresholds.same_labels, thresholds.other_labels)
    if correlation is not None and correlation >= same:
        return correlation, "labels"
    if correlation is not None and correlation < other:
        return None
    return (cosine, "text") if cosine is not None and cosine >= thresholds.text else None


class Duplicate(NamedTuple):
    """A remembered parameter that is the same thing: the entry, how similar it is in [0, 1], and what decided."""

    entry: MemoryEntry
    similarity: float
    how: How


def near_duplicates(
    parameter: OrderParameter,
    labels: Labels | None,
    entries: Iterable[MemoryEntry],
    cosines: Mapping[str, float],
    thresholds: Thresholds = THRESHOLDS,
) -> list[Duplicate]:
    """Those of `entries` that are the same thing as a parameter, most similar first.

    Where both have labels on enough shared responses, a high or low correlation decides alone, however alike or different the
    words are; elsewhere the words decide.

    Args:
        parameter: The candidate.
        labels: Its levels on responses, `text_key -> level`.
        entries: What it is held against.
        cosines: Similarity in words by entry id; absent: too unlike to be looked at.
        thresholds: From which similarities on two are one.
    """
    found: list[Duplicate] = []
    for entry in entries:
        correlation = entry_correlation(entry, labels) if labels and entry.labels else None
        cosine = cosines.get(entry.id) if comparable_words(parameter, entry.parameter) else None
        if entry.id == parameter.id:
            found.append(Duplicate(entry, 1.0, "same question"))
        elif (same := decide(correlation, cosine, thresholds, exact=both_exact(parameter, entry.parameter))) is not None:
            found.append(Duplicate(entry, *same))
    return sorted(found, key=lambda duplicate: -duplicate.similarity)


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


def both_exact(one: OrderParameter, other: OrderParameter) -> bool:
    """Whether exact rules stand behind both."""
    return one.rule is not None and other.rule is not None


def comparable_words(one: OrderParameter, other: OrderParameter) -> bool:
    """Whether words can show two parameters to be one: not when exact rules of different kinds stand behind them."""
    return one.rule is None or other.rule is None or one.rule.get("kind") == other.rule.get("kind")
