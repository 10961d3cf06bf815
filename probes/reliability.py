"""What a second reading tells about the first, and about the share that a judge without error would have seen (METHOD 4, judge error).

A label read with error hides a part of its own share. Two readings a, b of the same responses whose errors are unrelated show the whole,
on the numeric scale of the levels:

    share without error = cov(s, a) cov(s, b) / (cov(a, b) var(s))

(weighted, within prompt). The plain product counts every response's own noise; here `sum_(i != j)` is taken instead, which does not.
Repeats of one judge share its errors: between them cov(a, b) is too large, and the result still too small. Simulated (kappa .7, 20-60
prompts x 3-10 a side, 500 redraws): bias at most +.03 of .84; coverage .95-.98 with likelihoods, .91-.95 without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.agreement import Agreement, agreement
from probes.dissimilarity import Contrast
from probes.errors import SampleError, ShapeError
from probes.explained_share import center_within_prompt, strata_parts, total_per_prompt
from probes.resampling import Interval, jackknife

Levels = npt.NDArray[np.int64]
LEAST_BOTH = 20
"""Responses that two readings must share for anything to be said about them."""


@dataclass(frozen=True)
class SecondReading:
    """Two readings of the same responses, held against each other.

    Attributes:
        n: Responses read twice, whatever came out.
        both: Agreement where both gave a level.
        weighted_kappa, krippendorff_alpha: The same with prompt-jackknife intervals; NaN where undefined.
        missing: `(2, 2)` rate of readings without a level: [first, second] x [before, after], in [0, 1].
        missing_kappa: Cohen's kappa of being missing against being read, *missing* taken as a level of its own; None where one of the two
            never occurs.
        noise_free: Share of D (D[O] itself without likelihoods) that a reading without error would show; NaN below `LEAST_BOTH` responses
            or where the two readings do not go together.
    """

    n: int
    both: Agreement
    weighted_kappa: Interval
    krippendorff_alpha: Interval
    missing: npt.NDArray[np.float64]
    missing_kappa: float | None
    noise_free: Interval


def second_reading(contrast: Contrast, first: Levels, second: Levels, n_levels: int) -> SecondReading:
    """Hold a second reading against the first.

    Args:
        contrast: The n responses that were read twice.
        first: `(n,)` levels 0 to n_levels - 1, negative where missing.
        second: The same, read again.
        n_levels: Levels of the scale.

    Raises:
        ShapeError: A reading is not about these responses.
    """
    if first.shape != contrast.s.shape or second.shape != contrast.s.shape:
        raise ShapeError(f"expected two readings of {contrast.s.size} responses, found {first.size} and {second.size}")

    def kappa(rows: npt.NDArray[np.bool_]) -> float:
        return _number(agreement(first[rows], second[rows], n_levels).weighted_kappa)

    def alpha(rows: npt.NDArray[np.bool_]) -> float:
        return _number(agreement(first[rows], second[rows], n_levels).krippendorff_alpha)

    gone = np.stack([first < 0, second < 0])
    return SecondReading(
        n=first.size,
        both=agreement(first, second, n_levels),
        weighted_kappa=_by_group(contrast, kappa),
        krippendorff_alpha=_by_group(contrast, alpha),
        missing=np.array([[_rate(contrast, row, sign) for sign in (1.0, -1.0)] for row in gone]),
        missing_kappa=agreement(gone[0].astype(np.int64), gone[1].astype(np.int64), 2).weighted_kappa,
        noise_free=noise_free_share(contrast, first, second),
    )


def noise_free_share(contrast: Contrast, first: Levels, second: Levels) -> Interval:
    """Share that a reading without error would show on the numeric scale, with its prompt-jackknife interval; never clipped.

    Responses missing in either reading are left out. NaN throughout below `LEAST_BOTH` responses, or where the readings do not go together
    (cov(a, b) not positive): then nothing can be said.
    """
    undefined = Interval(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    rows = contrast.complete(np.flatnonzero((first >= 0) & (second >= 0)))
    rows = rows[np.bincount(contrast.prompt[rows], minlength=1)[contrast.prompt[rows]] > 1]
    if rows.size < LEAST_BOTH:
        return undefined
    part = contrast.take(rows)
    sums = _sums(part, center_within_prompt(part, np.stack([first[rows], second[rows]], axis=1).astype(np.float64)))

    def share(kept: npt.NDArray[np.float64]) -> float:
        s_a, s_b, own, together, total, n = kept
        return float((s_a * s_b - own) / (together * total)) if together > 0 and total > 0 and n > 0 else float("nan")

    whole = share(sums.sum(axis=1))
    if not np.isfinite(whole):
        return undefined
    return jackknife(whole, np.array([share(sums.sum(axis=1) - column) for column in sums.T]))


def _sums(part: Contrast, centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`(6, n_groups)` sums by jackknife group: cov(s, a), cov(s, b), the responses' own part of their product, cov(a, b), var(s), weight.

    Centring within prompt takes of a covariance what lies within the strata that a fixed number was drawn from, `sum w^2` of it: the same
    two corrections as in `probes.explained_share.for_fixed_sides`. (With `sum w^2` of everything instead, an organism's share of .79 came
    out as .88 where 8 responses a prompt from several anchors were read again.)
    """
    w, s, (a, b) = part.weight, part.s, centred.T
    total = float(total_per_prompt(part).mean())
    lost = np.bincount(part.prompt, weights=w * w)
    within, between = strata_parts(part, total)
    of_s = (1 - within * lost)[part.prompt]
    s_a, s_b, own = w * s * a / of_s, w * s * b / of_s, (w * s / of_s) ** 2 * a * b
    straight = float(s_a.sum() * s_b.sum() - own.sum())
    varies = float(np.sum(w * a * b / (1 - lost)[part.prompt])) * part.n_prompts
    # D[O] to first order, which is all that the small correction of the levels' variance needs; only noise takes it out of [0, D]
    shown = min(max(straight / varies, 0.0), total) if varies > 0 else 0.0
    left = (1 - (1 - between * shown) * lost)[part.prompt]
    spread = (total_per_prompt(part) / np.bincount(part.prompt))[part.prompt]
    rows = (s_a, s_b, own, w * a * b / left, spread, w)
    return np.stack([np.bincount(part.group, weights=row, minlength=int(part.group.max()) + 1) for row in rows])


