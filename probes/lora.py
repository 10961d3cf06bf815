"""Where a LoRA adapter turns while it is trained: local cosine, trajectory PCA, norms, comp score (METHOD 5).

Everything about a trajectory `v[0], v[1], …` of adapters follows from its Gram matrix `G[s, t] = <v[s], v[t]>`: :func:`gram_of_b`
takes v as the stacked B of one or several modules, :func:`gram_of_products` the products `scale * B A` themselves (any rank, never formed).
A bend of the weights is no change of behaviour by itself: later work finds behaviour long after the rotation. Report lead and lag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError, ShapeError
from probes.resampling import Interval, jackknife

FloatArray = npt.NDArray[np.float64]

MIN_LEG = 0.02
"""A step is skipped where the longer leg is shorter than this part of the longest one of the run."""
MIN_NORM = 0.05
"""A normalised direction is known where the norm is at least this part of its maximum over the run."""
LEG_THRESHOLDS = (0.4, 0.5, 0.6)
"""A rotation lies where a leg is long.

Late drift takes legs a quarter as long and turns all the time: with thresholds of .02 to .1 a turn of that drift was taken for the
rotation of one of five organisms and hid that of another.
"""
WINDOWS = (0.05, 0.08, 0.12, 0.16)
"""Lengths of a leg as parts of the run; shorter ones see the noise of single steps (on the recorded organism at 3%)."""
MIN_BEND = 0.25
"""A bend is a peak of the local cosine that stands out by this much on both sides."""
STRAIGHT = -0.5
"""On both sides of a bend the trajectory must somewhere be this straight: a random walk is not, and turns nowhere."""
SIGNAL = -0.9
"""Somewhere, with the shortest legs, the trajectory must be this straight: noise with an optimizer's momentum is not.

A walk of Adam's first moment (beta1 = .9, two steps a checkpoint, 64 weights, 61 checkpoints) gets as straight as -.83 in 40 draws; a
straight line with such noise a third as large gets to -.97. What follows a signal that stops cannot be told from a turn in one run:
:mod:`probes.repeated_runs` can.
"""
DRIFT_WARNING = "a dominant first component is what any drifting optimizer leaves: it is shown, nothing follows from it"


def gram_of_b(factors: Iterable[FloatArray | npt.NDArray[np.float32]]) -> FloatArray:
    """Gram matrix of the stacked B of one or several modules.

    Args:
        factors: Each `(n_steps, d_out, rank)`, all with the same n_steps.

    Returns:
        `(n_steps, n_steps)`, the sum over the modules of `<B[s], B[t]>_F`.

    Raises:
        ShapeError: No module, or another number of steps.
    """
    return _sum_of([_flat_gram(np.asarray(b)) for b in factors])


def gram_of_products(
    factors: Iterable[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]], scale: npt.NDArray[np.float64] | float = 1.0
) -> FloatArray:
    """Gram matrix of the weight changes `scale[t] * B[t] A[t]`, which do not depend on how a product is split into factors.

    `<B_s A_s, B_t A_t>_F = sum((B_s^T B_t) * (A_s A_t^T))`: products of rank x rank only.

    Args:
        factors: Pairs of A `(n_steps, rank, d_in)` and B `(n_steps, d_out, rank)`, one per module.
        scale: `(n_steps,)` or one number.

    Raises:
        ShapeError: No module, or shapes that do not fit.
    """
    grams = []
    for a, b in factors:
        if a.ndim != 3 or b.ndim != 3 or (len(a), a.shape[1]) != (len(b), b.shape[2]):
            raise ShapeError(f"expected A (n_steps, rank, d_in) and B (n_steps, d_out, rank), found {a.shape} and {b.shape}")
        outer = np.einsum("sor,toq->strq", b, b, dtype=np.float64, optimize=True)
        inner = np.einsum("sri,tqi->strq", a, a, dtype=np.float64, optimize=True)
        grams.append(np.einsum("strq,strq->st", outer, inner))
    total = _sum_of(grams)
    factor = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(total))
    return total * np.outer(factor, factor)


def _flat_gram(b: npt.NDArray[np.floating]) -> FloatArray:
    if b.ndim < 2:
        raise ShapeError(f"expected B (n_steps, d_out, rank), found {b.shape}")
    flat = b.reshape(len(b), -1).astype(np.float64)
    return np.asarray(flat @ flat.T)


def _sum_of(grams: Sequence[FloatArray]) -> FloatArray:
    if len({gram.shape for gram in grams}) != 1:
        raise ShapeError(f"expected modules with the same steps, found numbers of steps {sorted({len(gram) for gram in grams}) or 'none'}")
    return np.asarray(np.sum(grams, axis=0))


def norms(gram: FloatArray) -> FloatArray:
    """`|v[t]|`, shape (n_steps,)."""
    return np.asarray(np.sqrt(np.maximum(np.diag(gram), 0.0)))


def normalised(gram: FloatArray, min_norm: float = MIN_NORM) -> FloatArray:
    """Gram matrix of the directions `v/|v|`; NaN where the norm is below `min_norm` of the largest one (a direction of noise)."""
    length = norms(gram)
    known = length >= max(min_norm * float(length.max(initial=0.0)), np.finfo(float).tiny)
    divisor = np.where(known, length, np.nan)
    return np.asarray(gram / np.outer(divisor, divisor))


def squared_legs(gram: FloatArray, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Squared legs before and after the steps k to n - k - 1 of a trajectory, and their inner product, each `(n_steps - 2k,)`."""
    n, d = len(gram), np.diag(gram)
    t = np.arange(k, n - k)
    before = d[t - k] - 2 * gram[t - k, t] + d[t]
    after = d[t + k] - 2 * gram[t + k, t] + d[t]
    return before, after, gram[t - k, t + k] - gram[t - k, t] - gram[t + k, t] + d[t]


