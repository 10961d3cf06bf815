"""Does a candidate say more than a better reading of the accepted set would? A second reading is not a discovery (METHOD 4).

A label A read with error leaves a part of its own effect unexplained, and any other reading of the same thing, a paraphrase or
a correlate, explains some of that part. Two readings X, Z of A whose errors are unrelated show what a reading without error
would: `E[Z'X] = E[A'A]`, so the regression of s on A itself has the slope `beta = (Z'WX)^-1 Z'Ws` (errors in variables;
Fuller 1987, Reiersol's instruments), and the projection of a candidate C on A the slope `gamma = (X'WZ)^-1 X'WC`. What C adds is

    U = sum_i w_i (C_i - Z_i gamma) (s_i - X_i beta),    zero in expectation for every C whose error is unrelated to those of X and Z

and, being insensitive to small errors of both slopes, has the plain variance `V = sum_i psi_i psi_i'` of its summands. Both roles
of X and Z are averaged. `U' V^-1 U` gives the p-value; `U' S^-1 U - tr(S^-1 V)`, with S what A leaves of C's variance, is the
gain in D[O] beyond A itself, unbiased to first order. Everything is weighted and centred within prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from probes.dissimilarity import Contrast
from probes.errors import ShapeError
from probes.explained_share import center_within_prompt, dummies

LEAST_PER_LEVEL = 8
"""Responses a level needs in both readings together, halved; rarer ones are merged with the next level."""
LEAST_RELIABLE = 0.1
"""Where two readings agree less than this (or than 2/sqrt n, chance), their error is not undone any further: 1/agreement would explode."""
LEAST_LEFT = 0.05
"""A direction of a candidate of which the accepted set leaves less than this part is taken to gain nothing: its gain cannot be told."""
_SINGULAR = 1e-9


@dataclass(frozen=True)
class Beyond:
    """What a candidate adds to the accepted set as a reading without error would have it.

    Attributes:
        gain: Gain in D[O], unbiased to first order; may be negative.
        p_value: Of no association beyond the accepted set.
        reliability: `(n_directions,)` agreement of the two readings by direction of the labels, 1: no error.
    """

    gain: float
    p_value: float
    reliability: np.ndarray


def beyond_second_reading(contrast: Contrast, first: Sequence[np.ndarray], second: Sequence[np.ndarray], candidate: np.ndarray) -> Beyond:
    """Test a candidate against everything that two readings of the accepted set say together.

    Args:
        contrast: n responses with s, weights and prompts.
        first: Labels `(n,)` accounted for, as read first.
        second: The same as read again; equal to the first where a label is exact (length, rules).
        candidate: `(n,)` labels under test.

    Returns:
        Gain and p-value beyond the accepted set without its reading error.

    Raises:
        ShapeError: Another number of second than of first readings.
    """
    if len(first) != len(second):
        raise ShapeError(f"second readings: expected one for each of {len(first)} labels, found {len(second)}")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not np.array_equal(a, b)]
    exact = _orthonormal(contrast, [dummies(a) for a, b in zip(first, second, strict=True) if np.array_equal(a, b)])
    read = [_same_levels(a, b) for a, b in pairs]
    c = _new_directions(exact, _scaled(contrast, [dummies(candidate)]))
    s = _left_by(exact, _scaled(contrast, [contrast.s[:, None]]))[:, 0]
    x, z = (_left_by(exact, _scaled(contrast, [pair[k] for pair in read])) for k in (0, 1))
    x, z, reliability = _reliable_directions(x, z)
    scores, spread = _scores(c, s, x, z, 1 / _used_reliability(reliability, s.size))
    free = s.size - contrast.n_prompts - exact.shape[1] - x.shape[1]
    return _tested(scores, spread, free, contrast.n_prompts, reliability)


def _scores(c: np.ndarray, s: np.ndarray, x: np.ndarray, z: np.ndarray, inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Summands of U, `(n, k)`, and S, `(k, k)`; `inverse (d,)` is one over the reliability of each direction."""
    both = (x + z) / 2
    beta = inverse * (both.T @ s)
    gamma = inverse[:, None] * (both.T @ c)
    cross = ((z @ gamma) * (x @ beta)[:, None] + (x @ gamma) * (z @ beta)[:, None]) / 2
    scores = c * (s - both @ beta)[:, None] - (both @ gamma) * s[:, None] + cross
    return scores, c.T @ c - gamma.T @ (both.T @ c)


