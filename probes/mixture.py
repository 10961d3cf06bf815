"""The one estimator behind everything that is read off anchors: importance weights under the mixture of their laws (METHOD 2b).

Responses to a prompt drawn at anchor checkpoints a, n_a at each, are draws of `q(x) = sum_a n_a P_a(x) / sum_a n_a` (the balance
heuristic). A response weighs `P(x)/q(x)` for any law P: a checkpoint (courses), the mean of two windows (contrasts, D at a split).
Weights are normalised within prompt; for D and shares, which a few responses a prompt would make too large by a percent or two,
they are freed of the bias of that ratio (`without_ratio_bias`). What keeps them honest, per prompt and law: the effective sample size,
and the mean unnormalised weight, which is 1 where the anchors cover the law; over all prompts: `Weights.covered`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from probes.errors import SampleError
from probes.threads import one_blas_thread

MIN_ESS = 4.0
"""Floor of the effective sample size per prompt and law; below it the prompt is not known there."""
LOW_PERCENTILE = 5.0
"""The percentile over prompts of the effective sample size that is held above a floor."""
WEIGHT_CHECK_ERRORS = 4.0
"""Unnormalised weights must average 1 within this many standard errors (plus `WEIGHT_CHECK_SLACK`)."""
WEIGHT_CHECK_SLACK = 0.05
MOST_FAILING = 0.1
"""Part of the prompts that may fail the weight check by chance."""
MANY_ENOUGH_FOR_ONE = 4
"""From this many prompts on one may fail."""
ALONE = 1e-9
"""Others of an anchor that are fewer than this are none."""


def sum_by(prompt: np.ndarray, values: np.ndarray, n_prompts: int) -> np.ndarray:
    """Sums of the rows of `values (n, k)` by prompt code `(n,)`, shape `(n_prompts, k)`."""
    indicator = np.zeros((n_prompts, prompt.size))
    indicator[prompt, np.arange(prompt.size)] = 1.0
    with one_blas_thread():
        return np.asarray(indicator @ values)


def normalised(log_raw: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Weights with logarithms `(n, k)` up to a constant, not NaN, made to sum to 1 within each prompt (codes `0..P-1`)."""
    order, starts = _by_prompt(prompt)
    weight, _ = _relative(log_raw, prompt, starts.size)
    return np.asarray(weight / np.add.reduceat(weight[order], starts, axis=0)[prompt])


