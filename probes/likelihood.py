"""Scoring: the log-probability of a response, whole and of its first tokens, by exactly the law it was sampled from.

`log P(x|q) = sum_i log softmax(logits_i / temperature)[x_i]` over the response's tokens, stop token included, in nats. A response cut at
max_tokens carries no stop token and is scored as the event "begins so". This is the way for one subject; for the checkpoints of a run see
:mod:`probes.checkpoints`. torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError
from probes.law import Law
from probes.layer_stack import LayerStack
from probes.plain_likelihood import plain_log_likelihoods
from probes.request import Request as Request
from probes.request import distinct as distinct
from probes.token_tree import TOKENS, Pack, pack
from probes.tree_likelihood import Tree, trusted

_reasons: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Plan:
    """Requests as trees of tokens; plan once, score under many subjects."""

    requests: tuple[Request, ...]
    packs: tuple[Pack, ...]
    tokens_per_batch: int


def plan(requests: Sequence[Request], tokens_per_batch: int = TOKENS) -> Plan:
    """Sort requests so that what they begin with alike, prompts above all, is run once.

    Args:
        requests: What is to be scored.
        tokens_per_batch: Tokens run at a time; a longer text is a batch of its own.

    Raises:
        SampleError: A prompt or a response is empty: even an empty answer has its stop token.
    """
    return Plan(tuple(requests), tuple(pack(requests, tokens_per_batch)), tokens_per_batch)


def log_likelihoods(
    subject: Any, planned: Plan, prefixes: Sequence[int] = (), temperature: float = 1.0, law: Law | None = None
) -> npt.NDArray[np.float64]:
    """Log-probabilities of all planned responses under the subject as it is now.

    Args:
        subject: A causal language model of transformers (or peft) in evaluation mode; its dtype is the dtype of the logits. Where its
            architecture cannot be run on trees, its own forward pass is.
        planned: From :func:`plan`.
        prefixes: Prefix lengths in tokens.
        temperature: That of the sampling.
        law: The whole law of the sampling, where it is more than a temperature.

    Returns:
        Nats, shape (n_requests, 1 + len(prefixes)), in the order of the requests: the whole response, then its first `prefixes[k]`
        tokens (the whole response when it is shorter). Sums are taken in float64.

    Raises:
        SampleError: A log-probability is NaN (the subject's weights are broken).
    """
    import torch

    law = law or Law(temperature)
    with torch.inference_mode():
        try:
            stack = trusted(LayerStack(subject))
        except SampleError as error:
            _reasons[subject] = str(error)
            scores = plain_log_likelihoods(subject, planned.requests, prefixes, law, planned.tokens_per_batch)
        else:
            scores = np.full((len(planned.requests), 1 + len(prefixes)), np.nan)
            for each in planned.packs:
                tree = Tree(each, stack)
                scores[each.rows] = each.cumulative(tree.edges(stack, stack.below(tree.layout), law), prefixes)
    if np.isnan(scores).any():
        raise SampleError(f"expected log-probabilities, found NaN for {int(np.isnan(scores).any(axis=1).sum())} responses")
    return scores


def why_plain(subject: Any) -> str:
    """Why a subject was scored by its own forward pass; empty when it was not, or never scored."""
    return _reasons.get(subject, "")
