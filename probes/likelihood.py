"""Scoring: the log-probability of a response, whole and of its first tokens, by exactly the law it was sampled from.

`log P(x|q) = sum_i log softmax(logits_i / temperature)[x_i]` over the response's tokens, stop token included, in nats. A response cut at
max_tokens carries no stop token and is scored as the event "begins so". torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError


@dataclass(frozen=True)
class Request:
    """Token ids of a prompt, ready for the answer, and of a response to it, stop token included."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Responses to one prompt, of similar length, scored in one forward pass.

    Attributes:
        rows: Which requests these are, shape (n,).
        prompt: Token ids of the common prompt, shape (p,).
        responses: Token ids padded on the right with 0, shape (n, r).
        lengths: Number of tokens of each response, shape (n,).
    """

    rows: npt.NDArray[np.int64]
    prompt: npt.NDArray[np.int64]
    responses: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


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


def plan(requests: Sequence[Request], tokens_per_batch: int = 1024) -> list[Batch]:
    """Group requests by prompt, so that a prompt is run once a batch, and sort by length, so that little is padding.

    Args:
        requests: What is to be scored; plan once, score under many checkpoints.
        tokens_per_batch: Budget of response tokens, padding included; a longer response is a batch of its own.

    Raises:
        SampleError: A prompt or a response is empty: even an empty answer has its stop token.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, request in enumerate(requests):
        if not request.prompt or not request.response:
            raise SampleError(f"expected a prompt and a response with at least the stop token, found an empty one at request {row}")
        groups.setdefault(request.prompt, []).append(row)
    batches = []
    for prompt, members in groups.items():
        rows: list[int] = []
        for row in sorted(members, key=lambda row: len(requests[row].response)):
            if rows and (len(rows) + 1) * len(requests[row].response) > tokens_per_batch:
                batches.append(_batch(requests, prompt, rows))
                rows = []
            rows.append(row)
        batches.append(_batch(requests, prompt, rows))
    return batches


def log_likelihoods(
    subject: Any, batches: Sequence[Batch], prefixes: Sequence[int] = (), temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """Log-probabilities of all planned responses under the subject as it is now.

    Args:
        subject: A causal language model of transformers (or peft) in evaluation mode; its dtype is the dtype of the logits.
        batches: From :func:`plan`.
        prefixes: Prefix lengths in tokens.
        temperature: That of the sampling.

    Returns:
        Nats, shape (n_requests, 1 + len(prefixes)), in the order of the requests: the whole response, then its first `prefixes[k]`
        tokens (the whole response when it is shorter). Sums are taken in float64.

    Raises:
        SampleError: A log-probability is NaN (the subject's weights are broken).
    """
    import torch

    scores = np.full((sum(len(batch.rows) for batch in batches), 1 + len(prefixes)), np.nan)
    with torch.inference_mode():
        for batch in batches:
            cumulative = np.cumsum(_token_log_probabilities(subject, batch, temperature), axis=1)
            for column, prefix in enumerate((None, *prefixes)):
                last = batch.lengths if prefix is None else np.minimum(batch.lengths, prefix)
                scores[batch.rows, column] = np.take_along_axis(cumulative, last[:, None] - 1, axis=1)[:, 0]
    if np.isnan(scores).any():
        raise SampleError(f"expected log-probabilities, found NaN for {int(np.isnan(scores).any(axis=1).sum())} responses")
    return scores


def _token_log_probabilities(subject: Any, batch: Batch, temperature: float) -> npt.NDArray[np.float64]:
    """Nats of every token, shape (n, r); what stands at padding has no meaning."""
    import torch

    n, width = batch.responses.shape
    device = next(subject.parameters()).device
    responses = torch.from_numpy(batch.responses).to(device)
    start = subject(input_ids=torch.from_numpy(batch.prompt).to(device)[None], use_cache=True, logits_to_keep=1)
    logits = start.logits.expand(n, 1, -1)
    if width > 1:
        start.past_key_values.batch_repeat_interleave(n)
        position = torch.arange(len(batch.prompt), len(batch.prompt) + width - 1, device=device)[None].expand(n, -1)
        # Padding stands on the right, so causal attention keeps it out without a mask.
        rest = subject(input_ids=responses[:, :-1], position_ids=position, past_key_values=start.past_key_values, use_cache=True)
        logits = torch.cat([logits, rest.logits], 1)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    logits = logits / temperature if temperature != 1.0 else logits
    chosen = logits.gather(2, responses[:, :, None])[:, :, 0]
    found: npt.NDArray[np.float64] = (chosen - logits.logsumexp(-1)).double().cpu().numpy()
    return found


def _batch(requests: Sequence[Request], prompt: tuple[int, ...], rows: Sequence[int]) -> Batch:
    lengths = np.array([len(requests[row].response) for row in rows])
    responses = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for k, row in enumerate(rows):
        responses[k, : lengths[k]] = requests[row].response
    return Batch(np.array(rows), np.array(prompt), responses, lengths)
