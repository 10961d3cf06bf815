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

_BLOCK_BYTES = 32 * 2**20


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
    order = np.argsort(contrast.prompt, kind="stable")
    prompt, w, s = contrast.prompt[order], contrast.weight[order], contrast.s[order]
    basis = _orthonormal_base(contrast, base)[order]
    mean = np.bincount(prompt, weights=w * s)[prompt]
    residual = s - mean - basis @ (basis.T @ (w * (s - mean)))
    values = np.concatenate([(w * residual)[:, None], w[:, None], w[:, None] * basis], axis=1)
    codes = [np.unique(label, return_inverse=True)[1][order] for label in candidates]
    observed = np.array([_statistics(code[None], prompt, values, code.max())[0] for code in codes])
    permuted = np.empty((len(codes), n_permutations))
    step = max(1, min(n_permutations, _BLOCK_BYTES // (8 * prompt.size)))
    for start in range(0, n_permutations, step):
        shuffled = _permutations(prompt, min(step, n_permutations - start), rng)
        for j, code in enumerate(codes):
            permuted[j, start : start + shuffled.shape[0]] = _statistics(code.astype(np.int8)[shuffled], prompt, values, code.max())
    return _family_wise(observed, permuted)


def _family_wise(observed: np.ndarray, permuted: np.ndarray) -> PermutationTest:
    mean, deviation = permuted.mean(axis=1), permuted.std(axis=1)
    dull = ~(deviation > 0)
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


def _permutations(prompt: np.ndarray, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """`(n_permutations, n)` row indices, shuffled within the runs of equal `prompt` (sorted)."""
    out = np.empty((n_permutations, prompt.size), dtype=np.int32)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(prompt)) + 1, [prompt.size]])
    for a, b in pairwise(bounds.tolist()):
        keys = rng.random((n_permutations, b - a), dtype=np.float32)
        out[:, a:b] = np.argsort(keys, axis=1)
        out[:, a:b] += a
    return out


def _statistics(codes: np.ndarray, prompt: np.ndarray, values: np.ndarray, top: int) -> np.ndarray:
    """T for each row of `codes (m, n)` with levels `0..top`; `values` = [w r, w, w basis], sorted by prompt."""
    m = codes.shape[0]
    if top == 0:
        return np.zeros(m)
    sums = np.empty((m, top, values.shape[1]))  # sums of every value column over the responses at each level
    between = np.zeros((m, top, top))
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(prompt)) + 1, [prompt.size]])
    for level in range(top):
        member = (codes == level).astype(np.float64)
        sums[:, level] = member @ values
        mass = np.add.reduceat(member * values[:, 1], bounds[:-1], axis=1)
        if level == 0:
            masses = np.empty((top, *mass.shape))
        masses[level] = mass
    between = np.einsum("amp,bmp->mab", masses, masses)
    u, projected = sums[:, :, 0], sums[:, :, 2:]
    gram = -between - np.einsum("mak,mbk->mab", projected, projected)
    diagonal = np.arange(top)
    gram[:, diagonal, diagonal] += sums[:, :, 1]
    inverse = np.linalg.pinv(gram, rcond=1e-9, hermitian=True)
    return np.asarray(np.einsum("ma,mab,mb->m", u, inverse, u) / (prompt[-1] + 1))
