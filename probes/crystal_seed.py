"""The seed of a nucleation: which earlier answers did the later ones grow from (METHOD 6)?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.finite_choice import Answers, clusters, entropy, js_distance

FloatArray = npt.NDArray[np.float64]
EXACT_PERMUTATIONS = 6
PERMUTATIONS = 1000


@dataclass(frozen=True)
class Seed:
    """The earlier promptable distribution that the later answers are nearest to.

    Attributes:
        phrasings: The phrasings of its cluster.
        distribution: Their mean.
        distance: Jensen-Shannon distance in [0, 1] to the later plain answers.
        null_distance: Median of the same with the options of the later answers permuted.
        p: Part of the permutations that come as near.
        top: Its most probable options, as many as the later answers have in use.
        crystal: The same of the later answers themselves.
    """

    phrasings: tuple[str, ...]
    distribution: tuple[float, ...]
    distance: float
    null_distance: float
    p: float
    top: tuple[str, ...]
    crystal: tuple[str, ...]


def find_seed(
    earlier: Answers, names: Sequence[str], later: Answers, options: Sequence[str], rng: np.random.Generator, distance: float
) -> Seed:
    """The cluster of earlier phrasings nearest to the later answers, against these answers with their options permuted.

    Args:
        earlier: Answers of the earlier stage, one per phrasing.
        names: Of its phrasings.
        later: Plain answers of the later stage (their mean is used).
        options: Names of the options.
        rng: Draws the permutations where there are too many to try all.
        distance: Jensen-Shannon distance of the clusters.
    """
    code = clusters(earlier, distance)
    groups = [np.flatnonzero(code == k) for k in range(code.max() + 1)]
    centres = np.stack([earlier.p[group].mean(axis=0) for group in groups])
    final = later.p.mean(axis=0)
    orders = _orders(len(options), rng)
    null = _plug_in_divergence(centres, final[orders]).min(axis=0)
    nearest = int(np.argmin(_plug_in_divergence(centres, final[None])[:, 0]))
    group = groups[nearest]
    found = Answers(earlier.p[group], earlier.n[group])
    count = max(1, min(len(options) - 1, round(math.exp(entropy(later)))))
    return Seed(
        tuple(names[k] for k in group.tolist()),
        tuple(centres[nearest].tolist()),
        js_distance(found, later),
        float(np.sqrt(np.median(null))),
        float(np.mean(null <= null[0] + 1e-12)),
        _top(centres[nearest], count, options),
        _top(final, count, options),
    )


def _top(distribution: FloatArray, count: int, options: Sequence[str]) -> tuple[str, ...]:
    return tuple(options[k] for k in sorted(np.argsort(-distribution, kind="stable")[:count].tolist()))


def _orders(n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Permutations of n options, the identity first: all of them, or as many as `PERMUTATIONS` at random."""
    if n <= EXACT_PERMUTATIONS:
        return np.array(list(itertools.permutations(range(n))))
    drawn = rng.permuted(np.tile(np.arange(n), (PERMUTATIONS - 1, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn])


def _plug_in_divergence(first: FloatArray, second: FloatArray) -> FloatArray:
    """Jensen-Shannon divergence in bits of every row of `first (a, k)` with every row of `second (b, k)`, shape (a, b)."""
    from scipy.special import entr

    middle = (first[:, None] + second[None]) / 2
    divergence = entr(middle).sum(axis=2) - (entr(first).sum(axis=1)[:, None] + entr(second).sum(axis=1)[None]) / 2
    return np.asarray(np.maximum(divergence, 0.0) / np.log(2))
