"""Total distributional change between two sets of checkpoints, estimated from scored responses (METHOD 2, 2b).

`P_l(x|q)` is the mean probability of response x to prompt q over the *left* (before) checkpoints, `P_r` over the right
ones; `u = P_l/(P_l+P_r)`, `s = 2u-1 = tanh((log P_l - log P_r)/2)`, `m = (P_l+P_r)/2`. Then

    D_g = E_{x~m}[ u g(u) + (1-u) g(1-u) ]
    linear            g(u) = 2u-1       D = E_m[s^2]
    Jensen-Shannon    g(u) = log2(2u)   bits
    total variation   g(u) = |2u-1|     E_m|s|

All lie in [0, 1] and TV^2 <= D_linear <= TV. Per prompt first, then the plain mean over prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.special import logsumexp, xlogy

from probes.errors import SampleError, ShapeError
from probes.mixture import Mixture, contrast_floor, covered, normalised, strata_of, sum_by, usable_rows, without_ratio_bias
from probes.resampling import MIN_PROMPTS, Interval, jackknife, within_prompt_groups

Kind = Literal["linear", "jensen_shannon", "total_variation"]
N_WITHIN_GROUPS = 20
LEAST_WITH_PAIRS = 0.25
"""Part of an anchor's responses that are not its only one to their prompt, from which on pairs speak for all of them."""


def pointwise(s: np.ndarray, kind: Kind = "linear") -> np.ndarray:
    """The integrand `u g(u) + (1-u) g(1-u)` of D_g at `u = (1+s)/2`, for s in [-1, 1], any shape."""
    if kind == "linear":
        return np.asarray(s * s)
    if kind == "total_variation":
        return np.asarray(np.abs(s))
    u = (1 + s) / 2
    return np.asarray((xlogy(u, 1 + s) + xlogy(1 - u, 1 - s)) / np.log(2))


def dissimilarity(p: np.ndarray, q: np.ndarray, kind: Kind = "linear") -> np.ndarray:
    """Exact dissimilarity of finite distributions `p`, `q` of shape `(..., n_outcomes)`; returns shape `(...)`, in [0, 1]."""
    total = p + q
    with np.errstate(invalid="ignore", divide="ignore"):
        s = np.where(total > 0, (p - q) / total, 0.0)
    return np.asarray(np.sum(total / 2 * pointwise(s, kind), axis=-1))


