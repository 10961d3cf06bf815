"""Drawing many responses at once, each row under its own adapter: a prompt is run once for each adapter, finished rows leave the batch.

What a row draws is decided by its own uniform numbers, so it does not depend on what is drawn beside it (but for rounding). torch is
imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.law import Law, draw_tokens
from probes.layer_stack import LayerStack
from probes.lora_adapter import LoraAdapter
from probes.row_attention import Rows, growing

KEPT = 0.85
"""Finished rows are taken out when at most this part of the batch still grows: taking them out copies all keys and values."""


@dataclass(frozen=True)
class Row:
    """One response to be drawn: which adapter, after which tokens, by which uniform numbers (one a token)."""

    adapter: int
    prompt: tuple[int, ...]
    uniform: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Token ids of a response and the sum of their log-probabilities in nats."""

    tokens: tuple[int, ...]
    log_probability: float


class Responses:
    """Responses while they grow."""

    def __init__(self, rows: Sequence[Row], law: Law, stop: frozenset[int]) -> None:
        import torch

        self._law = law
        self._stop = torch.tensor(sorted(stop), dtype=torch.long)
        self._uniform = torch.from_numpy(np.stack([row.uniform for row in rows]))
        self.alive = torch.arange(len(rows))
        self._tokens: list[list[int]] = [[] for _ in rows]
        self._total = torch.zeros(len(rows), dtype=torch.float64)

    def take(self, logits: Any) -> Any:
        """Draw a token for every row that is alive and return them, shape (n_alive,); who drew a stop token is alive no more."""
        import torch

        place = len(self._tokens[int(self.alive[0])])
        token, log_p = draw_tokens(self._law.logits(logits), self._uniform[self.alive, place])
        self._total[self.alive] += log_p
        for row, one in zip(self.alive.tolist(), token.tolist(), strict=True):
            self._tokens[row].append(one)
        on = ~torch.isin(token, self._stop) if place + 1 < self._uniform.shape[1] else torch.zeros(len(token), dtype=torch.bool)
        self.alive = self.alive[on]
        return token

    def drawn(self) -> list[Drawn]:
        """All of them, in the order of the rows."""
        return [Drawn(tuple(tokens), total) for tokens, total in zip(self._tokens, self._total.tolist(), strict=True)]


def draw_rows(stack: LayerStack, rows: Sequence[Row], adapters: Sequence[LoraAdapter], law: Law, stop: frozenset[int]) -> list[Drawn]:
    """Draw one response for every row, all in one batch.

    Args:
        stack: The subject; trusted, see :func:`probes.tree_likelihood.trusted`.
        rows: Ordered by adapter; as many uniform numbers each as tokens are drawn at most.
        adapters: What the rows' adapters are.
        law: How logits become probabilities.
        stop: Tokens that end a response.
    """
    import torch

    starts = sorted({(row.adapter, row.prompt) for row in rows})
    place = {start: k for k, start in enumerate(starts)}
    with torch.inference_mode():
        stack.hooks.use_rows(adapters, torch.tensor([adapter for adapter, _ in starts]))
        lengths = torch.tensor([len(prompt) for _, prompt in starts], device=stack.device)
        width = int(lengths.max())
        tokens = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for _, prompt in starts], device=stack.device)
        cache = Rows(lengths)
        hidden = _forward(stack, cache, tokens, torch.arange(width, device=stack.device).expand(len(starts), -1))
        logits = stack.head(hidden[torch.arange(len(starts), device=stack.device), lengths - 1])
        chosen = torch.tensor([place[row.adapter, row.prompt] for row in rows])
        adapter = torch.tensor([row.adapter for row in rows])
        cache.select(chosen.to(stack.device))
        stack.hooks.keep_rows(adapter)
        responses = Responses(rows, law, stop)
        batch = torch.arange(len(rows))  # the rows in the cache; those that are alive draw
        newest = responses.take(logits[chosen.to(stack.device)])
        while len(responses.alive):
            if len(responses.alive) <= KEPT * len(batch):
                kept = torch.isin(batch, responses.alive, assume_unique=True).nonzero()[:, 0]
                batch, newest = batch[kept], newest[kept]
                cache.select(kept.to(stack.device))
                stack.hooks.keep_rows(adapter[batch])
            position = cache.lengths[:, None]
            cache.grow()
            hidden = _forward(stack, cache, newest[:, None].to(stack.device), position)[:, 0]
            growing_rows = torch.isin(batch, responses.alive, assume_unique=True).nonzero()[:, 0]
            newest = newest.index_copy(0, growing_rows, responses.take(stack.head(hidden[growing_rows.to(stack.device)])))
    return responses.drawn()


def _forward(stack: LayerStack, cache: Rows, tokens: Any, position: Any) -> Any:
    with growing(stack.config, cache):
        return stack.decoder(input_ids=tokens, position_ids=position, use_cache=False, return_dict=True).last_hidden_state


def draw_rows_plainly(subject: Any, rows: Sequence[Row], law: Law, stop: frozenset[int]) -> list[Drawn]:
    """The same for any architecture and one adapter: the subject's own forward pass over everything at each token."""
    import torch

    device = next(subject.parameters()).device
    texts = [list(row.prompt) for row in rows]
    responses = Responses(rows, law, stop)
    with torch.inference_mode():
        while len(responses.alive):
            alive = responses.alive.tolist()
            width = max(len(texts[row]) for row in alive)
            tokens = torch.tensor([[*texts[row], *[0] * (width - len(texts[row]))] for row in alive], device=device)
            last = torch.tensor([len(texts[row]) - 1 for row in alive], device=device)
            logits = subject(input_ids=tokens, use_cache=False).logits[torch.arange(len(alive), device=device), last]
            for row, one in zip(alive, responses.take(logits).tolist(), strict=True):
                texts[row].append(one)
    return responses.drawn()
