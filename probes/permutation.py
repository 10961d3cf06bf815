"""Is a candidate's gain in joint share more than chance? Conditional permutation with maxT over a round (METHOD 4).

The labels of all candidates of a round are permuted together within each prompt, against s and its weight. The test
statistic is the gain in explained D given the base labels (length bins and the accepted set): with X the level dummies,
residualised on prompts and base, `T = (X'Wr)' (X'WX)^+ (X'Wr)`. Each candidate's T is standardised by its own
permutation mean and deviation, and the maximum over the candidates gives family-wise p-values (Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from probes.dissimilarity import Contrast
from probes.explained_share import center_within_prompt, dummies
from probes.threads import one_blas_thread

_BLOCK_BYTES = 16 * 2**20
_SINGULAR = 1e-9
"""Directions of a candidate of which the base leaves less than this part count as explained already."""
_ROUNDING = 1e-10
_NOTHING = 1e-12
"""Variance (per prompt) that rounding leaves of a candidate that is constant within every prompt."""


@dataclass(frozen=True)
class PermutationTest:
    """Family-wise result for the candidates of one round.

    Attributes:
        p_value: `(n_candidates,)` maxT p-values, in [1/(n_permutations+1), 1].
        marginal_p_value: `(n_candidates,)` p-values of each candidate alone.
        z: `(n_candidates,)` statistic standardised by its permutation distribution.
        null_mean, null_deviation: `(n_candidates,)` of the gain in D[O] under permutation (plug-in scale).
        n_permutations: Permutations drawn.
    """

    p_value: np.ndarray
    marginal_p_value: np.ndarray
    z: np.ndarray
    null_mean: np.ndarray
    null_deviation: np.ndarray
    n_permutations: int


def conditional_permutation(
    contrast: Contrast,
    base: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    rng: np.random.Generator,
    n_permutations: int = 2000,
) -> PermutationTest:
    """Test every candidate's gain over the base labels by permuting candidate labels within prompt.

    Args:
        contrast: n responses with s, weights and prompts.
        base: Labels `(n,)` already accounted for.
        candidates: Labels `(n,)` under test, at least one; a candidate with a single level gets p = 1.
        rng: Source of the permutations.
        n_permutations: At least 1.

    Returns:
        p-values and the permutation moments.
    """
    with one_blas_thread():
        return _permuted(contrast, base, candidates, rng, n_permutations)


def _permuted(
    contrast: Contrast, base: Sequence[np.ndarray], candidates: Sequence[np.ndarray], rng: np.random.Generator, n_permutations: int
) -> PermutationTest:
    order = np.argsort(contrast.prompt, kind="stable")
    prompt, w, s = contrast.prompt[order], contrast.weight[order], contrast.s[order]
    basis = _orthonormal_base(contrast, base)[order]
    mean = np.bincount(prompt, weights=w * s)[prompt]
    residual = s - mean - basis @ (basis.T @ (w * (s - mean)))
    values = np.concatenate([(w * residual)[:, None], w[:, None], w[:, None] * basis], axis=1)
    codes = [_levels(label)[order] for label in candidates]
    bounds = np.flatnonzero(np.diff(prompt, prepend=-1, append=-1))
    blocks = [slice(a, b) for a, b in pairwise(bounds.tolist())]
    statistics = [_Statistic(values, blocks, code) for code in codes]
    unmoved = [np.arange(block.stop - block.start)[None] for block in blocks]
    observed = np.array([statistic.of(unmoved)[0] for statistic in statistics])
    permuted = np.empty((len(codes), n_permutations))
    step = max(1, min(n_permutations, _BLOCK_BYTES // (8 * prompt.size)))
    for start in range(0, n_permutations, step):
        m = min(step, n_permutations - start)
        shuffled = [_shuffles(block.stop - block.start, m, rng) for block in blocks]
        for j, statistic in enumerate(statistics):
            permuted[j, start : start + m] = statistic.of(shuffled)
    return _family_wise(observed, permuted)


def _levels(label: np.ndarray) -> np.ndarray:
    """Codes of the levels from 0, in the smallest type: they are gathered millions of times."""
    code = np.unique(label, return_inverse=True)[1]
    return np.asarray(code.astype(np.min_scalar_type(int(code.max()))))


def _family_wise(observed: np.ndarray, permuted: np.ndarray) -> PermutationTest:
    mean, deviation = permuted.mean(axis=1), permuted.std(axis=1)
    # a label that no permutation changes (a level for every response) differs by rounding only
    dull = ~(deviation > _ROUNDING * np.abs(mean))
    scale = np.where(dull, 1.0, deviation)
    z = np.where(dull, 0.0, (observed - mean) / scale)
    z_null = np.where(dull[:, None], -np.inf, (permuted - mean[:, None]) / scale[:, None])
    n = permuted.shape[1]
    # step-down maxT: each candidate is held against the largest among itself and those behind it
    ranked = np.argsort(-np.where(dull, -np.inf, z), kind="stable")
    behind = np.maximum.accumulate(z_null[ranked][::-1], axis=0)[::-1]
    p = np.array([(1 + np.sum(behind[k] >= z[j] - 1e-12)) / (n + 1) for k, j in enumerate(ranked)])
    p_value = np.empty_like(p)
    p_value[ranked] = np.maximum.accumulate(p)
    marginal = (1 + np.sum(z_null >= z[:, None] - 1e-12, axis=1)) / (n + 1)
    p_value[dull], marginal[dull] = 1.0, 1.0
    return PermutationTest(p_value, marginal, z, mean, deviation, n)


def _orthonormal_base(contrast: Contrast, base: Sequence[np.ndarray]) -> np.ndarray:
    """`(n, k)` columns spanning the base labels centred within prompt, orthonormal under the weights."""
    if not base:
        return np.empty((contrast.s.size, 0))
    x = center_within_prompt(contrast, np.concatenate([dummies(label) for label in base], axis=1))
    root = np.sqrt(contrast.weight)[:, None]
    u, size, _ = np.linalg.svd(root * x, full_matrices=False)
    kept = size > 1e-9 * max(size.max(initial=0.0), 1e-300)
    return np.asarray(u[:, kept] / root)


def _shuffles(size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`(n, size)` random orders of `0..size-1`: sorting random numbers that carry their place in the lowest bits is fastest."""
    place = np.uint64((1 << size.bit_length()) - 1)
    keys = rng.integers(0, np.iinfo(np.uint64).max, (n, size), dtype=np.uint64, endpoint=True)
    keys &= ~place
    keys |= np.arange(size, dtype=np.uint64)
    keys.sort(axis=1)
    keys &= place
    return keys.view(np.int64)


