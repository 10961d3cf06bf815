"""What a subject answers where the answer is one of a few options: distributions, their entropy, their distances (METHOD 6).

All entropies are corrected for the number of draws: a distribution of n draws looks more concentrated than the law it was drawn from by
about `(m - 1)/(2n)` nats for m options, and a mean of such distributions by what is left of that. Exact distributions have n = infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError

FloatArray = npt.NDArray[np.float64]

CLUSTER_DISTANCE = 0.25
"""Phrasings whose answers are closer than this Jensen-Shannon distance give the same distribution."""
ROUNDING = 0.02
"""Probabilities computed in bfloat16 add up to 1 within this."""


@dataclass(frozen=True)
class Choice:
    """Answers of one stage of a subject to one phrasing of a task.

    Attributes:
        stage, task, phrasing: Names.
        probability: Of each option; what is missing to 1 is the mass outside the options and is never spread over them.
        n: Draws that landed on an option, or None when the probabilities are exact.
        steered: Whether the phrasing pushes towards some options; the others ask plainly.
    """

    stage: str
    task: str
    phrasing: str
    probability: tuple[float, ...]
    n: int | None = None
    steered: bool = False

    def __post_init__(self) -> None:
        """Check that it is a distribution.

        Raises:
            SampleError: A probability is negative or no number, they add up to more than 1, or nothing lies on the options.
        """
        p = np.asarray(self.probability)
        where = f"{self.stage}, {self.task}, {self.phrasing!r}"
        if p.size < 2:
            raise SampleError(f"{where}: expected at least 2 options, found {p.size}")
        if not (np.isfinite(p).all() and (p >= 0).all() and p.sum() <= 1 + ROUNDING):
            raise SampleError(
                f"{where}: expected probabilities that add up to at most 1, found a sum of {p.sum():.3f}, least {p.min():.3f}"
            )
        if not p.sum() > 0:
            raise SampleError(f"{where}: expected some probability on the options, found none")

    @property
    def outside(self) -> float:
        """Mass outside the options, in [0, 1]."""
        return max(0.0, 1.0 - float(sum(self.probability)))

    @property
    def conditional(self) -> FloatArray:
        """The distribution given that an option was answered, shape (n_options,)."""
        p = np.asarray(self.probability, dtype=np.float64)
        return np.asarray(p / p.sum())


@dataclass(frozen=True)
class Answers:
    """Distributions over the same options, one per phrasing.

    Attributes:
        p: Shape (n_phrasings, n_options), rows adding up to 1.
        n: Draws of each, shape (n_phrasings,), infinity where exact.
    """

    p: FloatArray
    n: FloatArray

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> Answers:
        """Stack the conditional distributions."""
        return cls(
            np.stack([c.conditional for c in choices]), np.array([np.inf if c.n is None else c.n for c in choices], dtype=np.float64)
        )


def entropy(answers: Answers) -> float:
    """Entropy (nats) of the mean distribution over the phrasings.

    Plug-in plus `1/2 sum_o Var(q_o)/q_o`, q the mean: the second-order bias of the entropy (Miller 1955 for one phrasing). Not clipped.
    """
    return float(_corrected(answers.p.mean(axis=0), _sampling_variance(answers).sum(axis=0) / len(answers.p) ** 2))


def each_entropy(answers: Answers) -> FloatArray:
    """Entropy (nats) of every phrasing, shape (n_phrasings,)."""
    return _corrected(answers.p, _sampling_variance(answers))


def left_out_entropy(answers: Answers) -> FloatArray:
    """Entropy (nats) of the mean distribution without each phrasing in turn, shape (n_phrasings,); at least two phrasings."""
    n, variance = len(answers.p), _sampling_variance(answers)
    return _corrected((answers.p.sum(axis=0) - answers.p) / (n - 1), (variance.sum(axis=0) - variance) / (n - 1) ** 2)


def _sampling_variance(answers: Answers) -> FloatArray:
    """Multinomial variance of every probability, 0 where exact, shape of `answers.p`."""
    return np.asarray(answers.p * (1 - answers.p) / np.maximum(answers.n - 1, 1)[:, None])


def _corrected(q: FloatArray, variance: FloatArray) -> FloatArray:
    """Entropies over the last axis of distributions known with this variance."""
    used = np.maximum(q, 1e-300)
    return np.asarray((-q * np.log(used) + 0.5 * variance / used * (q > 0)).sum(axis=-1))


def js_distance(first: Answers, second: Answers) -> float:
    """Jensen-Shannon distance of two mean distributions: the root of the divergence in bits, in [0, 1], 0 where the bias exceeds it."""
    q = np.stack([first.p.mean(axis=0), second.p.mean(axis=0)])
    variance = np.stack([_sampling_variance(answers).sum(axis=0) / len(answers.p) ** 2 for answers in (first, second)])
    return float(_distances(q, variance)[0, 1])


def js_distances(answers: Answers) -> FloatArray:
    """Jensen-Shannon distances of all pairs of phrasings, shape (n_phrasings, n_phrasings)."""
    return _distances(answers.p, _sampling_variance(answers))


def _distances(q: FloatArray, variance: FloatArray) -> FloatArray:
    own = _corrected(q, variance)
    middle = _corrected((q[:, None] + q[None]) / 2, (variance[:, None] + variance[None]) / 4)
    divergence = (middle - (own[:, None] + own[None]) / 2) / np.log(2)
    np.fill_diagonal(divergence, 0.0)
    return np.asarray(np.sqrt(np.maximum(divergence, 0.0)))


def clusters(answers: Answers, distance: float = CLUSTER_DISTANCE) -> npt.NDArray[np.int64]:
    """Phrasings that give the same distribution share a code `0..k-1`, shape (n_phrasings,).

    Average linkage, cut at this Jensen-Shannon distance; codes in the order of appearance.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(answers.p)
    if n == 1:
        return np.zeros(1, dtype=np.int64)
    code = fcluster(linkage(js_distances(answers)[np.triu_indices(n, 1)], "average"), distance, "distance")
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.int64)
