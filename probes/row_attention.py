"""Attention of rows that grow by one token at a time: keys and values stay where they are written, and finished rows are taken out.

A decoding cache as an attention function, like :mod:`probes.tree_attention`: transformers' own cache copies everything at each token.
torch is imported inside functions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from probes.tree_attention import refuse_unknown

NAME = "growing_rows"
BLOCK = 64
"""Room for so many tokens is added at a time."""
_current = threading.local()


class Rows:
    """Keys and values of all layers of some rows, and how many tokens each row has."""

    def __init__(self, lengths: Any) -> None:
        """Begin with prompts of these lengths, shape (n_rows,), padded on the right to the longest."""
        self.lengths = lengths
        self._keys: dict[int, Any] = {}
        self._values: dict[int, Any] = {}
        self._begun = False
        self._widest = int(lengths.max())
        self._masks: dict[int | None, Any] = {}

    def select(self, rows: Any) -> None:
        """Keep these rows, some perhaps several times, in this order."""
        self.lengths = self.lengths[rows]
        self._masks = {}
        for each in (self._keys, self._values):
            for layer, kept in each.items():
                each[layer] = kept[rows]

    def grow(self) -> None:
        """One more token a row is about to be run."""
        self._begun = True
        self.lengths = self.lengths + 1
        self._widest += 1
        self._masks = {}

    def attend(self, layer: int, query: Any, key: Any, value: Any, scaling: float | None, window: int | None) -> Any:
        """Shapes (n_rows, n_heads, n_tokens, head_size), n_tokens that of the longest prompt or 1; so is the result."""
        import torch

        attention = torch.nn.functional.scaled_dot_product_attention
        heads, shared = query.shape[1], key.shape[1]
        if not self._begun:
            self._keys[layer], self._values[layer] = key, value
            seen, said = (each.repeat_interleave(heads // shared, dim=1) if heads > shared else each for each in (key, value))
            mask = self._prompt_mask(query, window)
            return attention(query, seen, said, attn_mask=mask, is_causal=mask is None, scale=scaling)
        keys, values = self._written(layer, key, value)
        # Query heads that share a key head stand where other queries would: one token sees all keys anyway.
        asked = query.reshape(len(query), shared, heads // shared, query.shape[-1])
        found = attention(
            asked, keys[:, :, : self._widest], values[:, :, : self._widest], attn_mask=self._mask(query, window), scale=scaling
        )
        return found.reshape(query.shape)

    def _written(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """The layer's keys and values with those of the new token."""
        import torch

        if self._keys[layer].shape[2] < self._widest:
            for each in (self._keys, self._values):
                each[layer] = torch.nn.functional.pad(each[layer], (0, 0, 0, BLOCK))
        keys, values = self._keys[layer], self._values[layer]
        row = torch.arange(len(key), device=key.device)
        keys[row, :, self.lengths - 1] = key[:, :, 0]
        values[row, :, self.lengths - 1] = value[:, :, 0]
        return keys, values

    def _prompt_mask(self, query: Any, window: int | None) -> Any:
        """None: plain causal attention, which padding on the right does not disturb."""
        if window is None or window >= query.shape[2]:
            return None
        import torch

        place = torch.arange(query.shape[2], device=query.device)
        distance = place[:, None] - place
        return torch.zeros_like(distance, dtype=query.dtype).masked_fill_((distance < 0) | (distance >= window), -torch.inf)

    def _mask(self, query: Any, window: int | None) -> Any:
        """0 for a row's own tokens (the last `window` of them), -inf elsewhere, shape (n_rows, 1, 1, widest); None: all are."""
        import torch

        if window not in self._masks:
            place = torch.arange(self._widest, device=query.device)
            unseen = place >= self.lengths[:, None]
            if window is not None:
                unseen |= place < self.lengths[:, None] - window
            mask = torch.zeros(unseen.shape, dtype=query.dtype, device=query.device).masked_fill_(unseen, -torch.inf)
            self._masks[window] = mask[:, None, None] if bool(unseen.any()) else None
        return self._masks[window]


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, scaling: Any = None, **others: Any
) -> tuple[Any, None]:
    """What a transformers attention layer calls; the result has shape (n_rows, n_tokens, n_heads, head_size)."""
    refuse_unknown(others)
    rows: Rows = _current.rows
    found = rows.attend(module.layer_idx, query, key, value, scaling, others.get("sliding_window"))
    return found.transpose(1, 2).contiguous(), None


@contextmanager
def growing(config: Any, rows: Rows) -> Iterator[None]:
    """Context in which a subject with this configuration attends to these rows; other threads are not touched."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    before = config._attn_implementation
    config._attn_implementation = NAME
    _current.rows = rows
    try:
        yield
    finally:
        config._attn_implementation = before
        del _current.rows