@dataclass(frozen=True)
class Drawn:
    """How the responses of a contrast were drawn.

    Attributes:
        weight: `(n,)` > 0, their weights `m(x)/q(x)` up to a factor for each prompt.
        anchor: `(n,)` number of the anchor at which each was drawn.
        posterior: `(n, n_anchors)` probability that each was drawn at each anchor (rows sum to 1).
        a_side: Drawn at one checkpoint of either side, so that what lies within anchors is 1 - D exactly.
    """

    weight: np.ndarray
    anchor: np.ndarray
    posterior: np.ndarray
    a_side: bool

    def take(self, rows: np.ndarray, prompt: np.ndarray) -> Drawn:
        """Some of the responses, chosen without looking at them, weighed as if only they had been drawn: `q` is that of their numbers.

        Args:
            rows: `(k,)` ints.
            prompt: `(n,)` codes `0..P-1` of all.
        """
        shape = (int(prompt.max()) + 1, self.posterior.shape[1])
        before, after = np.zeros(shape), np.zeros(shape)
        np.add.at(before, (prompt, self.anchor), 1.0)
        np.add.at(after, (prompt[rows], self.anchor[rows]), 1.0)
        left = self.posterior[rows] * np.divide(after, before, out=np.zeros(shape), where=before > 0)[prompt[rows]]
        density = left.sum(axis=1)  # that of the fewer responses over that of all
        return Drawn(self.weight[rows] / density, self.anchor[rows], left / density[:, None], self.a_side)

    def strata(self, prompt: np.ndarray) -> np.ndarray:
        """`(n, n_anchors)`: `probes.mixture.strata_of`."""
        return strata_of(self.anchor, self.posterior, prompt)

    def weights(self, prompt: np.ndarray) -> np.ndarray:
        """`(n,)` weights that sum to 1 within each prompt (codes `0..P-1`), freed of the bias that normalising brings."""
        weight = self.weight / np.bincount(prompt, weights=self.weight)[prompt]
        return without_ratio_bias(weight[:, None], prompt, self.strata(prompt))[:, 0]

    def between(self, values: np.ndarray, prompt: np.ndarray) -> float | None:
        """What lies between anchors of a sum of squares: `sum_a n_a (mean of values (n,) at a)^2`, over all prompts, by pairs of responses.

        Products of different responses only: what one response adds to its anchor's sum by itself is noise. An anchor that has one
        response to some prompts (a half of three) is taken there for what it is where it has more. Where that is too little the
        posterior says which responses go together; None where that too leaves pairs for less than one in two responses.
        """
        certain = (self.anchor[:, None] == np.arange(self.posterior.shape[1])).astype(np.float64)
        products, pairs, n = _pairs(certain, values, prompt)
        with_pairs = np.where(pairs > 0, n, 0.0).sum(axis=0)
        if (with_pairs >= LEAST_WITH_PAIRS * n.sum(axis=0)).all():
            squares = np.divide(products * n, pairs, out=np.zeros_like(n), where=pairs > 0).sum(axis=0)
            return float(np.sum(squares * np.divide(n.sum(axis=0), with_pairs, out=np.zeros_like(squares), where=with_pairs > 0)))
        products, pairs, n = _pairs(self.posterior, values, prompt)
        if pairs.sum() < n.sum() / 2:
            return None
        return float(np.divide(products * n, pairs, out=np.zeros_like(n), where=pairs > 1e-9 * n**2).sum())


