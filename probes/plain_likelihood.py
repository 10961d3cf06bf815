"""Log-probabilities the plain way: the subject's own forward pass over every prompt and response, nothing shared.

Right for every causal language model, whatever its architecture: it is what the engine falls back to, and what it is compared with. torch
is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.law import Law
from probes.request import Request


def plain_batches(requests: Sequence[Request], tokens_per_batch: int = 2048) -> list[list[int]]:
    """Indices of requests by length, as many in a batch as fit into the budget of tokens, padding included."""
    batches: list[list[int]] = []
    for row in sorted(range(len(requests)), key=lambda row: len(requests[row].prompt + requests[row].response)):
        width = len(requests[row].prompt + requests[row].response)
        if not batches or (len(batches[-1]) + 1) * width > tokens_per_batch:
            batches.append([])
        batches[-1].append(row)
    return batches


def plain_log_likelihoods(
    subject: Any, requests: Sequence[Request], prefixes: Sequence[int] = (), law: Law | None = None, tokens_per_batch: int = 2048
) -> npt.NDArray[np.float64]:
    """Log-probabilities of responses under the subject as it is now.

    Args:
        subject: A causal language model of transformers (or peft) in evaluation mode.
        requests: What is scored.
        prefixes: Prefix lengths in tokens.
        law: The law they were sampled by; None: temperature 1, nothing else.
        tokens_per_batch: Budget of tokens, padding included; a longer text is a batch of its own.

    Returns:
        Nats, shape (n_requests, 1 + len(prefixes)): the whole response, then its first `prefixes[k]` tokens.
    """
    import torch

    law = law or Law()
    found = np.full((len(requests), 1 + len(prefixes)), np.nan)
    device = next(subject.parameters()).device
    with torch.inference_mode():
        for rows in plain_batches(requests, tokens_per_batch):
            texts = [requests[row].prompt + requests[row].response for row in rows]
            width = max(map(len, texts))
            # Padding stands on the right, so a causal model does not see it.
            tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
            logits = subject(input_ids=tokens, use_cache=False).logits
            for row, text, of_row in zip(rows, texts, logits, strict=True):
                start = len(requests[row].prompt)
                scored = law.logits(of_row[start - 1 : len(text) - 1])
                chosen = scored.gather(1, torch.tensor(text[start:], device=device)[:, None])[:, 0] - scored.logsumexp(-1)
                sums = chosen.cpu().double().cumsum(0).numpy()
                found[row] = [sums[-1], *(sums[min(prefix, len(sums)) - 1] for prefix in prefixes)]
    return found