class _Statistic:
    """T of one candidate under many permutations.

    Args of the constructor: `values (n, 2 + k)` = [w r, w, w basis], sorted by prompt; the rows of each prompt; level codes `(n,)`
    from 0, of which the last needs no column.
    """

    def __init__(self, values: np.ndarray, blocks: Sequence[slice], code: np.ndarray) -> None:
        self._values, self._blocks, self._code, self._top = values, blocks, code, int(code.max())
        # variance of each level before the base is taken out: what is left of it decides whether the base has it already
        mass = np.array([np.bincount(code[block], weights=values[block, 1], minlength=self._top + 1) for block in blocks])
        self._least = _SINGULAR * float((mass - mass**2).sum(axis=0).max()) + _NOTHING * len(blocks)

    def of(self, shuffled: Sequence[np.ndarray]) -> np.ndarray:
        """T for each row of `shuffled`, one array `(m, n_responses)` of row orders per prompt; returns `(m,)`."""
        m, top, width = shuffled[0].shape[0], self._top, self._values.shape[1]
        if top == 0:
            return np.zeros(m)
        sums, between = np.zeros((m, top, width)), np.zeros((m, top, top))
        for block, order in zip(self._blocks, shuffled, strict=True):
            member = np.empty((m, top, order.shape[1]))
            code = np.take(self._code[block], order)
            for level in range(top):
                np.equal(code, level, out=member[:, level], casting="unsafe")
            part = (member.reshape(m * top, -1) @ self._values[block]).reshape(m, top, width)
            sums += part
            between += part[:, :, 1, None] * part[:, None, :, 1]
        projected = sums[:, :, 2:]
        gram = -between - projected @ projected.transpose(0, 2, 1)
        diagonal = np.arange(top)
        gram[:, diagonal, diagonal] += sums[:, :, 1]
        size, direction = np.linalg.eigh(gram)
        along = np.einsum("mkl,mk->ml", direction, sums[:, :, 0])
        known = size > self._least
        return np.asarray(np.sum(np.where(known, along**2 / np.where(known, size, 1.0), 0.0), axis=1) / len(self._blocks))
