"""The law of a response's next token: the one place from which the sampler draws and by which the likelihoods score.

`log p(x) = log softmax(logits / temperature)[x]`, restricted to the `top_k` most probable tokens and, of these, to the smallest set whose
mass reaches `top_p`, renormalised (the order of transformers' generate). Our own recordings use temperature 1 and no restriction: under a
restricted law another checkpoint can give a response probability 0 (log-probability -inf). torch is imported inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probes.errors import SampleError

BLOCK = 128
"""Tokens whose probabilities are summed first, so that a draw needs no running sum over the whole vocabulary."""


@dataclass(frozen=True)
class Law:
    """How a subject's logits become probabilities.

    Attributes:
        temperature: Above 0.
        top_p: In (0, 1]; 1 keeps every token.
        top_k: 0 keeps every token.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no law.

        Raises:
            SampleError: A value is out of range.
        """
        if not (self.temperature > 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise SampleError(f"expected temperature > 0, top_p in (0, 1] and top_k >= 0, found {self}")

    @property
    def is_plain(self) -> bool:
        """Whether every token keeps its probability: only then has every response one under every checkpoint."""
        return self.top_p == 1.0 and self.top_k == 0

    def logits(self, logits: Any) -> Any:
        """Logits of the law, shape (n, vocabulary), at least float32; -inf where the law forbids a token."""
        import torch

        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        logits = logits / self.temperature if self.temperature != 1.0 else logits
        if self.top_k and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1.0:
            logits = logits.masked_fill(~_nucleus(logits, self.top_p), -torch.inf)
        return logits


def _nucleus(logits: Any, top_p: float) -> Any:
    """Whether a token belongs to the smallest set of most probable tokens with mass of at least `top_p`, shape of `logits`."""
    import torch

    p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    kept = p.cumsum(-1) - p < top_p
    return torch.zeros_like(kept).scatter(-1, order, kept)


def draw_tokens(logits: Any, uniform: Any) -> tuple[Any, Any]:
    """One token from each row of a law's logits, by inversion of its distribution function.

    Args:
        logits: From :meth:`Law.logits`, shape (n, vocabulary).
        uniform: Uniform numbers in [0, 1), shape (n,), float64 on the CPU; they alone decide the draw.

    Returns:
        Token ids and their log-probabilities (nats, float64), each of shape (n,), on the CPU.
    """
    import torch

    total = logits.logsumexp(-1, keepdim=True)
    p = torch.nn.functional.pad((logits - total).exp(), (0, -logits.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    blocks = p.sum(-1).cpu().double().cumsum(-1)
    block, above = _invert(blocks, uniform * blocks[:, -1])
    inside = p[torch.arange(len(p), device=p.device), block.to(p.device)].cpu().double()
    place, _ = _invert(inside.cumsum(-1), above)
    token = block * BLOCK + place
    chosen = logits.gather(1, token.to(logits.device)[:, None]) - total
    return token, chosen[:, 0].cpu().double()


def _invert(cumulative: Any, target: Any) -> tuple[Any, Any]:
    """Index of the first entry above the target, never one of probability 0, and what of the target lies beyond the entry before."""
    import torch

    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())  # rounding may put the target at the very end
    index = torch.minimum(torch.searchsorted(cumulative, target[:, None].contiguous(), right=True), last)
    before = torch.where(index > 0, cumulative.gather(1, (index - 1).clamp(min=0)), torch.zeros_like(target)[:, None])
    return index[:, 0], (target[:, None] - before)[:, 0]
