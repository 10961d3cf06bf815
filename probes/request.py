"""What is scored: the token ids of a prompt and of a response to it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Request:
    """Token ids of a prompt, ready for the answer, and of a response to it, stop token included."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


def distinct(items: Iterable[Hashable]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of the first of each distinct item, shape (n_distinct,), and each item's place among them, shape (n,)."""
    places: dict[Hashable, int] = {}
    first: list[int] = []
    inverse: list[int] = []
    for index, item in enumerate(items):
        if item not in places:
            places[item] = len(first)
            first.append(index)
        inverse.append(places[item])
    return np.array(first, dtype=np.int64), np.array(inverse, dtype=np.int64)
