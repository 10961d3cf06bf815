"""Where the adapters of repeated runs turn on average: a rotation with a sampling error, free of the optimizer's noise.

One run cannot tell a turn from its optimizer's noise. Adam moves a weight by lr * m / sqrt(v): by lr as long as gradients agree in
sign, by about lr * sqrt((1 - beta1) / (1 + beta1)) where they are pure noise. So a run that goes straight and stops goes on as a walk,
and its local cosine rises from -1 at that place as it does at a corner. Runs with the same start and other documents have independent
noise and one mean path. Inner products *between* runs are free of noise in expectation, `E<v_i[s], v_j[t]> = <mean v[s], mean v[t]>` for
i != j; their mean over the pairs is an unbiased Gram matrix of the mean path, and everything in :mod:`probes.lora` follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from probes.errors import SampleError, ShapeError
from probes.lora import STRAIGHT, leg_lengths, squared_legs

FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Module = tuple[Floats, Floats, Floats | float]

MIN_RUNS = 4
"""Fewer runs have too wide a Student's quantile to tell anything."""


def cross_grams(runs: Sequence[Sequence[Module]]) -> FloatArray:
    """Inner products of the weight changes `scale * B A` of every two runs: gauge-free, never formed.

    Args:
        runs: For every run its modules, each A `(n_steps, rank, d_in)`, B `(n_steps, d_out, rank)` and the scale, one or `(n_steps,)`.

    Returns:
        `(n_runs, n_runs, n_steps, n_steps)`: `<v_i[s], v_j[t]>`, summed over the modules.

    Raises:
        ShapeError: Runs differ in modules, steps or shapes.
    """
    shapes = {tuple((a.shape, b.shape) for a, b, _ in run) for run in runs}
    if len(shapes) != 1 or not next(iter(shapes)):
        raise ShapeError(f"expected runs with the same modules, steps and ranks, found {len(shapes)} different kinds of runs")
    n, n_steps = len(runs), len(runs[0][0][0])
    found = np.zeros((n, n, n_steps, n_steps))
    for i in range(n):
        for j in range(i, n):
            for (a, b, scale), (a2, b2, scale2) in zip(runs[i], runs[j], strict=True):
                outer = np.einsum("sor,toq->strq", b, b2, dtype=np.float64, optimize=True)
                inner = np.einsum("sri,tqi->strq", a, a2, dtype=np.float64, optimize=True)
                factor = np.outer(np.broadcast_to(scale, n_steps), np.broadcast_to(scale2, n_steps))
                found[i, j] += factor * np.einsum("strq,strq->st", outer, inner)
            found[j, i] = found[i, j].T
    return found


def gram_of_mean(cross: FloatArray) -> FloatArray:
    """Unbiased Gram matrix of the mean path: the mean over pairs of different runs. A squared length from it can be negative.

    Raises:
        SampleError: Fewer than two runs.
    """
    n = len(cross)
    if n < 2:
        raise SampleError(f"expected at least 2 runs, found {n}")
    total = (cross.sum(axis=(0, 1)) - np.einsum("iist->st", cross)) / (n * (n - 1))
    return np.asarray((total + total.T) / 2)


@dataclass(frozen=True)
class MeanRotation:
    """Where the mean path turns most.

    Attributes:
        step: Where the local cosine of the mean path, averaged over leg lengths, is largest.
        low, high: Steps that are not significantly less turned: a confidence interval over runs.
        cosine: Local cosine there, free of noise: -1 straight, 0 a right angle.
        prominence: By how much it stands out from its feet, the smaller of both sides; `prominence_low`: lower limit of that, corrected
            for having looked for the feet.
        n_runs: Runs.
    """

    step: float
    low: float
    high: float
    cosine: float
    prominence: float
    prominence_low: float
    n_runs: int


@dataclass(frozen=True)
class MeanCosine:
    """Local cosine of the mean path, averaged over leg lengths.

    Attributes:
        estimate: `(n_steps,)`; NaN where a leg is not significantly longer than 0, or within a leg of the ends.
        leave_one_out: `(n_runs, n_steps)` the same without each run.
    """

    estimate: FloatArray
    leave_one_out: FloatArray