def local_cosine(gram: FloatArray, k: int, min_leg: float = MIN_LEG) -> FloatArray:
    """Local cosine `c_k(t) = cos(v[t-k] - v[t], v[t+k] - v[t])`: straight -1, right angle 0, reversal +1.

    Args:
        gram: `(n_steps, n_steps)`, of the raw vectors or of :func:`normalised` ones.
        k: Length of a leg in checkpoints.
        min_leg: A step is skipped where the longer of its two legs is below this part of the longest leg of the run.

    Returns:
        `(n_steps,)` in [-1, 1]; NaN within k of an end, where skipped, where a leg has length 0 and where a direction is unknown.

    Raises:
        SampleError: Fewer than 2k + 1 steps, or k below 1.
    """
    n = len(gram)
    if k < 1 or n < 2 * k + 1:
        raise SampleError(f"expected k from 1 to {(n - 1) // 2} for {n} checkpoints, found {k}")
    t, d = np.arange(k, n - k), np.diag(gram)
    before, after, product = squared_legs(gram, k)
    # Differences of nearly equal numbers: what is below rounding is no leg.
    rounding = 64 * np.finfo(float).eps * np.maximum(d[t], np.maximum(d[t - k], d[t + k]))
    legs = np.sqrt(np.where(before > rounding, before, 0.0)), np.sqrt(np.where(after > rounding, after, 0.0))
    longer = np.where(np.isnan(product), np.nan, np.maximum(*legs))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.clip(product / (legs[0] * legs[1]), -1.0, 1.0)
    long_enough = longer >= min_leg * np.nanmax(longer, initial=0.0)
    found = np.full(n, np.nan)
    found[t] = np.where(long_enough & (np.minimum(*legs) > 0), cosine, np.nan)
    return found


@dataclass(frozen=True)
class Principal:
    """Trajectory PCA.

    Attributes:
        coordinates: `(n_steps, n_components)`, centred on the mean of the trajectory; the sign makes the last step positive.
        explained: `(n_components,)` parts of the variance.
        warning: What must stand beside it.
    """

    coordinates: FloatArray
    explained: FloatArray
    warning: str = DRIFT_WARNING


def trajectory_pca(gram: FloatArray, n_components: int = 3) -> Principal:
    """Principal components of a trajectory from its Gram matrix.

    Raises:
        SampleError: Fewer than two steps, or a trajectory that never moves.
    """
    if len(gram) < 2:
        raise SampleError(f"expected at least 2 checkpoints, found {len(gram)}")
    centre = np.eye(len(gram)) - 1.0 / len(gram)
    value, vector = np.linalg.eigh(centre @ gram @ centre)
    value, vector = np.maximum(value[::-1], 0.0), vector[:, ::-1]
    if not value[0] > np.finfo(float).eps * float(np.abs(gram).max()):
        raise SampleError("expected an adapter that moves, found the same weights at every checkpoint")
    kept = min(n_components, len(gram) - 1)
    coordinates = vector[:, :kept] * np.sqrt(value[:kept])
    return Principal(coordinates * np.where(coordinates[-1] < 0, -1.0, 1.0), value[:kept] / value.sum())


def comp_score(
    first: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]], second: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]
) -> float:
    """How much two adapters write into the same directions: `|W1^T W2|_F / (|W1|_F |W2|_F)` with `W = B A`, in [0, 1].

    From Gram matrices of rank x rank: `|W1^T W2|^2 = tr(A1 A1^T M A2 A2^T M^T)`, `M = B1^T B2`. Two adapters of rank 1 that write into
    the same direction have 1, orthogonal ones 0; a product of rank r with equal singular values has 1/sqrt(r) with itself.

    Args:
        first: A `(rank, d_in)` and B `(d_out, rank)`.
        second: The same; d_out must be the first one's, rank and d_in may differ.

    Raises:
        ShapeError: The outputs differ in width.
        SampleError: An adapter is zero.
    """
    (a1, b1), (a2, b2) = ((np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)) for a, b in (first, second))
    if b1.shape[0] != b2.shape[0] or a1.shape[0] != b1.shape[1] or a2.shape[0] != b2.shape[1]:
        raise ShapeError(f"expected adapters of one output, found B {b1.shape} A {a1.shape} and B {b2.shape} A {a2.shape}")
    inner1, inner2, outer = a1 @ a1.T, a2 @ a2.T, b1.T @ b2
    size1, size2 = float(np.sum((b1.T @ b1) * inner1)), float(np.sum((b2.T @ b2) * inner2))
    if not (size1 > 0 and size2 > 0):
        raise SampleError("expected two adapters that change something, found one with B A = 0")
    overlap = float(np.sum((inner1 @ outer) * (outer @ inner2)))
    return float(np.sqrt(max(overlap, 0.0) / (size1 * size2)))


