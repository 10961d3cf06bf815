"""A lower bound of the total change from samples alone: cross-fitted classifiers of the side (METHOD 3).

For any predicted probability q of the side *before*, `2 (2 q_own - q^2 - (1-q)^2) - 1` averages to at most the linear
dissimilarity D, with equality at the true posterior (2q-1 has no such property). Noise around 0 when nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.dissimilarity import Contrast, leave_one_out_means
from probes.resampling import Interval, jackknife

N_FOLDS = 5
N_BINS = 8
STYLE_STRENGTH, WORD_STRENGTH = 0.1, 4.0
"""Inverse L2 penalties of the two logistic regressions."""


@dataclass(frozen=True)
class ChangeBound:
    """Lower bound of D.

    Attributes:
        bound: The bound on the confirm half, prompt jackknife.
        leave_one_out: `(n_groups,)` the bound without each jackknife group of the confirm half.
        classifier: Name of the classifier that was best on the propose half.
        calibration: Rows (mean predicted probability of *before*, observed share of *before*, n) by fifths of the prediction.
        candidates: Bound of every classifier on the propose half.
    """

    bound: Interval
    leave_one_out: np.ndarray
    classifier: str
    calibration: tuple[tuple[float, float, int], ...]
    candidates: dict[str, float]


def quadratic_score(q_before: np.ndarray, before: np.ndarray) -> np.ndarray:
    """`2 (2 q_own - q^2 - (1-q)^2) - 1` per response, in [-3, 1]; its mean bounds D from below.

    Args:
        q_before: `(n,)` predicted probability of *before*, made without looking at the response's side.
        before: `(n,)` bool.
    """
    own = np.where(before, q_before, 1 - q_before)
    return np.asarray(2 * (2 * own - q_before**2 - (1 - q_before) ** 2) - 1)


def change_bound(contrast: Contrast, confirm: np.ndarray, texts: Sequence[str], style: np.ndarray, rng: np.random.Generator) -> ChangeBound:
    """Bound D on the confirm half with the classifier that does best on the propose half.

    Args:
        contrast: Without likelihoods; all responses, both halves.
        confirm: `(n,)` bool, True for the confirm half.
        texts: n completions, for word features.
        style: `(n, k)` numbers: length, format features and every judged label (missing as NaN).
        rng: Source of the folds.

    Returns:
        The bound.
    """
    fold = _folds(contrast, rng)
    before = contrast.s > 0
    weight = contrast.weight / contrast.weight.mean()
    families = {"style": (_style_features(style), STYLE_STRENGTH), "words": (_word_features(texts), WORD_STRENGTH)}
    predictions: dict[str, np.ndarray] = {}
    for name, (features, strength) in families.items():
        predictions[name] = np.empty(len(texts))
        for k in range(N_FOLDS):
            held = fold == k
            predictions[name][held] = _predicted(features, before, weight, held, strength)
    predictions["style and words"] = (predictions["style"] + predictions["words"]) / 2
    scores = {name: quadratic_score(q, before) for name, q in predictions.items()}
    propose_rows = contrast.complete(~confirm)
    propose = contrast.take(propose_rows)
    candidates = {name: propose.mean(score[propose_rows]) for name, score in scores.items()}
    best = max(candidates, key=lambda name: candidates[name])
    rows = contrast.complete(confirm)
    half, score = contrast.take(rows), scores[best][rows]
    loo = leave_one_out_means(half, score)
    return ChangeBound(jackknife(half.mean(score), loo), loo, best, _calibration(predictions[best][rows], before[rows]), candidates)


def _folds(contrast: Contrast, rng: np.random.Generator) -> np.ndarray:
    """Folds dealt out within (prompt, side), so every fold holds about the same part of each."""
    fold = np.empty(contrast.s.size, dtype=np.int64)
    cell = contrast.prompt * 2 + (contrast.s > 0)
    offset = 0
    for c in np.unique(cell):
        rows = rng.permutation(np.flatnonzero(cell == c))
        fold[rows] = (np.arange(rows.size) + offset) % N_FOLDS
        offset += rows.size
    return fold


def _word_features(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # the document frequencies come from all texts of both sides together, so they say nothing about a side
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=10_000)
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs twice: nothing to learn from
        return np.zeros((len(texts), 1))


def _style_features(style: np.ndarray) -> Any:
    """Every number as quantile bins (missing: a bin of its own): effects need not be monotone. Bins know nothing of the side."""
    from sklearn.preprocessing import OneHotEncoder

    binned = [np.searchsorted(np.unique(np.nanquantile(x, np.arange(1, N_BINS) / N_BINS)), x) for x in style.T if np.isfinite(x).any()]
    if not binned:  # nothing was measured
        return np.zeros((style.shape[0], 1))
    return OneHotEncoder().fit_transform(np.stack(binned, axis=1))


def _predicted(features: Any, before: np.ndarray, weight: np.ndarray, held: np.ndarray, strength: float) -> np.ndarray:
    """Probability of *before* on the held-out responses, from a logistic regression on the others."""
    from sklearn.linear_model import LogisticRegression

    if not held.any() or before[~held].all() or not before[~held].any():  # one or two responses a side: nothing is known of the other side
        return np.full(int(held.sum()), 0.5)
    fitted = LogisticRegression(C=strength, solver="liblinear", max_iter=300).fit(
        features[~held], before[~held], sample_weight=weight[~held]
    )
    return np.asarray(fitted.predict_proba(features[held])[:, 1])


def _calibration(q: np.ndarray, before: np.ndarray) -> tuple[tuple[float, float, int], ...]:
    part = np.searchsorted(np.quantile(q, [0.2, 0.4, 0.6, 0.8]), q, side="right")
    return tuple(
        (float(q[part == k].mean()), float(before[part == k].mean()), int((part == k).sum())) for k in range(5) if (part == k).any()
    )
