"""Attention over a tree of tokens that lie in one row, as an attention function that every transformers architecture can be told to use.

The subject's own layers run on all nodes at once; only here is looked up what each node may see. torch is imported inside functions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.errors import SampleError
from probes.token_tree import Pack, Segments

NAME = "token_tree"
UNKNOWN = ("softcap", "s_aux", "sinks", "position_bias", "alibi")
"""Arguments by which an architecture changes attention in ways that are not done here."""
_current = threading.local()


@dataclass(frozen=True)
class _Group:
    """One attention call: where queries and keys are, and what they may see.

    Attributes:
        queries, keys: Nodes, flattened, shape (n * q,) and (n * k,).
        shape: n, q, k.
        starts: Places of the first queries in their texts, shape (n,) or, where all are the same, (1,); None: 0 for all.
        real: Which of the queries are no padding; None: all are.
        nodes: The nodes of the real queries.
    """

    queries: Any
    keys: Any
    shape: tuple[int, int, int]
    starts: Any
    real: Any
    nodes: Any

    def mask(self, dtype: Any, window: int | None) -> Any:
        """0 for what a query may see, itself and up to `window` - 1 tokens before it, else -inf; None for plain causal attention."""
        import torch

        _, q, k = self.shape
        narrow = window is not None and window < k
        if self.starts is None and not narrow:
            return None
        device = self.queries.device
        starts = torch.zeros(1, dtype=torch.long, device=device) if self.starts is None else self.starts
        distance = starts[:, None, None] + torch.arange(q, device=device)[:, None] - torch.arange(k, device=device)
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)[:, None]


class Layout:
    """Where the nodes of a pack stand, as tensors on the subject's device."""

    def __init__(self, pack: Pack, device: Any) -> None:
        import torch

        self.tokens = torch.from_numpy(pack.tokens).to(device)
        self.positions = torch.from_numpy(pack.positions).to(device)
        self._groups = [_group(segments, device) for segments in pack.segments]

    def attend(self, query: Any, key: Any, value: Any, scaling: float | None, window: int | None, masks: dict[Any, Any]) -> Any:
        """Attention of every node, shape (n_nodes, n_heads, head_size); arguments have shape (n_heads, n_nodes, head_size).

        Masks are made once in a forward pass, kept in `masks` and not any longer.
        """
        import torch

        rows, columns, contents = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for index, group in enumerate(self._groups):
            n, q, k = group.shape
            asked = _take(rows, group.queries, n, q)
            seen, said = (_repeated(_take(each, group.keys, n, k), query.shape[0]) for each in (columns, contents))
            if (index, window) not in masks:
                masks[index, window] = group.mask(query.dtype, window)
            mask = masks[index, window]
            found = torch.nn.functional.scaled_dot_product_attention(
                asked, seen, said, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
            flat = found.transpose(1, 2).reshape(n * q, *out.shape[1:])
            out.index_copy_(0, group.nodes, flat if group.real is None else flat[group.real])
        return out


def _group(segments: Segments, device: Any) -> _Group:
    import torch

    n, q = segments.queries.shape
    real = np.arange(q) < segments.lengths[:, None]
    padded = not real.all()
    same = (segments.starts == segments.starts[0]).all()
    starts = None if same and segments.starts[0] == 0 else torch.from_numpy(segments.starts[: 1 if same else n]).to(device)
    return _Group(
        queries=torch.from_numpy(segments.queries.ravel()).to(device),
        keys=torch.from_numpy(segments.keys.ravel()).to(device),
        shape=(n, q, segments.keys.shape[1]),
        starts=starts,
        real=torch.from_numpy(np.flatnonzero(real)).to(device) if padded else None,
        nodes=torch.from_numpy(segments.queries[real]).to(device),
    )


def _take(rows: Any, index: Any, n: int, width: int) -> Any:
    """Rows of shape (n_nodes, n_heads, head_size) as (n, n_heads, width, head_size)."""
    return rows.index_select(0, index).view(n, width, *rows.shape[1:]).transpose(1, 2)


def _repeated(heads: Any, n_heads: int) -> Any:
    """Key or value heads that several query heads share, once for each of these."""
    times = n_heads // heads.shape[1]
    return heads.repeat_interleave(times, dim=1) if times > 1 else heads


def refuse_unknown(arguments: dict[str, Any]) -> None:
    """Stop at an architecture whose attention does more than is done here.

    Raises:
        SampleError: It passes an argument of `UNKNOWN`.
    """
    found = [name for name in UNKNOWN if arguments.get(name) is not None]
    if found:
        raise SampleError(f"expected plain attention, found {', '.join(found)}")


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, scaling: Any = None, **others: Any
) -> tuple[Any, None]:
    """What a transformers attention layer calls; shapes (1, n_heads, n_nodes, head_size), result (1, n_nodes, n_heads, head_size)."""
    refuse_unknown(others)
    layout: Layout = _current.layout
    return layout.attend(query[0], key[0], value[0], scaling, others.get("sliding_window"), _current.masks)[None], None


@contextmanager
def attending(config: Any, layout: Layout) -> Iterator[None]:
    """Context in which a subject with this configuration attends along the layout; other threads are not touched."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    before = config._attn_implementation
    config._attn_implementation = NAME
    _current.layout, _current.masks = layout, {}
    try:
        yield
    finally:
        config._attn_implementation = before
        del _current.layout, _current.masks
