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
    dummies,
    explained,
    for_fixed_sides,
    leverage_weight,
    normal_equations,
    total_per_prompt,
)
from probes.threads import one_blas_thread

MAX_SHAPLEY = 12
"""Exact Shapley values visit all subsets; more parameters than this are refused."""
_CHUNK_BYTES = 16 * 2**20
_PIECE_BYTES = 2**20
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
    if len(labels) > MAX_SHAPLEY:
        raise ShapeError(f"Shapley values: expected at most {MAX_SHAPLEY} parameters, found {len(labels)}")
    with one_blas_thread():
        return _shapley(contrast, labels)


def _shapley(contrast: Contrast, labels: Sequence[np.ndarray]) -> list[Explained]:
    k = len(labels)
    joint = explained(contrast, labels)
    blocks = [dummies(checked_label(label, contrast)) for label in labels]
    if contrast.by_prompt:
        p = contrast.n_prompts
        parts = _parts(contrast, blocks, np.arange(_NOBODY, p))
        per_prompt, change_loo = parts[0], parts[1:].sum(axis=2) / (p - 1)
    else:
        per_prompt = _parts(contrast, blocks, np.array([_NOBODY]))[0]
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
    step = max(1, _CHUNK_BYTES // (8 * contrast.s.size * len(used)))
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
        self._pieces = _pieces(contrast.prompt[order], max(64, _PIECE_BYTES // (8 * g * (1 + max(x.shape[1] for x in blocks)))))
        total = total_per_prompt(contrast)
        self._stays, self._n_stay = stays, stays.sum(axis=1, keepdims=True)
        self._total = (stays @ total)[:, None] / self._n_stay
        self._contrast = contrast
        self._path = np.empty((k, n))
        self._leverage = np.zeros((len(blocks) + 1, g, n))
        self._basis = np.zeros((g, k, k))
        self._parts = np.zeros((g, len(blocks), p))

    def parts(self) -> np.ndarray:
        """`(g, k, n_prompts)`; the empty set is worth 0."""
        self._visit(0, [], [], np.zeros((self._basis.shape[0], 0)))
        return self._parts

    def _visit(self, start: int, members: list[int], columns: list[int], beta: np.ndarray) -> None:
        """Visit every set that adds labels from `start` on to `members`, whose columns fill the path."""
        for j in range(start, self._ends.size - 1):
            new = list(range(self._ends[j], self._ends[j + 1]))
            added, wider = self._extend(columns, new, beta)
            self._count([*members, j], self._value(added, wider, depth=len(members)))
            self._visit(j + 1, [*members, j], columns + new, wider)

    def _extend(self, columns: list[int], new: list[int], beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put the columns `new` on the path behind `columns`: their orthonormal directions `(g, o+c, c)`, all slopes `(g, o+c)`."""
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
        slope = added.transpose(0, 2, 1) @ self._right[:, columns + new, None]
        wider = (added @ slope)[:, :, 0]
        wider[:, :o] += beta
        return added, wider

    def _value(self, added: np.ndarray, wider: np.ndarray, depth: int) -> np.ndarray:
        """Leave-one-out D[O] per prompt of the labels on the path, `(g, n_prompts)`; keeps their leverages for the next depth."""
        g, width, c = added.shape
        rows = np.concatenate([added.transpose(2, 0, 1), wider[None]]).reshape(-1, width)
        products = np.zeros_like(self._stays, dtype=float)
        for start, stop, prompts, first in self._pieces:
            out = (rows @ self._path[:width, start:stop]).reshape(c + 1, g, -1)
            leverage, left_out = self._leverage[depth + 1, :, start:stop], out[-1]
            np.einsum("cgn,cgn->gn", out[:-1], out[:-1], out=leverage)
            leverage += self._leverage[depth, :, start:stop]
            left_out -= leverage * self._s[start:stop]
            rest = 1 - leverage
            alone = rest < ALONE
            if alone.any():
                left_out[alone], rest[alone] = 0.0, 1.0
            left_out /= rest
            left_out *= self._signed[start:stop]
            products[:, prompts] += np.add.reduceat(left_out, first, axis=1)
        products *= self._stays
        return for_fixed_sides(self._contrast, products, self._total, self._n_stay)

    def _count(self, members: list[int], value: np.ndarray) -> None:
        """Add a set's value to the parts: for its members as what they complete, against the others as what they would join."""
        k, size = self._parts.shape[1], len(members)
        weight = np.full(k, -_weight(size, k) if size < k else 0.0)
        weight[members] = _weight(size - 1, k)
        self._parts += weight[None, :, None] * value[:, None, :]


def _pieces(prompt: np.ndarray, size: int) -> list[tuple[int, int, slice, np.ndarray]]:
    """Runs of rows that fit the processor's cache: start, stop, their prompts, and where in the run each of these starts."""
    out = []
    for start in range(0, prompt.size, size):
        part = prompt[start : start + size]
        prompts = slice(int(part[0]), int(part[-1]) + 1)
        out.append((start, start + part.size, prompts, np.searchsorted(part, np.arange(prompts.start, prompts.stop))))
    return out


def _weight(size: int, k: int) -> float:
    """Part of the orders of k labels in which a given label enters right after a given set of `size` others."""
    return math.factorial(size) * math.factorial(k - size - 1) / math.factorial(k)