def _pairs(strata: np.ndarray, values: np.ndarray, prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By prompt and stratum, `(n_prompts, k)`: sum of products of the values of different responses, number of such pairs, responses."""
    p, shares = int(prompt.max()) + 1, strata * values[:, None]
    n = sum_by(prompt, strata, p)
    return sum_by(prompt, shares, p) ** 2 - sum_by(prompt, shares**2, p), n**2 - sum_by(prompt, strata**2, p), n


@dataclass(frozen=True)
class Contrast:
    """Responses of a before/after contrast with what each says about the change.

    Attributes:
        s: `(n,)` in [-1, 1]; with likelihoods `(P_l-P_r)/(P_l+P_r)`, otherwise the side z: +1 before, -1 after.
        weight: `(n,)` > 0, sums to 1 within each prompt: `m(x)/q(x)` with likelihoods (freed of the bias of normalising where `drawn` is
            given), `1/(2 n_side)` otherwise.
        prompt: `(n,)` int codes `0..n_prompts-1`.
        likelihoods: Whether `s` is known from likelihoods.
        group: `(n,)` int codes of jackknife groups: the prompts, or parts of prompts when there are fewer than `MIN_PROMPTS`.
        index: `(n,)` row of each response in the recording it came from.
        ess: `(n_prompts,)` effective sample size `(sum w)^2 / sum w^2`.
        mean_weight, mean_weight_error: `(n_prompts,)` mean of the unnormalised weights `m/q` (1 when the anchors cover m)
            and its standard error; NaN without likelihoods.
        n_unscored: Responses left out because a log-probability that the contrast needs is missing.
        n_inside: `(n_prompts,)` responses drawn at the checkpoints that are compared; empty without likelihoods.
        drawn: How the responses were drawn; None: a fixed number a side, or not known.
    """

    s: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    likelihoods: bool
    group: np.ndarray
    index: np.ndarray
    ess: np.ndarray = field(default_factory=lambda: np.empty(0))
    mean_weight: np.ndarray = field(default_factory=lambda: np.empty(0))
    mean_weight_error: np.ndarray = field(default_factory=lambda: np.empty(0))
    n_unscored: int = 0
    n_inside: np.ndarray = field(default_factory=lambda: np.empty(0))
    drawn: Drawn | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same responses."""
        shapes = {a.shape for a in (self.s, self.weight, self.prompt, self.group, self.index)}
        if len(shapes) != 1 or self.s.ndim != 1:
            raise ShapeError(f"contrast: expected equal one-dimensional arrays, found shapes {sorted(map(str, shapes))}")
        if self.s.size == 0:
            raise SampleError("contrast: expected responses on both sides of at least one prompt, found none")

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return int(self.prompt.max()) + 1

    @property
    def by_prompt(self) -> bool:
        """True when the jackknife leaves out prompts, False when it leaves out parts of prompts."""
        return self.n_prompts >= MIN_PROMPTS

    @property
    def covered(self) -> bool:
        """Whether the responses stand for both sides: with likelihoods enough effective ones a prompt, and weights that average 1."""
        if not self.likelihoods or self.ess.size == 0:
            return True
        floor = contrast_floor(np.bincount(self.prompt), self.n_inside)
        return bool(covered(*(x[:, None] for x in (self.ess, self.mean_weight, self.mean_weight_error, floor)))[0])

    def within_strata(self, total: np.ndarray | float) -> np.ndarray | float:
        """Part of s^2 that lies within what responses were drawn from a fixed number each (the anchors; the sides, where it is 1 - D).

        A weighted mean of s over a prompt varies by this part of `sum w^2 E_m[s^2]` only, since a fixed number is drawn at each anchor.

        Args:
            total: D, a number or an array.

        Returns:
            1 - D when drawn a fixed number a side and where pairs of responses from one anchor are too few to tell (under one for two
            responses), else the part estimated from all prompts (1 where s is 0).
        """
        return 1 - total if self._within_anchors is None else self._within_anchors

    @cached_property
    def _within_anchors(self) -> float | None:
        if self.drawn is None or self.drawn.a_side:
            return None
        deviation = self.weight * (self.s - np.bincount(self.prompt, weights=self.weight * self.s)[self.prompt])
        between = self.drawn.between(deviation, self.prompt)
        if between is None:
            return None
        squared = np.bincount(self.prompt, weights=self.weight**2) * np.bincount(self.prompt, weights=self.weight * self.s**2)
        scale = float(squared.sum())
        return (float(np.sum(deviation**2)) - between) / scale if scale > 0 else 1.0

    def balance(self) -> Interval:
        """`E_m[s|q]`, which is 0 for both halves of m weigh the same, mean over prompts with its interval; only with likelihoods."""
        return jackknife_mean(self, self.s)

    def complete(self, rows: np.ndarray) -> np.ndarray:
        """Of `rows` (int rows or mask) those whose prompt still has responses on both sides; with likelihoods all of them."""
        rows = np.asarray(np.arange(self.s.size)[rows])
        if self.likelihoods:
            return rows
        count = np.zeros((self.n_prompts, 2), dtype=np.int64)
        np.add.at(count, (self.prompt[rows], (self.s[rows] < 0).astype(np.int64)), 1)
        return np.asarray(rows[np.asarray((count > 0).all(axis=1))[self.prompt[rows]]])

    def take(self, rows: np.ndarray) -> Contrast:
        """The contrast on `complete(rows)` only, weights renormalised within prompt and side; prompts may vanish."""
        rows = self.complete(rows)
        if rows.size == 0:
            raise SampleError("expected responses on both sides of at least one prompt, found none")
        _, prompt = np.unique(self.prompt[rows], return_inverse=True)
        s, weight = self.s[rows], self.weight[rows]
        drawn = None if self.drawn is None else self.drawn.take(rows, self.prompt)
        if drawn is not None:
            weight = drawn.weights(prompt)
        elif self.likelihoods:
            weight = weight / np.bincount(prompt, weights=weight)[prompt]
        else:
            cell = prompt * 2 + (s < 0)
            weight = weight / (2 * np.bincount(cell, weights=weight)[cell])
        return Contrast(s, weight, prompt, self.likelihoods, jackknife_groups(prompt, s), self.index[rows], drawn=drawn)

    def mean(self, values: np.ndarray) -> float:
        """Weighted mean of `values (n,)` within prompts, then the plain mean over prompts."""
        return float(np.dot(self.weight, values) / self.n_prompts)


def _within_groups(prompt: np.ndarray, s: np.ndarray) -> np.ndarray:
    # a fixed seed: the deal only has to be unrelated to the data, and must be the same in every run
    n_groups = min(N_WITHIN_GROUPS, max(2, int(np.bincount(prompt).min())))
    return within_prompt_groups(prompt, (s > 0).astype(np.int64), n_groups, np.random.default_rng(0))


def jackknife_groups(prompt: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Groups of a jackknife: the prompts, or parts of every prompt when there are fewer than `MIN_PROMPTS`."""
    return prompt if prompt.max() + 1 >= MIN_PROMPTS else _within_groups(prompt, s)


def side_contrast(after: np.ndarray, prompt: np.ndarray, index: np.ndarray | None = None) -> Contrast:
    """Contrast of two sets of responses without likelihoods: s is the side, each side counts one half per prompt.

    Args:
        after: `(n,)` bool, True for responses of the after side.
        prompt: `(n,)` prompt codes (any integers).
        index: `(n,)` row numbers to remember; default `0..n-1`.

    Returns:
        The contrast on prompts seen on both sides; the others are left out (compare `index` to see which).

    Raises:
        SampleError: No prompt was seen on both sides.
    """
    index = np.arange(after.size) if index is None else index
    _, code = np.unique(prompt, return_inverse=True)
    count = np.bincount(code * 2 + after, minlength=2 * (int(code.max(initial=-1)) + 1)).reshape(-1, 2)
    keep = np.asarray((count > 0).all(axis=1))[code]
    if not keep.any():
        raise SampleError("expected at least one prompt with responses on both sides, found none")
    after, index = after[keep], index[keep]
    _, code = np.unique(code[keep], return_inverse=True)
    count = np.bincount(code * 2 + after).reshape(-1, 2)
    weight = 1 / (2 * count[code, after.astype(np.int64)])
    s = np.where(after, -1.0, 1.0)
    ess = 1 / np.bincount(code, weights=weight**2)
    nan = np.full(count.shape[0], np.nan)
    return Contrast(s, weight, code, False, jackknife_groups(code, s), index, ess, nan, nan)


def mixture_log_probability(log_likelihood: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """`log mean_{t in columns} P_t(x)` for `log_likelihood (n, n_steps)`, by logsumexp over the window; returns `(n,)`."""
    return np.asarray(logsumexp(log_likelihood[:, columns], axis=1) - np.log(columns.size))


def _two_sides(drawn_at: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
    """Whether all was drawn at one checkpoint of either side: then the strata are the sides, and what lies within them is 1 - D exactly."""
    anchors = np.unique(drawn_at)
    return anchors.size == 2 and int(np.isin(anchors, left).sum()) == 1 and int(np.isin(anchors, right).sum()) == 1


def likelihood_contrast(
    log_likelihood: np.ndarray,
    drawn_at: np.ndarray,
    prompt: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    index: np.ndarray | None = None,
) -> Contrast:
    """Contrast of two windows of checkpoints from responses drawn at any anchors (METHOD 2b).

    Responses drawn at anchors that are scored under both windows and under each other are used (`probes.mixture.usable_rows`): all of
    them when everything is scored everywhere, those in and near the windows with banded scoring. A response that lacks a
    log-probability is left out and counted.

    Args:
        log_likelihood: `(n, n_steps)` nats, NaN where not scored.
        drawn_at: `(n,)` column at which each response was sampled.
        prompt: `(n,)` prompt codes (any integers).
        left: Columns of the before window.
        right: Columns of the after window.
        index: `(n,)` row numbers to remember; default `0..n-1`.

    Returns:
        The contrast with effective sample size and weight check per prompt.

    Raises:
        SampleError: No response is scored in both windows.
    """
    index = np.arange(prompt.size) if index is None else index
    usable = usable_rows(log_likelihood, drawn_at, np.concatenate([left, right]))
    rows = usable.rows
    if not rows.any():
        raise SampleError("expected responses scored under every checkpoint of both windows, found none")
    log_likelihood, index = log_likelihood[rows], index[rows]
    _, code = np.unique(prompt[rows], return_inverse=True)
    log_l = mixture_log_probability(log_likelihood, left)
    log_r = mixture_log_probability(log_likelihood, right)
    mixture = Mixture.of(log_likelihood, drawn_at[rows], code)
    log_m = np.logaddexp(log_l, log_r) - np.log(2)
    w = mixture.weights(log_m[:, None])
    s = np.tanh((log_l - log_r) / 2)
    drawn = Drawn(
        normalised((log_m - mixture.log_q)[:, None], code)[:, 0],
        np.searchsorted(mixture.anchors, drawn_at[rows]),
        mixture.posterior(log_likelihood),
        _two_sides(drawn_at[rows], left, right),
    )
    return Contrast(
        s=s,
        weight=drawn.weights(code),
        prompt=code,
        likelihoods=True,
        group=jackknife_groups(code, s),
        index=index,
        ess=w.ess[:, 0],
        mean_weight=w.mean[:, 0],
        mean_weight_error=w.error[:, 0],
        n_unscored=usable.n_unscored,
        n_inside=np.bincount(code, weights=np.isin(drawn_at[rows], np.concatenate([left, right]))),
        drawn=drawn,
    )


def total_change(contrast: Contrast, kind: Kind = "linear") -> Interval:
    """Dissimilarity D_g of the contrast with its jackknife interval (METHOD 2); only with likelihoods.

    Raises:
        SampleError: The contrast has no likelihoods (s is +-1, so the sum would always be 1).
    """
    if not contrast.likelihoods:
        raise SampleError("the total change needs likelihoods; without them it is only bounded below (probes.classifier)")
    values = pointwise(contrast.s, kind)
    return jackknife_mean(contrast, values)


def jackknife_mean(contrast: Contrast, values: np.ndarray) -> Interval:
    """Interval of the weighted within-prompt mean of `values (n,)`, averaged over prompts."""
    return jackknife(contrast.mean(values), leave_one_out_means(contrast, values))


def leave_one_out_means(contrast: Contrast, values: np.ndarray) -> np.ndarray:
    """`(n_groups,)` that mean without each jackknife group; NaN where a prompt loses a side."""
    if contrast.by_prompt:
        per_prompt = np.bincount(contrast.prompt, weights=contrast.weight * values)
        return np.asarray((per_prompt.sum() - per_prompt) / (per_prompt.size - 1))
    loo = np.full(int(contrast.group.max()) + 1, np.nan)
    for g in range(loo.size):
        rows = contrast.complete(contrast.group != g)
        if rows.size == 0:  # one response a side: without this group no prompt has both
            continue
        part = contrast.take(rows)
        if part.n_prompts == contrast.n_prompts:
            loo[g] = part.mean(values[rows])
    return loo


def squared_response_noise(noise_nats: float) -> float:
    """D that an error of `noise_nats` in every log-probability would fake: `E tanh(e/2)^2 ~ noise^2/2` (two scores differ by sqrt 2)."""
    return float(np.tanh(noise_nats / np.sqrt(2)) ** 2)
