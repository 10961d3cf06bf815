"""What a label would add to what is explained already, fast enough to ask for hundreds of candidates.

Labels are worth their *gain*: how much the leave-one-out explained share of METHOD 3,

    share(S) = sum_i w_i s_i f_{-i} / sum_i w_i s_i^2 ,   f_{-i} = (f_i - h_i s_i) / (1 - h_i) ,

rises when their level dummies join those of a background in the weighted within-prompt regression of s. The background is
factorised once; a candidate costs one projection. For searching: what is reported comes from `probes.explained_share`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.errors import ShapeError


@dataclass(frozen=True)
class Gain:
    """Rise of the leave-one-out explained share: `estimate` and the standard `error` that within-prompt noise gives it."""

    estimate: float
    error: float

    @property
    def cautious(self) -> float:
        """One standard error below the estimate: what candidates are ranked by."""
        return self.estimate - self.error


class Background:
    """What is explained already: the weighted within-prompt regression of `s` on the levels of some labels.

    Attributes:
        weight: `(n,)`.
        residual: `(n,)` what the labels leave of `s` (fitted in sample).
        share: Their leave-one-out explained share.
    """

    def __init__(self, s: np.ndarray, weight: np.ndarray, prompt: np.ndarray, labels: Sequence[np.ndarray]) -> None:
        """Fit.

        Args:
            s: `(n,)` in [-1, 1], > 0 more probable before.
            weight: `(n,)` > 0.
            prompt: `(n,)` int codes.
            labels: Each `(n,)` int levels.

        Raises:
            ShapeError: The arrays differ in length, or are empty.
        """
        sizes = [len(array) for array in (s, weight, prompt, *labels)]
        if len(set(sizes)) != 1 or not sizes[0]:
            raise ShapeError(f"background: expected s, weight, prompt and labels of one length above 0, found {sizes}")
        self.weight = weight
        self._prompt = np.unique(prompt, return_inverse=True)[1].reshape(-1)
        self._root = np.sqrt(weight)
        self._prompt_weight = np.bincount(self._prompt, weights=weight)
        # Without likelihoods s is the side, which has mean 0 by design: estimating prompt intercepts would bias it (METHOD 3).
        known = not bool(np.all(np.abs(s) == 1))
        self._y = (self._centred(s[:, None])[:, 0] if known else s) * self._root
        self._h0 = weight / self._prompt_weight[self._prompt] if known else np.zeros(len(s))
        self._total = max(float(np.sum(weight * s * s)), 1e-300)
        self._fit(_orthonormal(np.hstack([np.empty((len(s), 0)), *map(self._scaled, labels)])))

    def _fit(self, basis: np.ndarray) -> None:
        self._basis = basis
        self._fitted = basis @ (basis.T @ self._y)
        self._h = self._h0 + np.sum(basis**2, axis=1)
        self._left_out = _left_out(self._fitted, self._h, self._y)
        self.share = float(np.sum(self._y * self._left_out)) / self._total
        self.residual = (self._y - self._fitted) / self._root

    def _centred(self, x: np.ndarray) -> np.ndarray:
        mean = np.empty((len(self._prompt_weight), x.shape[1]))
        for k, column in enumerate(x.T):
            mean[:, k] = np.bincount(self._prompt, weights=self.weight * column) / self._prompt_weight
        return np.asarray(x - mean[self._prompt])

    def _scaled(self, label: np.ndarray) -> np.ndarray:
        found, codes = np.unique(label, return_inverse=True)
        return np.asarray(self._centred(np.eye(len(found))[codes.reshape(-1)][:, 1:]) * self._root[:, None])

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """Columns of `x`, `(n, k)`, centred within prompt, times root weight, less what the background predicts of them."""
        scaled = self._centred(x) * self._root[:, None]
        return np.asarray(scaled - self._basis @ (self._basis.T @ scaled))

    def _added(self, label: np.ndarray) -> np.ndarray:
        scaled = self._scaled(label)
        return _orthonormal(scaled - self._basis @ (self._basis.T @ scaled), floor=1e-8)

    def gain(self, label: np.ndarray) -> Gain:
        """Rise of the explained share when `label`, `(n,)` int levels, joins."""
        basis = self._added(label)
        if basis.shape[1] == 0:
            return Gain(0.0, 0.0)
        fitted = self._fitted + basis @ (basis.T @ self._y)
        part = self._y * (_left_out(fitted, self._h + np.sum(basis**2, axis=1), self._y) - self._left_out)
        mean = np.bincount(self._prompt, weights=part) / np.bincount(self._prompt)
        return Gain(float(part.sum()) / self._total, float(np.sqrt(np.sum((part - mean[self._prompt]) ** 2))) / self._total)

    def with_label(self, label: np.ndarray) -> Background:
        """This background with one label more."""
        joined = object.__new__(Background)
        joined.__dict__.update(self.__dict__)
        joined._fit(np.hstack([self._basis, self._added(label)]))
        return joined

    def partial(self, x: Any) -> np.ndarray:
        """Partial association of each column of `x` with `s` beyond the background, > 0: more of it before.

        Args:
            x: `(n, k)` scipy sparse array.

        Returns:
            `(k,)` t-like `r sqrt(n_eff / (1 - r^2))`, r the partial correlation, `n_eff = (sum w)^2 / sum w^2`.
        """
        from scipy import sparse

        rest = self._centred(self.residual[:, None])[:, 0]
        # The norm of x beyond prompt means and background, from its projections: x itself is never centred, so it stays sparse.
        means = sparse.csr_array((self.weight / np.sqrt(self._prompt_weight)[self._prompt], (np.arange(len(rest)), self._prompt)))
        by_prompt = x.T @ means
        seen = np.asarray((by_prompt * by_prompt).sum(axis=1)).reshape(-1) + np.sum(
            (x.T @ (self._basis * self._root[:, None])) ** 2, axis=1
        )
        squares = np.asarray((x * x).T @ self.weight).reshape(-1)
        spread = np.maximum(squares - seen, 1e-9 * np.maximum(squares, 1e-12))
        r = np.asarray(x.T @ (rest * self.weight)).reshape(-1) / np.sqrt(spread * max(float(self.weight @ rest**2), 1e-300))
        n_eff = self.weight.sum() ** 2 / np.sum(self.weight**2)
        return np.asarray(r * np.sqrt(n_eff / np.maximum(1 - r * r, 1e-6)))


def _orthonormal(columns: np.ndarray, floor: float = 1e-12) -> np.ndarray:
    if columns.shape[1] == 0:
        return columns
    values, vectors = np.linalg.eigh(columns.T @ columns)
    keep = values > max(1e-9 * float(values[-1]), floor)
    return np.asarray(columns @ (vectors[:, keep] / np.sqrt(values[keep])))


def _left_out(fitted: np.ndarray, h: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((fitted - h * y) / np.maximum(1 - h, 1e-6))