def mean_cosine(cross: FloatArray, ks: Sequence[int] | None = None, confidence: float = 0.95) -> MeanCosine:
    """The local cosine of the mean path of runs.

    Raises:
        SampleError: Fewer than `MIN_RUNS` runs, or too few checkpoints.
    """
    n_runs, n_steps = len(cross), cross.shape[-1]
    if n_runs < MIN_RUNS:
        raise SampleError(f"expected at least {MIN_RUNS} runs, found {n_runs}")
    lengths = leg_lengths(n_steps) if ks is None else tuple(ks)
    if not lengths or max(lengths) > (n_steps - 1) // 2 or min(lengths) < 1:
        raise SampleError(f"expected leg lengths from 1 to {(n_steps - 1) // 2} for {n_steps} checkpoints, found {lengths}")
    grams = [gram_of_mean(cross), *(gram_of_mean(np.delete(np.delete(cross, i, 0), i, 1)) for i in range(n_runs))]
    critical = float(stats.t.ppf(0.5 + confidence / 2, n_runs - 1))
    curves = []
    for k in lengths:
        before, after, product = (np.stack(part) for part in zip(*(_legs(gram, k) for gram in grams), strict=True))
        known = np.logical_and.reduce([leg[0] > critical * _error(leg[1:]) for leg in (before, after)])
        usable = known & (before > 0).all(axis=0) & (after > 0).all(axis=0)
        lengths_product = np.sqrt(np.where(usable, before * after, np.nan))
        curves.append(product / lengths_product)
    pooled = np.mean(curves, axis=0)
    return MeanCosine(pooled[0], pooled[1:])


def rotation_over_runs(
    cross: FloatArray, steps: Sequence[int], ks: Sequence[int] | None = None, confidence: float = 0.95
) -> MeanRotation | None:
    """The rotation of the mean path of runs that share their start and differ in their documents.

    Args:
        cross: From :func:`cross_grams`.
        steps: `(n_steps,)` optimizer steps of the checkpoints.
        ks: Leg lengths in checkpoints; :func:`probes.lora.leg_lengths` when None.
        confidence: Of the interval, and of what stands out.

    Returns:
        None where the largest local cosine does not stand out significantly, on both sides, from places straighter than `STRAIGHT`.

    Raises:
        SampleError: Too few runs or checkpoints.
        ShapeError: Steps and trajectories differ in length.
    """
    if len(steps) != cross.shape[-1]:
        raise ShapeError(f"expected one step per checkpoint, found {len(steps)} steps and {cross.shape[-1]} checkpoints")
    cosine = mean_cosine(cross, ks, confidence)
    known = np.flatnonzero(np.isfinite(cosine.estimate))
    if known.size < 3:
        return None
    value, without = cosine.estimate[known], cosine.leave_one_out[:, known]
    top = int(np.argmax(value))
    stand, error = value[top] - value, _error(without[:, [top]] - without)
    lengths = leg_lengths(len(steps)) if ks is None else tuple(ks)
    # The feet are looked for among so many places that share no leg: Bonferroni.
    n_places = int(np.ceil(known.size / (2 * min(lengths))))
    critical = float(stats.t.ppf(1 - (1 - confidence) / 2 / n_places, len(cross) - 1))
    beyond = np.where(value <= STRAIGHT, stand - critical * error, -np.inf)
    if not 0 < top < known.size - 1:
        return None
    feet = int(np.argmax(beyond[:top])), top + 1 + int(np.argmax(beyond[top + 1 :]))
    if min(beyond[foot] for foot in feet) <= 0:
        return None
    less = stand > float(stats.t.ppf(0.5 + confidence / 2, len(cross) - 1)) * error
    inside = [k for k in range(feet[0], feet[1] + 1) if not less[k]]
    at = np.asarray(steps, dtype=np.float64)[known]
    return MeanRotation(
        step=float(at[top]),
        low=float(at[inside[0]]),
        high=float(at[inside[-1]]),
        cosine=float(value[top]),
        prominence=float(min(stand[foot] for foot in feet)),
        prominence_low=float(min(beyond[foot] for foot in feet)),
        n_runs=len(cross),
    )


def _legs(gram: FloatArray, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of every step; NaN within k of an end."""
    out = np.full((3, len(gram)), np.nan)
    out[:, k : len(gram) - k] = squared_legs(gram, k)
    return out[0], out[1], out[2]


def _error(leave_one_out: FloatArray) -> FloatArray:
    """Jackknife standard error along the first axis."""
    n = len(leave_one_out)
    return np.asarray(np.sqrt((n - 1) / n * np.sum((leave_one_out - leave_one_out.mean(axis=0)) ** 2, axis=0)))