def _tested(scores: np.ndarray, spread: np.ndarray, free: int, n_prompts: int, reliability: np.ndarray) -> Beyond:
    if free < 1 or scores.shape[1] == 0:
        return Beyond(0.0, 1.0, reliability)
    u = scores.sum(axis=0)
    v = scores.T @ scores * (scores.shape[0] / free)
    size, vectors = np.linalg.eigh(v)
    kept = size > _SINGULAR * max(float(size.max(initial=0.0)), 1e-300)
    statistic = float(np.sum((vectors[:, kept].T @ u) ** 2 / size[kept]))
    p_value = float(stats.f.sf(statistic / kept.sum(), kept.sum(), free)) if kept.any() else 1.0
    values, turned = np.linalg.eigh(spread)
    solid = values > LEAST_LEFT
    inverse = (turned[:, solid] / values[solid]) @ turned[:, solid].T
    return Beyond(float(u @ inverse @ u - np.sum(inverse * v)) / n_prompts, p_value, reliability)


def _same_levels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dummies of two readings on common levels, rare ones merged with the rarer neighbour (missing ones with the commonest level)."""
    label = np.concatenate([first, second])
    while True:
        levels, count = np.unique(label, return_counts=True)
        rarest = int(np.argmin(count))
        if levels.size <= 2 or count[rarest] >= 2 * LEAST_PER_LEVEL:
            break
        neighbours = [k for k in (rarest - 1, rarest + 1) if 0 <= k < levels.size and levels[k] >= 0]
        into = int(np.argmax(count)) if levels[rarest] < 0 else min(neighbours, key=lambda k: int(count[k]))
        label = np.where(label == levels[rarest], levels[into], label)
    shown = (label[:, None] == np.delete(levels, np.argmax(count))[None, :]).astype(np.float64)
    return shown[: first.size], shown[first.size :]


def _scaled(contrast: Contrast, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns centred within prompt times the root of the weight, so that plain products are weighted ones."""
    if not columns:
        return np.empty((contrast.s.size, 0))
    return np.asarray(center_within_prompt(contrast, np.concatenate(columns, axis=1)) * np.sqrt(contrast.weight)[:, None])


def _orthonormal(contrast: Contrast, columns: Sequence[np.ndarray]) -> np.ndarray:
    u, size, _ = np.linalg.svd(_scaled(contrast, columns), full_matrices=False)
    return np.asarray(u[:, size > _SINGULAR * max(float(size.max(initial=0.0)), 1e-300)])


def _left_by(basis: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.asarray(columns - basis @ (basis.T @ columns))


def _new_directions(basis: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Orthonormal directions of what exact labels leave of a candidate; none when it is one of them."""
    u, size, _ = np.linalg.svd(_left_by(basis, columns), full_matrices=False)
    return np.asarray(u[:, size > 1e-7 * max(float(np.linalg.norm(columns)), 1e-300)])


def _reliable_directions(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both readings in directions of unit variance in which their errors do not mix, and how far they agree in each."""
    size, vectors = np.linalg.eigh((x.T @ x + z.T @ z) / 2)
    kept = size > _SINGULAR * max(float(size.max(initial=0.0)), 1e-300)
    whiten = vectors[:, kept] / np.sqrt(size[kept])
    x, z = x @ whiten, z @ whiten
    reliability, turn = np.linalg.eigh((x.T @ z + z.T @ x) / 2)
    return x @ turn, z @ turn, reliability


def _used_reliability(reliability: np.ndarray, n: int) -> np.ndarray:
    return np.asarray(np.maximum(reliability, max(LEAST_RELIABLE, 2 / np.sqrt(n))))