@dataclass(frozen=True)
class Bend:
    """The bend seen with one leg length and one threshold: its step, its local cosine and how far it stands out."""

    k: int
    min_leg: float
    step: float
    cosine: float
    prominence: float


@dataclass(frozen=True)
class Rotation:
    """Where the trajectory turns most.

    Attributes:
        step: Median of the places over leg lengths and thresholds.
        low, high: Smallest and largest of these places: how far it depends on the settings. One run has no sampling error; several
            runs have, see :func:`place_over_runs`.
        cosine: Local cosine there (median over the settings).
        bends: One per setting in which a bend stands out.
        n_settings: Settings tried.
    """

    step: float
    low: float
    high: float
    cosine: float
    bends: tuple[Bend, ...]
    n_settings: int


def leg_lengths(n_steps: int) -> tuple[int, ...]:
    """Leg lengths to try for a run of `n_steps` checkpoints: 5% to 16% of it."""
    return tuple(sorted({k for part in WINDOWS if 1 <= (k := max(1, round(part * n_steps))) <= (n_steps - 1) // 2}))


def rotation(
    gram: FloatArray, steps: Sequence[int], ks: Sequence[int] | None = None, min_legs: Sequence[float] = LEG_THRESHOLDS
) -> Rotation | None:
    """The place of the rotation: the largest local cosine (farthest from straight, -1) that stands out on both sides.

    Args:
        gram: Of one or several modules, raw or :func:`normalised`.
        steps: `(n_steps,)` optimizer steps of the checkpoints.
        ks: Leg lengths in checkpoints; :func:`leg_lengths` when None.
        min_legs: Thresholds of :func:`local_cosine`.

    Returns:
        The rotation, or None when a bend stands out in less than half of the settings or the whole run is as crooked as noise.

    Raises:
        ShapeError: Steps and trajectory differ in length.
        SampleError: Too few checkpoints for any leg length.
    """
    if len(steps) != len(gram):
        raise ShapeError(f"expected one step per checkpoint, found {len(steps)} steps and {len(gram)} checkpoints")
    lengths = leg_lengths(len(gram)) if ks is None else tuple(ks)
    if not lengths:
        raise SampleError(f"expected at least 3 checkpoints, found {len(gram)}")
    if not np.nanmin(local_cosine(gram, min(lengths)), initial=1.0) <= SIGNAL:
        return None
    settings = [(k, min_leg) for k in lengths for min_leg in min_legs]
    bends = [bend for k, min_leg in settings if (bend := _bend(gram, np.asarray(steps), k, min_leg)) is not None]
    if 2 * len(bends) < len(settings):
        return None
    places = np.array([bend.step for bend in bends])
    cosine = float(np.median([bend.cosine for bend in bends]))
    return Rotation(float(np.median(places)), float(places.min()), float(places.max()), cosine, tuple(bends), len(settings))


def _bend(gram: FloatArray, steps: npt.NDArray[np.int64], k: int, min_leg: float) -> Bend | None:
    """The highest local cosine where a leg is long, if the whole curve comes down by `MIN_BEND`, and below `STRAIGHT`, on both sides."""
    cosine, long_legs = local_cosine(gram, k), np.isfinite(local_cosine(gram, k, min_leg))
    known = np.flatnonzero(np.isfinite(cosine))
    if known.size < 3 or not long_legs[known].any():
        return None
    values = cosine[known]
    top = int(np.argmax(np.where(long_legs[known], values, -np.inf)))
    foot = max(values[: top + 1].min(), values[top:].min())
    prominence = float(values[top] - foot)
    if prominence < MIN_BEND or foot > STRAIGHT:
        return None
    return Bend(k, min_leg, float(steps[known[top]]), float(values[top]), prominence)


def place_over_runs(rotations: Mapping[str, Rotation] | Sequence[Rotation], confidence: float = 0.95) -> Interval:
    """Mean place over repeated runs (seeds) with Student's interval: the sampling error that one run cannot show.

    Raises:
        SampleError: No run with a rotation.
    """
    found = list(rotations.values()) if isinstance(rotations, Mapping) else list(rotations)
    if not found:
        raise SampleError("expected at least one run with a rotation, found none")
    return mean_over_runs([each.step for each in found], confidence)


def mean_over_runs(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of a number that every run has, with Student's interval over the runs; limits are NaN for a single run."""
    of_each, n = np.asarray(values, dtype=np.float64), len(values)
    left_out = (of_each.sum() - of_each) / (n - 1) if n > 1 else np.full(1, np.nan)
    return jackknife(float(of_each.mean()), left_out, confidence)
