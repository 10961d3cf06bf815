"""Moderated comparison of means with few repeats: many small groups lend each other an idea of how much they vary.

A task of a finite random choice has three to ten phrasings, too few for a variance of its own. Its variance is drawn towards that of
the other groups by the empirical Bayes weight of Smyth (2004, "limma"): `s~^2 = (d0 s0^2 + d s^2) / (d0 + d)` with d0 + d degrees of
freedom, d0 and s0^2 fitted to the spread of the groups' log s^2. Groups that differ much in variance give d0 near 0: Welch's plain test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from probes.resampling import Interval

FloatArray = npt.NDArray[np.float64]
MIN_GROUPS = 6
"""Below this many groups nothing is known about how variances vary, and each stands for itself."""


@dataclass(frozen=True)
class Prior:
    """What the other groups say about a variance: its value and how many degrees of freedom that is worth (0: nothing)."""

    variance: float
    df: float
    most_df: float

    def moderate(self, values: FloatArray) -> tuple[float, float]:
        """Variance of one group `(n,)` after moderation and its degrees of freedom."""
        d = values.size - 1
        own = float(values.var(ddof=1)) if d else 0.0
        if self.df == 0:
            return own, float(d)
        if np.isinf(self.df):
            return self.variance, self.most_df
        return (self.df * self.variance + d * own) / (self.df + d), min(self.df + d, self.most_df)


def fit_prior(groups: Sequence[FloatArray]) -> Prior:
    """The prior from all groups of one statistic, by the moments of log s^2; groups with fewer than two values say nothing."""
    used = [group for group in groups if group.size >= 2]
    if len(used) < MIN_GROUPS:
        return Prior(0.0, 0.0, 0.0)
    variance = np.array([group.var(ddof=1) for group in used])
    half = np.array([(group.size - 1) / 2 for group in used])
    middle = float(np.median(variance))
    if not middle > 0:
        return Prior(0.0, 0.0, 0.0)
    shifted = np.log(np.maximum(variance, 1e-5 * middle)) - special.digamma(half) + np.log(half)
    excess = float(shifted.var(ddof=1) - special.polygamma(1, half).mean())
    most = float(2 * half.sum())
    if excess <= 0:
        return Prior(float(np.exp(shifted.mean())), float("inf"), most)
    half_df = _inverse_trigamma(excess)
    return Prior(float(np.exp(shifted.mean() + special.digamma(half_df) - np.log(half_df))), 2 * half_df, most)


def _inverse_trigamma(value: float) -> float:
    """The x with trigamma(x) = value, by Newton's method on 1/trigamma (Smyth 2004, appendix)."""
    x = 0.5 + 1.0 / value
    for _ in range(60):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


@dataclass(frozen=True)
class Difference:
    """A difference of means: its interval and the one-sided p value of "not above 0"."""

    interval: Interval
    p: float


def mean_interval(values: FloatArray, prior: Prior, confidence: float = 0.95) -> Interval:
    """Mean of `(n,)` values with Student's interval; limits NaN where nothing is known about their variance."""
    variance, df = prior.moderate(values)
    return _difference(float(values.mean()), variance / values.size, df, values.size, confidence).interval


def paired_difference(before: FloatArray, after: FloatArray, prior: Prior, confidence: float = 0.95) -> Difference:
    """Mean of before - after over the same repeats, both `(n,)`; the prior is that of such differences."""
    difference = before - after
    variance, df = prior.moderate(difference)
    return _difference(float(difference.mean()), variance / difference.size, df, difference.size, confidence)


def unpaired_difference(before: FloatArray, after: FloatArray, prior: Prior, confidence: float = 0.95) -> Difference:
    """Mean of before `(n,)` minus mean of after `(m,)` by Welch's test with moderated variances; the prior is that of single groups."""
    parts = [(variance / group.size, df) for group in (before, after) for variance, df in [prior.moderate(group)]]
    squared = sum(part for part, _ in parts)
    weight = sum(part**2 / df for part, df in parts if df > 0)
    df = squared**2 / weight if weight > 0 else min(df for _, df in parts)
    return _difference(float(before.mean() - after.mean()), squared, df, before.size + after.size, confidence)


def _difference(estimate: float, squared_error: float, df: float, n: int, confidence: float) -> Difference:
    if not (squared_error > 0 and df > 0):
        return Difference(Interval(estimate, float("nan"), float("nan"), float("nan"), n), 1.0)
    error = float(np.sqrt(squared_error))
    half = float(special.stdtrit(df, 0.5 + confidence / 2)) * error
    return Difference(Interval(estimate, estimate - half, estimate + half, error, n), float(special.stdtr(df, -estimate / error)))


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted for the family of all of them (Holm 1979), in the same order."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p)[order]))
    return [float(value) for value in adjusted]