def _by_prompt(prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of the rows by prompt, and where in it each prompt starts."""
    order = np.argsort(prompt, kind="stable")
    return order, np.flatnonzero(np.diff(prompt[order], prepend=-1))


def without_ratio_bias(weight: np.ndarray, prompt: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Normalised weights whose weighted means are biased by O(1/n^2) instead of O(1/n), whatever is averaged (ours).

    `sum_i w_i h_i / sum_j w_j` divides every response by a total that it moves itself: what goes with large weights comes out too
    small (Beale, Tin: the bias is minus a covariance within strata). Divided instead by the total in which the others of its anchor stand
    for it, which does not depend on it and has the same mean, every summand is unbiased up to one common factor. To first order
    that multiplies a normalised weight by `1 + w_i - (mean weight of the others of its anchor)`; then they are normalised again.
    Equal weights stay as they are, and none becomes negative.

    Args:
        weight: `(n, k)` >= 0, sums to 1 within each prompt.
        prompt: `(n,)` codes `0..P-1`.
        strata: `(n, n_anchors)` rows sum to 1: see `strata_of`.

    Returns:
        `(n, k)` >= 0, sums to 1 within each prompt. A response without others of its anchor keeps its part.
    """
    out = np.empty_like(weight)
    order, starts = _by_prompt(prompt)
    with one_blas_thread():
        for rows in np.split(order, starts[1:]):
            w, r = weight[rows], strata[rows]
            others = r.sum(axis=0) - r
            lone = others < ALONE
            part = np.where(lone, 0.0, r / np.where(lone, 1.0, others))
            mean_of_others = part @ (r.T @ w) - (part * r).sum(axis=1, keepdims=True) * w + (r * lone).sum(axis=1, keepdims=True) * w
            corrected = w * (1 + w - mean_of_others)
            out[rows] = corrected / corrected.sum(axis=0)
    return out


def strata_of(anchor: np.ndarray, posterior: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """What each response was drawn from a fixed number of: its anchor, or its anchors as far as they can be told apart.

    Args:
        anchor: `(n,)` column of `posterior` at which each response was drawn.
        posterior: `(n, n_anchors)` probability that each was drawn at each anchor.
        prompt: `(n,)` codes `0..P-1`.

    Returns:
        `(n, n_anchors)`: 1 at its anchor in prompts with two responses or more at each of their anchors, else the posterior, by which
        responses of several anchors that say the same stand for each other.
    """
    count = np.zeros((int(prompt.max()) + 1, posterior.shape[1]))
    np.add.at(count, (prompt, anchor), 1.0)
    certain = (anchor[:, None] == np.arange(posterior.shape[1])).astype(np.float64)
    return np.where((count != 1).all(axis=1)[prompt, None], certain, posterior)


def low_percentile(ess: np.ndarray) -> np.ndarray:
    """5th percentile over prompts of effective sample sizes `(n_prompts, k)`, shape `(k,)`; NaN counts as 0."""
    return np.asarray(np.percentile(np.nan_to_num(ess), LOW_PERCENTILE, axis=0))


def contrast_floor(n: np.ndarray, n_inside: np.ndarray) -> np.ndarray:
    """Effective sample size that is enough for a contrast.

    One response a side and prompt is legal: asked for is that the weights concentrate little, not that responses are many.

    Args:
        n: Responses of each prompt, any shape.
        n_inside: Those of them drawn at the checkpoints that are compared; from two on they alone are what can be asked for.

    Returns:
        Of that shape: half of them, at most `MIN_ESS`.
    """
    return np.asarray(np.minimum(MIN_ESS, np.where(n_inside >= 2, n_inside, n) / 2))


def averages_one(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Where mean unnormalised weights are 1 within their error; bool of their shape, False at NaN."""
    return np.asarray(np.abs(mean - 1) <= WEIGHT_CHECK_ERRORS * np.nan_to_num(error) + WEIGHT_CHECK_SLACK)


def covered(ess: np.ndarray, mean: np.ndarray, error: np.ndarray, floor: np.ndarray | float = MIN_ESS) -> np.ndarray:
    """Where responses stand for a law: enough effective ones in (nearly) every prompt, and their weights average 1.

    The average is checked for every prompt, of which a tenth may fail by chance (with few responses the error of a mean weight is a guess
    itself), and over all prompts with the error that prompts show, which sees what every single one hides.

    Args:
        ess: `(n_prompts, k)` effective sample sizes.
        mean: `(n_prompts, k)` mean unnormalised weights.
        error: `(n_prompts, k)` their standard errors.
        floor: Effective sample size that is enough, one for all or `(n_prompts, 1)`.

    Returns:
        `(k,)` bool.
    """
    n = mean.shape[0]
    may_fail = max(int(MOST_FAILING * n), int(n >= MANY_ENOUGH_FOR_ONE))
    failing = (~averages_one(mean, error)).sum(axis=0) > may_fail
    spread = mean.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else error[0]
    with np.errstate(invalid="ignore"):
        return np.asarray((low_percentile(ess / floor) >= 1) & ~failing & averages_one(mean.mean(axis=0), spread))


@dataclass(frozen=True)
class Weights:
    """Importance weights of responses for one or several laws.

    Attributes:
        raw: `(n, k)` unnormalised `P(x)/q(x)`; 0 for a response that is not usable for that law.
        prompt: `(n,)` codes `0..P-1`.
        ess: `(n_prompts, k)` effective sample size `(sum w)^2 / sum w^2`; 0 where a prompt has no usable response.
        mean, error: `(n_prompts, k)` mean of the unnormalised weights and its standard error.
    """

    raw: np.ndarray
    prompt: np.ndarray
    ess: np.ndarray
    mean: np.ndarray
    error: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """`(n_prompts, k)` True where the mean weight is not 1 within its error: the anchors miss something there."""
        return ~averages_one(self.mean, self.error)

    @property
    def known(self) -> np.ndarray:
        """`(n_prompts, k)` True where the prompt's effective sample size reaches `MIN_ESS` and its weight check holds."""
        return np.asarray((self.ess >= MIN_ESS) & ~self.failed)

    def covered(self, floor: np.ndarray | float = MIN_ESS) -> np.ndarray:
        """`(k,)` True where the law is known (see :func:`covered`)."""
        return covered(self.ess, self.mean, self.error, floor)


def weights_of(log_raw: np.ndarray, prompt: np.ndarray, n_prompts: int) -> Weights:
    """Weights from their logarithms `(n, k)`; -inf: no weight, NaN: not usable (not counted in the mean).

    Args:
        log_raw: `log P(x) - log q(x)`, nats.
        prompt: `(n,)` codes.
        n_prompts: How many prompts there are.
    """
    usable = ~np.isnan(log_raw)
    safe = np.where(usable, log_raw, -np.inf)
    n = sum_by(prompt, usable.astype(float), n_prompts)
    relative, top = _relative(safe, prompt, n_prompts)
    total, square = sum_by(prompt, relative, n_prompts), sum_by(prompt, relative**2, n_prompts)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.exp(top)
        mean = scale * total / n
        error = scale * np.sqrt(np.maximum(square / n - (total / n) ** 2, 0) / np.maximum(n - 1, 1))
        ess = np.where(square > 0, total**2 / square, 0.0)
    # what overflows has left its prompt with one response and a mean that no check passes; a cap keeps sums over it finite
    return Weights(np.exp(np.minimum(safe, 300.0)), prompt, ess, mean, error)


def _relative(log_raw: np.ndarray, prompt: np.ndarray, n_prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights over the largest of their prompt, and its logarithm by prompt (-inf where none is positive).

    So no weight is lost where anchors miss a law by hundreds of nats: the mean weight says so, the largest is 1.
    """
    top = np.full((n_prompts, log_raw.shape[1]), -np.inf)
    order, starts = _by_prompt(prompt)
    top[prompt[order][starts]] = np.maximum.reduceat(log_raw[order], starts, axis=0)
    return np.exp(log_raw - np.where(np.isfinite(top), top, 0.0)[prompt]), top


@dataclass(frozen=True)
class Mixture:
    """The law that responses were drawn from: per prompt the mixture of their anchors' laws.

    Attributes:
        anchors: `(k,)` columns of the checkpoints that were sampled.
        log_share: `(n_prompts, k)` log of `n_a / sum_b n_b`; -inf where a prompt was not asked at an anchor.
        prompt: `(n,)` codes `0..P-1` of the responses drawn.
        log_q: `(n,)` log density of each of them.
    """

    anchors: np.ndarray
    log_share: np.ndarray
    prompt: np.ndarray
    log_q: np.ndarray

    @classmethod
    def of(cls, log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray) -> Mixture:
        """The mixture that `n` responses were drawn from.

        Args:
            log_likelihood: `(n, n_steps)` nats, no NaN in the anchors' columns.
            drawn_at: `(n,)` column at which each was sampled.
            prompt: `(n,)` codes `0..P-1`.

        Raises:
            SampleError: There is no response.
        """
        if prompt.size == 0:
            raise SampleError("expected responses drawn at anchor checkpoints, found none")
        count = np.zeros((int(prompt.max()) + 1, log_likelihood.shape[1]))
        np.add.at(count, (prompt, drawn_at), 1.0)
        anchors = np.flatnonzero(count.any(axis=0))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_share = np.log(count[:, anchors] / count.sum(axis=1, keepdims=True))
        out = cls(anchors, log_share, prompt, np.empty(0))
        return cls(anchors, log_share, prompt, out.log_density(log_likelihood, prompt))

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return int(self.log_share.shape[0])

    def log_density(self, log_likelihood: np.ndarray, prompt: np.ndarray) -> np.ndarray:
        """`(n,)` log q(x) of any responses `(n, n_steps)` to these prompts."""
        return np.asarray(logsumexp(log_likelihood[:, self.anchors] + self.log_share[prompt], axis=1))

    def posterior(self, log_likelihood: np.ndarray) -> np.ndarray:
        """`(n, k)` probability that each of the responses drawn was drawn at each anchor: `n_a P_a / sum_b n_b P_b`."""
        return np.asarray(np.exp(log_likelihood[:, self.anchors] + self.log_share[self.prompt] - self.log_q[:, None]))

    def strata(self, log_likelihood: np.ndarray, drawn_at: np.ndarray) -> np.ndarray:
        """`(n, k)` what the responses drawn were drawn from a fixed number of (see `strata_of`)."""
        return strata_of(np.searchsorted(self.anchors, drawn_at), self.posterior(log_likelihood), self.prompt)

    def weights(self, log_target: np.ndarray) -> Weights:
        """Weights of the responses drawn for laws with log-probabilities `(n, k)` nats."""
        return weights_of(log_target - self.log_q[:, None], self.prompt, self.n_prompts)


@dataclass(frozen=True)
class Usable:
    """Responses that can stand for some laws.

    Attributes:
        rows: `(n,)` bool: drawn at an anchor that belongs to the mixture and scored wherever that takes.
        n_unscored: Responses of these anchors that are left out because a log-probability is missing.
    """

    rows: np.ndarray
    n_unscored: int


def usable_rows(log_likelihood: np.ndarray, drawn_at: np.ndarray, columns: np.ndarray) -> Usable:
    """Responses with which laws made of the checkpoints `columns` can be estimated, whatever was not scored.

    An anchor belongs to the mixture when most of its responses are scored under `columns` and under the other anchors of the mixture, and
    the others' under it: all anchors when everything is scored, those of the band when responses were scored near their own checkpoint
    only. Anchors among `columns` and next to them come first. A single response that lacks a score there is left out and counted.

    Args:
        log_likelihood: `(n, n_steps)` nats, NaN where not scored.
        drawn_at: `(n,)` column at which each response was sampled.
        columns: Checkpoints that the laws are made of.
    """
    finite = np.isfinite(log_likelihood)
    if finite.all():
        return Usable(np.ones(drawn_at.size, dtype=bool), 0)
    anchors, code = np.unique(drawn_at, return_inverse=True)
    scored = sum_by(code, finite.astype(float), anchors.size) > 0.5 * np.bincount(code)[:, None]
    distance = np.abs(anchors[:, None] - columns[None, :]).min(axis=1)
    chosen: list[int] = []
    for k in np.argsort(distance, kind="stable"):
        if scored[k, columns].all() and all(scored[k, anchors[other]] and scored[other, anchors[k]] for other in chosen):
            chosen.append(int(k))
    drawn = np.isin(code, chosen)
    rows = drawn & finite[:, np.union1d(columns, anchors[chosen])].all(axis=1) if chosen else drawn
    return Usable(rows, int(drawn.sum() - rows.sum()))
