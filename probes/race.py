"""Which responses to read first, and when a candidate that shows nothing on them can be given up (ours; METHOD 4, racing).

A response says the more about a label the further its s lies from that of the others of its prompt, so what is read first are
pairs from both ends of s ("selective genotyping", Lander & Botstein 1989: with normal s the outermost quarter holds seven tenths
of what all hold). Given s, the labels of the responses read are exchangeable within their prompt unless the label has to do with
s, so the score `U = sum w r (x - mean x)`, x the level dummies and r what the base leaves of s, has mean 0 and a known variance
whatever the selection; `U' V^+ U` is chi-square, and noncentral by an amount that grows with the label's gain. A candidate is given
up when so little would have been seen with a small probability only, were its gain large enough to be found at all.

Only the *propose* half is read for this; the test on the other half does not know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from probes.dissimilarity import Contrast
from probes.explained_share import dummies, residual_of

_SINGULAR = 1e-9


def reading_order(contrast: Contrast, rng: np.random.Generator) -> np.ndarray:
    """Rows of a contrast in the order in which they tell most about any label.

    Pairs of one prompt, the largest with the smallest `w s`, then the second largest with the second smallest, ...; pairs of all prompts by
    their distance. Ties (without likelihoods nearly all) take turns over the prompts.

    Args:
        contrast: n responses.
        rng: Decides between responses that tell as much.

    Returns:
        `(n,)` rows, each once.
    """
    value = contrast.weight * contrast.s
    pairs = []
    for p in range(contrast.n_prompts):
        rows = rng.permutation(np.flatnonzero(contrast.prompt == p))
        rows = rows[np.argsort(-value[rows], kind="stable")]
        for k in range((rows.size + 1) // 2):
            first, last = int(rows[k]), int(rows[-1 - k])
            pair = (first,) if first == last else (first, last)
            pairs.append((-round(float(value[first] - value[last]), 12), k, p, pair))
    return np.array([row for *_, pair in sorted(pairs) for row in pair], dtype=np.int64)


@cache
def findable(alpha: float, n_levels: int, power: float) -> float:
    """Noncentrality at which a chi-square test of `n_levels - 1` degrees of freedom at level `alpha` finds with this power."""
    freedom = max(n_levels - 1, 1)
    critical = stats.chi2.isf(alpha, freedom)
    return float(brentq(lambda size: stats.ncx2.sf(critical, freedom, size) - power, 1e-9, 1000.0))


@dataclass(frozen=True)
class Look:
    """What the responses read so far say about a candidate.

    Attributes:
        n: Responses read.
        statistic: `U' V^+ U`; chi-square with `freedom` degrees of freedom for a label that gains nothing.
        freedom: Rank of V, at least 1.
        needed: Gain in D[O] that could be found on the other half with the power asked for, at least the smallest that counts.
        probability: Of a statistic as small as this one, were the gain `needed`.
    """

    n: int
    statistic: float
    freedom: int
    needed: float
    probability: float


@dataclass(frozen=True)
class Futility:
    """The race of one candidate: what is known before it is read.

    Attributes:
        contrast: The propose half.
        residual: `(n,)` what the base leaves of s.
        smallest: Smallest gain in D[O] that counts.
        alpha: Level the candidate will be held against, its part of the family.
        power: With which a gain must be found to be worth reading on.
        n_other: Responses of the other half.
    """

    contrast: Contrast
    residual: np.ndarray
    smallest: float
    alpha: float
    power: float
    n_other: int

    @classmethod
    def of(cls, contrast: Contrast, base: Sequence[np.ndarray], smallest: float, alpha: float, power: float, n_other: int) -> Futility:
        """The race beyond the labels `base`, each `(n,)` over the propose half; see the attributes."""
        return cls(contrast, residual_of(contrast, base), smallest, alpha, power, n_other)

    def look(self, rows: np.ndarray, label: np.ndarray) -> Look:
        """What `label (m,)` on the rows read so far `(m,)` says.

        Formula: with `a = w r` centred within prompt over the rows read, gain G in D[O] makes the statistic noncentral by
        `G (sum a r)^2 / ((sum_all w r^2)^2 sum a^2)`; on the other half, all of it read, by `G / sum w^2 r^2`.
        """
        c = self.contrast
        w, r = c.weight / c.n_prompts, self.residual
        prompt = np.unique(c.prompt[rows], return_inverse=True)[1]
        count = np.bincount(prompt)
        a = (w * r)[rows]
        a = a - (np.bincount(prompt, weights=a) / count)[prompt]
        x = dummies(label)
        mean = np.zeros((count.size, x.shape[1]))
        np.add.at(mean, prompt, x)
        x = x - (mean / count[:, None])[prompt]
        per_prompt = np.bincount(prompt, weights=a * a) / np.maximum(count - 1, 1)
        score, variance = a @ x, (x * per_prompt[prompt][:, None]).T @ x
        statistic, freedom = _quadratic(score, variance)
        squares, spread = float(np.sum(a * a)), float(np.sum(w * r * r))
        unit = float(np.sum((w * r) ** 2)) * r.size / self.n_other
        needed = max(self.smallest, findable(self.alpha, freedom + 1, self.power) * unit)
        size = needed * float(np.sum(a * r[rows])) ** 2 / (spread**2 * squares) if squares > 0 and spread > 0 else 0.0
        # a rare level that has not been met yet: none of the expected `size` responses that show it
        unseen = float(np.exp(-size))
        return Look(rows.size, statistic, freedom, needed, max(float(stats.ncx2.cdf(statistic, freedom, max(size, 1e-9))), unseen))


def _quadratic(score: np.ndarray, variance: np.ndarray) -> tuple[float, int]:
    """`score' variance^+ score` and the rank, at least 1."""
    if not score.size:
        return 0.0, 1
    values, vectors = np.linalg.eigh(variance)
    kept = values > _SINGULAR * max(float(values[-1]), 1e-300)
    turned = vectors[:, kept].T @ score
    return float(np.sum(turned**2 / values[kept])), max(int(kept.sum()), 1)
