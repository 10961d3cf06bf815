"""Shapley (LMG) parts of the joint D[O]: what each label adds, averaged over all orders of entry (METHOD 3).

The value of a set of labels is its leave-one-out D[O] (`probes.explained_share`), so all `2^k` sets are needed. They are
visited depth first: every set extends its parent by one label, whose level dummies are made orthonormal to those of the
parent in the small space of coefficients, so that the leverages grow by the new columns only. The fits on everything
and without each prompt go side by side through the same matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from probes.dissimilarity import Contrast
from probes.errors import ShapeError
from probes.explained_share import (
    ALONE,
    SINGULAR,
    Explained,
    center_within_prompt,
    centred_s,
    checked_label,
    design_factor,
    dummies,
    explained,
    leverage_weight,
    normal_equations,
    total_per_prompt,
)

MAX_SHAPLEY = 12
"""Exact Shapley values visit all subsets; more parameters than this are refused."""
_CHUNK_BYTES = 4 * 2**20
_NOBODY = -1


def shapley(contrast: Contrast, labels: Sequence[np.ndarray]) -> list[Explained]:
    """Shapley (LMG) parts of the joint D[O]: each label's mean gain over all orders of entry, exactly.

    Args:
        contrast: n responses.
        labels: At most `MAX_SHAPLEY` labels `(n,)` of ints.

    Returns:
        One `Explained` per label; they add up to the joint one.

    Raises:
        ShapeError: More than `MAX_SHAPLEY` labels, or a label does not have n entries.
    """
    k = len(labels)
    if k > MAX_SHAPLEY:
        raise ShapeError(f"Shapley values: expected at most {MAX_SHAPLEY} parameters, found {k}")
    joint = explained(contrast, labels)
    blocks = [dummies(checked_label(label, contrast)) for label in labels]
    per_prompt = _parts(contrast, blocks, np.array([_NOBODY]))[0]
    if contrast.by_prompt:
        p = contrast.n_prompts
        change_loo = _parts(contrast, blocks, np.arange(p)).sum(axis=2) / (p - 1)
    else:
        change_loo = np.full((joint.change_loo.size, k), np.nan)
        for g in np.flatnonzero(np.isfinite(joint.change_loo)):
            rows = contrast.complete(contrast.group != g)
            change_loo[g] = _parts(contrast.take(rows), [x[rows] for x in blocks], np.array([_NOBODY]))[0].mean(axis=1)
    return [
        Explained(float(per_prompt[j].mean()), joint.total, change_loo[:, j], joint.total_loo, joint.n, joint.n_alone, per_prompt[j])
        for j in range(k)
    ]


def _parts(contrast: Contrast, blocks: Sequence[np.ndarray], left_out: np.ndarray) -> np.ndarray:
    """Shapley parts per prompt, for fits without each of some prompts.

    Args:
        contrast: n responses.
        blocks: Level dummies `(n, c_j)` of each of the k labels.
        left_out: `(g,)` prompt left out of each fit, `_NOBODY` for none.

    Returns:
        `(g, k, n_prompts)`, 0 for the prompt left out.
    """
    out = np.zeros((left_out.size, len(blocks), contrast.n_prompts))
    # a label with a single level adds nothing to any set, and without it the parts of the others are the same
    used = [j for j, x in enumerate(blocks) if x.shape[1]]
    if not used:
        return out
    step = max(1, _CHUNK_BYTES // (8 * contrast.s.size * (1 + max(blocks[j].shape[1] for j in used))))
    for start in range(0, left_out.size, step):
        chunk = slice(start, start + step)
        out[chunk, used] = _Walk(contrast, [blocks[j] for j in used], left_out[chunk]).parts()
    return out


class _Walk:
    """Depth-first walk over all subsets of the labels, for g fits at once.

    Everything is scaled by the root of the leverage weight, so that a leverage is a plain sum of squares. `_basis[:, :o, :o]`
    holds the coefficients of columns that are orthonormal in each fit's metric, for the labels on the current path;
    a direction that the path has already is a column of zeros.
    """

    def __init__(self, contrast: Contrast, blocks: Sequence[np.ndarray], left_out: np.ndarray) -> None:
        order = np.argsort(contrast.prompt, kind="stable")
        p, n, g = contrast.n_prompts, order.size, left_out.size
        self._ends = np.cumsum([0, *(x.shape[1] for x in blocks)])
        k = int(self._ends[-1])
        centred = center_within_prompt(contrast, np.concatenate(blocks, axis=1))
        gram, right = normal_equations(contrast, centred)
        stays = np.arange(p)[None, :] != left_out[:, None]
        self._gram = np.einsum("gp,pkl->gkl", stays.astype(float), gram)
        self._right = stays @ right
        self._tiny = SINGULAR * np.maximum(np.einsum("gkk->gk", self._gram).max(axis=1), np.finfo(float).tiny)[:, None]
        root = np.sqrt(leverage_weight(contrast))[order]
        self._columns = np.ascontiguousarray((centred[order] * root[:, None]).T)
        self._s = centred_s(contrast)[order] * root
        with np.errstate(invalid="ignore", divide="ignore"):
            self._signed = np.where(root > 0, (contrast.weight * centred_s(contrast))[order] / root, 0.0)
        self._first = np.searchsorted(contrast.prompt[order], np.arange(p))
        total = total_per_prompt(contrast)
        self._stays, self._n_stay = stays, stays.sum(axis=1, keepdims=True)
        self._total = (stays @ total)[:, None] / self._n_stay
        self._contrast = contrast
        self._path = np.empty((k, n))
        self._basis = np.zeros((g, k, k))
        self._parts = np.zeros((g, len(blocks), p))

    def parts(self) -> np.ndarray:
        """`(g, k, n_prompts)`; the empty set is worth 0."""
        g, n = self._basis.shape[0], self._s.size
        self._visit(0, [], [], np.zeros((g, 0)), np.zeros((g, n)))
        return self._parts

    def _visit(self, start: int, members: list[int], columns: list[int], beta: np.ndarray, leverage: np.ndarray) -> None:
        """Visit every set that adds labels from `start` on to `members`, whose columns fill the path."""
        for j in range(start, self._ends.size - 1):
            new = range(self._ends[j], self._ends[j + 1])
            wider, fitted, grown = self._extend(columns, list(new), beta, leverage)
            self._count([*members, j], self._values(fitted, grown))
            if j + 2 < self._ends.size:
                self._visit(j + 1, [*members, j], [*columns, *new], wider, grown)

    def _extend(
        self, columns: list[int], new: list[int], beta: np.ndarray, leverage: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients `(g, o+c)`, fit and leverage `(g, n)` with the columns `new`; they are put on the path behind `columns`."""
        o, c = len(columns), len(new)
        gram = self._gram[:, :, new[0] : new[-1] + 1]
        basis = self._basis[:, :o, :o]
        known = basis.transpose(0, 2, 1) @ gram[:, columns]
        size, direction = np.linalg.eigh(gram[:, new] - known.transpose(0, 2, 1) @ known)
        root = np.where(size > self._tiny, 1 / np.sqrt(np.maximum(size, self._tiny)), 0.0)
        own = direction * root[:, None, :]
        added = np.concatenate([-basis @ (known @ own), own], axis=1)
        self._basis[:, :, o : o + c] = 0.0
        self._basis[:, : o + c, o : o + c] = added
        self._path[o : o + c] = self._columns[new]
        slope = np.einsum("gkc,gk->gc", added, self._right[:, [*columns, *new]])
        wider = np.einsum("gkc,gc->gk", added, slope)
        wider[:, :o] += beta
        rows = np.concatenate([added.transpose(2, 0, 1), wider[None]])
        out = (rows.reshape(-1, o + c) @ self._path[: o + c]).reshape(c + 1, *leverage.shape)
        return wider, out[-1], leverage + np.einsum("cgn,cgn->gn", out[:-1], out[:-1])

    def _values(self, fitted: np.ndarray, leverage: np.ndarray) -> np.ndarray:
        """Leave-one-out D[O] per prompt, `(g, n_prompts)`; overwrites `fitted`."""
        rest = 1 - leverage
        alone = rest < ALONE
        fitted -= leverage * self._s
        if alone.any():
            fitted[alone], rest[alone] = 0.0, 1.0
        fitted /= rest
        fitted *= self._signed
        products = np.add.reduceat(fitted, self._first, axis=1) * self._stays
        shown = products.sum(axis=1, keepdims=True) / self._n_stay
        return np.asarray(products * design_factor(self._contrast, shown, self._total))

    def _count(self, members: list[int], value: np.ndarray) -> None:
        """Add a set's value to the parts: for its members as what they complete, against the others as what they would join."""
        k, size = self._parts.shape[1], len(members)
        weight = np.full(k, -_weight(size, k) if size < k else 0.0)
        weight[members] = _weight(size - 1, k)
        self._parts += weight[None, :, None] * value[:, None, :]


def _weight(size: int, k: int) -> float:
    """Part of the orders of k labels in which a given label enters right after a given set of `size` others."""
    return math.factorial(size) * math.factorial(k - size - 1) / math.factorial(k)
