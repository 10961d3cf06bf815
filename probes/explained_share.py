"""How much of the total change a set of order parameters explains: one estimator for every share (METHOD 3).

With `D = E_m[s^2]` and a label O of the response, `D[O] = E_m[(E_m[s|O])^2] <= D`, so the share D[O]/D is the
correlation ratio of s on the label. It is estimated by regressing s on level dummies, both centred within prompt,
everything weighted, and taking the leave-one-out cross product

    D[O]  = mean over prompts of  sum_i w_i s_i f_{-i},     f_{-i} = (f_i - h_i s_i) / (1 - h_i)

(Kline, Saggio & Solvsten 2020), with h_i the leverage. Unbiased where the plug-in `sum w f^2` is not. Without
likelihoods s is the side z = +-1: the same formula, D = 1 in the denominator, D[O] itself the headline.

Responses are drawn a fixed number n a side, not at random from m. Two consequences are built in, exact for any n: a
response left out must take its counterweight with it (leverage over 1 - 1/2n), and centring costs the label's variance and
its covariance with s different parts (`for_fixed_sides`). With a plain prompt intercept instead, a label that explains nothing
gets the share -D/(2n-1); without these corrections and without likelihoods D[O] is too large by (1 - D[O])/2n of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probes.dissimilarity import Contrast, Kind, pointwise
from probes.errors import ShapeError
from probes.resampling import Interval, jackknife_share
from probes.threads import one_blas_thread

SINGULAR = 1e-10
"""Directions of the labels with less than this part of the largest variance are taken as absent."""
ALONE = 1e-8
"""A response whose leverage is this near 1 cannot be predicted from the others."""
_LEAST_FEEDBACK = 0.1
"""Bound on the correction for fixed sides, which only noise can reach (1/2 is the most at one response a side)."""
_CHUNK_BYTES = 64 * 2**20


def dummies(labels: np.ndarray) -> np.ndarray:
    """Level dummies of an ordinal label `(n,)` of ints (negative: missing, a level of its own), the commonest level left out.

    Returns:
        `(n, n_levels - 1)` float; no columns when only one level occurs.
    """
    levels, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    kept = np.delete(np.arange(levels.size), np.argmax(count))
    return np.asarray(code[:, None] == kept[None, :], dtype=np.float64)


def length_bins(n_words: np.ndarray, n_bins: int | None = None) -> np.ndarray:
    """Quantile bins of log(1 + words): the covariate for length (METHOD 4; a linear term lets length through).

    Eight bins are the least. Where length separates the sides almost completely, finer readings of length gain beyond eight
    bins (.046 of D on 1380 real answers, .007 beyond 24; .013-.017 on 800, .005 beyond 16), so larger sets of responses get more.
    The longest and the shortest responses differ most among themselves, so the outer quarters of the outer bins are bins of
    their own. (Planted, 40 prompts x 5 a side, length explaining three quarters of D, five labels that see only length: something
    was accepted in 9 of 120 runs with 8 bins, in 4 with these.)

    Args:
        n_words: `(n,)` words per response, >= 0.
        n_bins: Number of equally filled bins; default one per 25 responses, 8 to 22, and the two outer ones. Fewer distinct lengths
            give fewer bins.

    Returns:
        `(n,)` int codes `0..n_bins-1`, ascending in length.
    """
    log_words = np.log1p(n_words)
    k = min(22, max(8, n_words.size // 25)) if n_bins is None else n_bins
    quantiles = np.arange(1, k) / k
    if n_bins is None and n_words.size >= 12 * k:
        quantiles = np.concatenate([[0.25 / k], quantiles, [1 - 0.25 / k]])
    edges = np.unique(np.quantile(log_words, quantiles))
    return np.asarray(np.searchsorted(edges, log_words, side="right"))


@dataclass(frozen=True)
class Explained:
    """Numerator and denominator of a share, on everything and without each jackknife group.

    Attributes:
        change: D[O] on everything; total: D (1 without likelihoods).
        change_loo, total_loo: `(n_groups,)` the same without each group.
        n: Responses used.
        per_prompt: `(n_prompts,)` contributions; their mean is `change`.
        n_alone: Responses whose own level cannot be predicted once they are left out (leverage 1); they count as explained by nothing.
        by_chance, n_columns: What the fit explains by chance and leaving one out takes off again, with so many columns; 0 where not told.
    """

    change: float
    total: float
    change_loo: np.ndarray
    total_loo: np.ndarray
    n: int
    n_alone: int
    per_prompt: np.ndarray
    by_chance: float = 0.0
    n_columns: int = 0

    @property
    def least_error(self) -> float:
        """Standard deviation of D[O] of labels that explain nothing: that of `by_chance`, a sum of `n_columns` squares.

        Where there is next to nothing to explain the prompts all but agree on it, so their jackknife alone knows it too well (planted from
        an organism's responses: labels with share 0 were covered in 77-81% of redraws).
        """
        return abs(self.by_chance) * float(np.sqrt(2 / self.n_columns)) if self.n_columns > 0 else 0.0

    @property
    def change_interval(self) -> Interval:
        """D[O] with its jackknife interval, no narrower than that of nothing."""
        return jackknife_share(self.change, self.change_loo, least=self.least_error)

    @property
    def share_interval(self) -> Interval:
        """D[O]/D with its jackknife interval; equals `change_interval` without likelihoods."""
        return self.share_of(self.total, self.total_loo)

    def minus(self, other: Explained) -> Explained:
        """The part of this set's D[O] that the other set does not have (unique share, gain)."""
        rest = self._with(self.change - other.change, self.change_loo - other.change_loo, self.per_prompt - other.per_prompt)
        return replace(rest, by_chance=self.by_chance - other.by_chance, n_columns=max(self.n_columns - other.n_columns, 0))

    def residual(self) -> Explained:
        """What is left: D - D[O]."""
        return self._with(self.total - self.change, self.total_loo - self.change_loo, self.total - self.per_prompt)

    def _with(self, change: float, change_loo: np.ndarray, per_prompt: np.ndarray) -> Explained:
        return replace(self, change=change, change_loo=change_loo, per_prompt=per_prompt)

    def share_of(self, total: float, total_loo: np.ndarray) -> Interval:
        """D[O] over another total (a lower bound of D makes it an upper bound of the share), same jackknife groups."""
        with np.errstate(invalid="ignore", divide="ignore"):
            share, least = np.array([self.change, self.least_error]) / total
            return jackknife_share(float(share), self.change_loo / total_loo, least=float(np.nan_to_num(least)))


def explained(contrast: Contrast, labels: Sequence[np.ndarray]) -> Explained:
    """D[O] of the additive model of several labels together, with the leave-one-group-out values for its interval.

    Args:
        contrast: n responses with s, weights and prompts.
        labels: Labels `(n,)` of ints each (negative: missing, its own level); an empty sequence explains nothing.

    Returns:
        Numerator and denominator; see `Explained.change_interval` and `.share_interval`.

    Raises:
        ShapeError: A label does not have n entries.
    """
    columns = [dummies(checked_label(label, contrast)) for label in labels]
    x = np.concatenate(columns, axis=1) if columns else np.empty((contrast.s.size, 0))
    with one_blas_thread():
        return _explained_by_prompt(contrast, x) if contrast.by_prompt else _explained_by_group(contrast, x)


def _explained_by_group(contrast: Contrast, x: np.ndarray) -> Explained:
    full = _whole(contrast, x)
    n_groups = int(contrast.group.max()) + 1
    change, total = np.full(n_groups, np.nan), np.full(n_groups, np.nan)
    for g in range(n_groups):
        rows = contrast.complete(contrast.group != g)
        if rows.size == 0:  # one response a side: without this group no prompt has both
            continue
        part = contrast.take(rows)
        if part.n_prompts == contrast.n_prompts:
            without = _whole(part, x[rows])
            change[g], total[g] = without.per_prompt.mean(), without.total
    return full.explained(change, total, contrast.s.size)


def checked_label(label: np.ndarray, contrast: Contrast) -> np.ndarray:
    """The label; ShapeError when it does not have one entry per response."""
    if label.shape != contrast.s.shape:
        raise ShapeError(f"label: expected shape {contrast.s.shape} as the responses, found {label.shape}")
    return label


def center_within_prompt(contrast: Contrast, x: np.ndarray) -> np.ndarray:
    """`x (n, k)` minus its weighted mean within each prompt."""
    means = np.zeros((contrast.n_prompts, x.shape[1]))
    np.add.at(means, contrast.prompt, contrast.weight[:, None] * x)
    return np.asarray(x - means[contrast.prompt])


def total_per_prompt(contrast: Contrast) -> np.ndarray:
    """`(n_prompts,)` D of each prompt; 1 without likelihoods."""
    if not contrast.likelihoods:
        return np.ones(contrast.n_prompts)
    return np.bincount(contrast.prompt, weights=contrast.weight * pointwise(contrast.s))


@dataclass(frozen=True)
class _Fit:
    """Numerator per prompt, mean denominator and the rest of `Explained`."""

    per_prompt: np.ndarray
    total: float
    n_alone: int
    by_chance: float
    n_columns: int

    def explained(self, change_loo: np.ndarray, total_loo: np.ndarray, n: int) -> Explained:
        """With the values without each group."""
        change = float(self.per_prompt.mean())
        return Explained(change, self.total, change_loo, total_loo, n, self.n_alone, self.per_prompt, self.by_chance, self.n_columns)


def _whole(contrast: Contrast, x: np.ndarray) -> _Fit:
    centred = center_within_prompt(contrast, x)
    return _cross_product(contrast, centred, *normal_equations(contrast, centred))


def _cross_product(contrast: Contrast, centred: np.ndarray, gram: np.ndarray, right: np.ndarray) -> _Fit:
    """The fit on everything, from the normal equations per prompt."""
    whole, side = gram.sum(axis=0), right.sum(axis=0)
    left_out, alone = _left_out(contrast, centred, whole[None], side[None])
    total = float(total_per_prompt(contrast).mean())
    products = np.bincount(contrast.prompt, weights=contrast.weight * centred_s(contrast) * left_out[0])
    size, direction = np.linalg.eigh(whole)
    kept = size > SINGULAR * size.max(initial=0.0)
    in_sample = float(np.sum((direction.T @ side)[kept] ** 2 / size[kept]))
    by_chance = (in_sample - float(products.sum())) / contrast.n_prompts
    per_prompt = for_fixed_sides(contrast, products, total, contrast.n_prompts)
    return _Fit(per_prompt, total, int(alone.sum()), by_chance, int(kept.sum()))


def normal_equations(contrast: Contrast, centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per prompt `X'WX (n_prompts, k, k)` and `X'Ws (n_prompts, k)`."""
    k, p = centred.shape[1], contrast.n_prompts
    gram, right = np.zeros((p, k, k)), np.zeros((p, k))
    for q in range(p):
        rows = contrast.prompt == q
        weighted = centred[rows] * contrast.weight[rows, None]
        gram[q] = weighted.T @ centred[rows]
        right[q] = weighted.T @ contrast.s[rows]
    return gram, right


def _left_out(contrast: Contrast, centred: np.ndarray, gram: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-out predictions `f_{-i}` of each of several normal equations.

    Args:
        contrast: n responses.
        centred: `(n, k)` labels centred within prompt.
        gram: `(g, k, k)` normal matrices.
        right: `(g, k)` right-hand sides.

    Returns:
        `(g, n)` predictions and the `(g, n)` mask of responses with leverage 1, whose prediction is 0.
    """
    inverse = np.linalg.pinv(gram, rcond=SINGULAR, hermitian=True)
    beta = np.einsum("gkl,gl->gk", inverse, right)
    fitted = beta @ centred.T
    leverage = np.stack([np.einsum("nk,nk->n", centred @ part, centred) for part in inverse]) * leverage_weight(contrast)
    alone = leverage > 1 - ALONE
    return np.where(alone, 0.0, (fitted - leverage * centred_s(contrast)) / np.where(alone, 1.0, 1 - leverage)), alone


def centred_s(contrast: Contrast) -> np.ndarray:
    """`(n,)` s minus its weighted mean within each prompt."""
    return np.asarray(contrast.s - np.bincount(contrast.prompt, weights=contrast.weight * contrast.s)[contrast.prompt])


def leverage_weight(contrast: Contrast) -> np.ndarray:
    """`(n,)` what the quadratic form of the centred labels is multiplied with to be a leverage, 1 for a response alone at its level.

    Over 1 - w, as the label is centred by a mean in which the response has its part w: with n a side it so takes its
    counterweight on the other side with it.
    """
    return np.asarray(contrast.weight / np.maximum(1 - contrast.weight, ALONE))


def for_fixed_sides(contrast: Contrast, products: np.ndarray, total: np.ndarray | float, n_prompts: np.ndarray | int) -> np.ndarray:
    """Correct D[O] of each prompt for centring within prompt when a fixed number of responses is drawn on each side.

    With v = 1/2n, centring costs the label's variance (1 - D[O]) v of itself and its covariance with s (1 - D) v: only what
    lies within the sides is lost. D[O] is the covariance squared over the variance, so the correction solves for it. Drawn at anchors,
    what is lost lies within these: 1 - D becomes `contrast.within_strata`, and 1 - D[O] the same part of the label that goes with s.
    (Six anchors, 3 responses each, D .33, share .85: bias +.018 with sides, +.002 with anchors.)

    Args:
        contrast: n responses.
        products: D[O] before the correction, `(..., n_prompts)`; 0 for prompts that are left out.
        total: D, a number or `(..., 1)`.
        n_prompts: Prompts that are not left out, a number or `(..., 1)`.

    Returns:
        As `products`.
    """
    v = np.bincount(contrast.prompt, weights=contrast.weight**2)
    within, between = strata_parts(contrast, total)
    raw = products / np.maximum(1 - within * v, ALONE) ** 2
    straight, fed_back = ((raw * part).sum(axis=-1, keepdims=True) / n_prompts for part in (1 - v, between * v))
    shown = straight / np.maximum(1 - fed_back, _LEAST_FEEDBACK)
    return np.asarray(raw * (1 - (1 - between * shown) * v))


def strata_parts(contrast: Contrast, total: np.ndarray | float) -> tuple[np.ndarray | float, np.ndarray]:
    """Part of s^2 that lies within the strata (`Contrast.within_strata`), and part of D[O] between them, 1 for two sides."""
    within = contrast.within_strata(total)
    return within, np.divide(1 - within, total, out=np.ones_like(total, dtype=np.float64), where=np.asarray(total) > 0)


def _explained_by_prompt(contrast: Contrast, x: np.ndarray) -> Explained:
    centred = center_within_prompt(contrast, x)
    gram, right = normal_equations(contrast, centred)
    p, n = contrast.n_prompts, contrast.s.size
    fit = _cross_product(contrast, centred, gram, right)
    total = total_per_prompt(contrast)
    total_loo = (total.sum() - total) / (p - 1)
    signed = contrast.weight * centred_s(contrast)
    change_loo = np.empty(p)
    step = max(1, _CHUNK_BYTES // (8 * n * 4))
    for start in range(0, p, step):
        q = np.arange(start, min(start + step, p))
        left_out, _ = _left_out(contrast, centred, gram.sum(axis=0) - gram[q], right.sum(axis=0) - right[q])
        products = np.stack([np.bincount(contrast.prompt, weights=signed * row) for row in left_out])
        products[np.arange(q.size), q] = 0.0
        change_loo[q] = for_fixed_sides(contrast, products, total_loo[q, None], p - 1).sum(axis=1) / (p - 1)
    return fit.explained(change_loo, total_loo, n)


def _additive(contrast: Contrast, per_prompt: np.ndarray, n_alone: int) -> Explained:
    """A quantity that is a plain mean over prompts: leaving one out needs no new fit."""
    total, p = total_per_prompt(contrast), contrast.n_prompts
    loo, total_loo = ((x.sum() - x) / (p - 1) for x in (per_prompt, total))
    return Explained(float(per_prompt.mean()), float(total.mean()), loo, total_loo, contrast.s.size, n_alone, per_prompt)


def with_interaction(contrast: Contrast, label: np.ndarray) -> Explained | None:
    """D[O] with a separate effect of the label in every prompt (the exact inequality); leave-one-out within prompt and level.

    Returns:
        The estimate, or None below 10 responses a side and prompt, where it cannot be read.
    """
    if np.bincount(contrast.prompt).min() < 20 or not contrast.by_prompt:
        return None
    levels, code = np.unique(checked_label(label, contrast), return_inverse=True)
    cell = contrast.prompt * levels.size + code
    w, s = contrast.weight, centred_s(contrast)
    mass = np.bincount(cell, weights=w)[cell]
    with np.errstate(invalid="ignore", divide="ignore"):
        fitted = np.bincount(cell, weights=w * s)[cell] / mass
        # all dummies of one prompt, centred: the quadratic form is 1/mass - 1
        leverage = (1 / mass - 1) * leverage_weight(contrast)
    alone = ~(leverage < 1 - ALONE)
    left_out = np.where(alone, 0.0, (fitted - leverage * s) / np.where(alone, 1.0, 1 - leverage))
    per_prompt = np.bincount(contrast.prompt, weights=w * s * left_out)
    corrected = for_fixed_sides(contrast, per_prompt, float(total_per_prompt(contrast).mean()), contrast.n_prompts)
    return _additive(contrast, corrected, int(alone.sum()))


def transfer(contrast: Contrast, label: np.ndarray) -> Explained | None:
    """D[O] on questions not seen: s predicted in each prompt from the other prompts, `sum w (2 s f - f^2)`.

    Negative when the label says something else in other prompts. None below two prompts.
    """
    p = contrast.n_prompts
    if p < 3 or not contrast.by_prompt:
        return None
    centred = center_within_prompt(contrast, dummies(checked_label(label, contrast)))
    gram, right = normal_equations(contrast, centred)
    beta = np.einsum("pkl,pl->pk", np.linalg.pinv(gram.sum(axis=0) - gram, rcond=SINGULAR, hermitian=True), right.sum(axis=0) - right)
    predicted = np.einsum("nk,nk->n", centred, beta[contrast.prompt])
    per_prompt = np.bincount(contrast.prompt, weights=contrast.weight * (2 * contrast.s * predicted - predicted**2))
    return _additive(contrast, for_fixed_sides(contrast, per_prompt, float(total_per_prompt(contrast).mean()), p), 0)


def residual_of(contrast: Contrast, labels: Sequence[np.ndarray]) -> np.ndarray:
    """What the labels leave unexplained of s, `(n,)`: s minus the leave-one-out prediction; it drives the next proposals."""
    columns = [dummies(checked_label(label, contrast)) for label in labels]
    if not columns:
        return contrast.s.copy()
    centred = center_within_prompt(contrast, np.concatenate(columns, axis=1))
    gram, right = normal_equations(contrast, centred)
    left_out, _ = _left_out(contrast, centred, gram.sum(axis=0)[None], right.sum(axis=0)[None])
    return np.asarray(contrast.s - left_out[0])


def plug_in_share(contrast: Contrast, label: np.ndarray, kind: Kind = "linear") -> float:
    """Descriptive share of D_g (any g) from the level histograms of the two sides; biased upwards, no interval (METHOD 3)."""
    levels, code = np.unique(label, return_inverse=True)
    cell = contrast.prompt * levels.size + code
    size = contrast.n_prompts * levels.size
    u = contrast.weight * (1 + contrast.s) / 2
    p = np.bincount(cell, weights=2 * u, minlength=size)
    q = np.bincount(cell, weights=2 * (contrast.weight - u), minlength=size)
    total = p + q
    with np.errstate(invalid="ignore", divide="ignore"):
        s = np.where(total > 0, (p - q) / total, 0.0)
    shown = float(np.sum(total / 2 * pointwise(s, kind))) / contrast.n_prompts
    whole = contrast.mean(pointwise(contrast.s, kind))
    return shown / whole if whole > 0 else float("nan")
