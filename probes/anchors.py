"""Where to sample next: anchor checkpoints are added where the effective sample size is lowest (METHOD 2b).

Responses are drawn at a few checkpoints and scored under all. How well they stand for a checkpoint t is measured twice: by the effective
sample size of the weights `P_t/q` of what was drawn, which cannot see mass that no anchor covers, and, once t itself is sampled,
by the mean weight `E_{x~P_t}[P_t/q_old] = 1 + chi^2(P_t | q_old)` of the fresh responses under the proposal without them, which can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.errors import SampleError
from probes.mixture import Mixture, low_percentile
from probes.transition import PEAK_OVER_MEDIAN, transition_curve

FLOOR = 5.0
"""Effective sample size per (prompt, step) that sampling goes on for: its 5th percentile over prompts, at every step."""
MAX_FRESH_WEIGHT = 4.0
"""Fresh responses may weigh this much on average under the proposal made without them; more, and the proposal had missed them."""
FLANK = 0.1
"""A gap with less than this part of the highest D is not refined for its own sake."""
MARGIN = 2
"""Gaps on both sides of a gap that is refined."""
FIRST_ANCHORS = 3
MAX_ANCHORS = 12


@dataclass(frozen=True)
class Coverage:
    """How well what was drawn so far stands for every checkpoint.

    Attributes:
        ess: `(n_steps,)` 5th percentile over prompts of the effective sample size.
        fresh_weight: Mean weight of the responses of the anchor drawn last under the proposal without them; NaN when there is no such
            anchor yet.
        next_anchor: Column of the checkpoint to sample next, None when coverage suffices or every checkpoint is sampled.
        enough: Whether the floor is reached everywhere and fresh responses confirmed it.
    """

    ess: np.ndarray
    fresh_weight: float
    next_anchor: int | None
    enough: bool


def first_anchors(n_steps: int, n_anchors: int = FIRST_ANCHORS) -> tuple[int, ...]:
    """Columns to begin with: both ends and evenly between them.

    Raises:
        SampleError: There is no checkpoint.
    """
    if n_steps < 1:
        raise SampleError(f"expected checkpoints to sample, found {n_steps}")
    return tuple(sorted({round(float(x)) for x in np.linspace(0, n_steps - 1, min(n_anchors, n_steps))}))


def coverage(
    log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray, last: int | None = None, floor: float = FLOOR
) -> Coverage:
    """Measure what the responses drawn so far cover, and where to draw next.

    Args:
        log_likelihood: `(n, n_steps)` nats, every response scored under every checkpoint.
        drawn_at: `(n,)` column at which each response was sampled.
        prompt: `(n,)` codes `0..P-1`.
        last: Column of the anchor that was added last, because coverage was poorest there; None at the beginning.
        floor: Effective sample size that is enough.

    Returns:
        The coverage; the next anchor is the unsampled checkpoint with the lowest effective sample size.
    """
    weights = Mixture.of(log_likelihood, drawn_at, prompt).weights(log_likelihood)
    ess = low_percentile(weights.ess)
    fresh = fresh_weight(log_likelihood, drawn_at, prompt, last) if last is not None else float("nan")
    enough = bool((ess >= floor).all()) and fresh <= MAX_FRESH_WEIGHT
    open_ = np.setdiff1d(np.arange(ess.size), drawn_at)
    following = None if enough or open_.size == 0 else int(open_[np.argmin(ess[open_])])
    return Coverage(ess, fresh, following, enough or open_.size == 0)


def to_refine(log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Gaps between neighbouring scored checkpoints that hide something: score the checkpoints inside them too.

    D between the two checkpoints at a gap's ends is `PEAK_OVER_MEDIAN` times its median over all gaps and `FLANK` of the highest or more,
    or is the highest, or is unknown; and the `MARGIN` gaps on both sides of such a gap, so that windows around a transition are complete.

    Args:
        log_likelihood: `(n, k)` nats under the checkpoints scored so far, ascending.
        drawn_at: `(n,)` column among these.
        prompt: `(n,)` codes `0..P-1`.

    Returns:
        `(k - 1,)` bool.
    """
    d = transition_curve(log_likelihood, drawn_at, prompt, np.arange(log_likelihood.shape[1]), 1).curve
    known = np.isfinite(d)
    hot = ~known
    if known.any():
        highest = d[known].max()
        hot |= np.where(known, d, 0.0) >= max(min(PEAK_OVER_MEDIAN * np.median(d[known]), highest), FLANK * highest)
    return np.asarray(np.convolve(hot, np.ones(2 * MARGIN + 1), mode="full")[MARGIN : MARGIN + hot.size] > 0)


def fresh_weight(log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray, anchor: int) -> float:
    """Mean over the responses drawn at `anchor` of `P_anchor/q`, q the proposal of all the others: `1 + chi^2` of what q misses there.

    Raises:
        SampleError: Nothing was drawn at `anchor`, or nothing elsewhere.
    """
    fresh = drawn_at == anchor
    if fresh.all() or not fresh.any():
        raise SampleError(
            f"fresh weight: expected responses drawn at column {anchor} and elsewhere, found {int(fresh.sum())} of {fresh.size}"
        )
    old = Mixture.of(log_likelihood[~fresh], drawn_at[~fresh], prompt[~fresh])
    with np.errstate(over="ignore"):
        return float(np.exp(log_likelihood[fresh, anchor] - old.log_density(log_likelihood[fresh], prompt[fresh])).mean())