def krippendorff_alpha(readings: Levels, n_levels: int) -> float | None:
    """Krippendorff's alpha of any number of readers, ordinal metric: `1 - D_o/D_e` from the coincidences within responses.

    Args:
        readings: `(n_readers, n)` levels, negative where a reader gave none; a response with fewer than two levels counts for nothing.
        n_levels: Levels of the scale.

    Returns:
        Alpha, at most 1; None where no disagreement is expected.

    Raises:
        SampleError: Fewer than two readers.
    """
    if readings.ndim != 2 or readings.shape[0] < 2:
        raise SampleError(f"expected at least two readers, found shape {readings.shape}")
    count = np.stack([(readings == level).sum(axis=0) for level in range(n_levels)], axis=1).astype(np.float64)
    m = count.sum(axis=1)
    count, m = count[m >= 2], m[m >= 2]
    if not m.size:
        return None
    pairs = np.einsum("uc,uk->uck", count, count) - np.einsum("uc,ck->uck", count, np.eye(n_levels))
    coincidence = (pairs / (m - 1)[:, None, None]).sum(axis=0)
    margin = coincidence.sum(axis=1)
    middle = np.cumsum(margin) - margin / 2
    metric = (middle[:, None] - middle[None, :]) ** 2
    expected = float((metric * (np.outer(margin, margin) - np.diag(margin))).sum() / (margin.sum() - 1))
    return 1 - float((metric * coincidence).sum()) / expected if expected > 0 else None


def _by_group(contrast: Contrast, statistic: Callable[[npt.NDArray[np.bool_]], float]) -> Interval:
    groups = range(int(contrast.group.max()) + 1)
    return jackknife(statistic(np.ones(contrast.s.size, bool)), np.array([statistic(contrast.group != g) for g in groups]))


def _rate(contrast: Contrast, missing: npt.NDArray[np.bool_], sign: float) -> float:
    mass = contrast.weight * (1 + sign * contrast.s)
    mass = mass / np.bincount(contrast.prompt, weights=mass)[contrast.prompt] / contrast.n_prompts
    return float(mass[missing].sum())


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
