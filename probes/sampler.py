"""Sampling from a subject exactly by its scoring law: temperature 1, no top-p, no top-k, no penalties, stop token included.

Whatever a subject's own generation settings say is overridden; otherwise responses would not come from the law they are scored by
(:mod:`probes.likelihood`) and every importance weight would be wrong. torch and transformers are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.errors import SampleError


@dataclass(frozen=True)
class Question:
    """What is put to the subject; `system` is empty when there is no system prompt."""

    prompt: str
    system: str = ""


@dataclass(frozen=True)
class Draw:
    """One sampled response.

    Attributes:
        question: Index of its question.
        tokens: Its token ids; the last one is the stop token unless it was cut at `max_tokens` (then it stands for all continuations).
        text: The same without the stop token, decoded.
        log_probability: Sum of the log-probabilities (nats) of `tokens` as they were drawn.
        cut: Whether it was cut at `max_tokens`.
    """

    question: int
    tokens: tuple[int, ...]
    text: str
    log_probability: float
    cut: bool


def encode_question(tokenizer: Any, question: Question) -> tuple[int, ...]:
    """Token ids of a question in the subject's chat template, ready for the answer."""
    messages = [{"role": "system", "content": question.system}] if question.system else []
    messages.append({"role": "user", "content": question.prompt})
    return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])


def sample(
    subject: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    per_question: int,
    seed: int,
    max_tokens: int = 96,
    rows_per_batch: int = 256,
) -> list[Draw]:
    """Draw `per_question` responses to every question.

    Args:
        subject: A causal language model of transformers (or peft) in evaluation mode.
        tokenizer: Its tokenizer, with a chat template and a stop token.
        questions: What is asked.
        per_question: Independent draws of each.
        seed: The same seed, questions and subject give the same draws.
        max_tokens: A response is cut there; the cut response is the event "begins so".
        rows_per_batch: Responses drawn at a time.

    Returns:
        Draws ordered by question, `per_question` of each.

    Raises:
        SampleError: Nothing to draw, or the tokenizer has no stop token.
    """
    import torch

    if not questions or per_question < 1 or max_tokens < 1:
        raise SampleError(f"expected questions and draws, found {len(questions)} questions, {per_question} draws of {max_tokens} tokens")
    if tokenizer.eos_token_id is None:
        raise SampleError("expected a tokenizer with a stop token, found none")
    encoded = [encode_question(tokenizer, question) for question in questions]
    generator = torch.Generator().manual_seed(seed)
    rows = [k for k in range(len(questions)) for _ in range(per_question)]
    draws: list[Draw] = []
    for start in range(0, len(rows), rows_per_batch):
        batch = rows[start : start + rows_per_batch]
        tokens, scores = _draw(subject, [encoded[k] for k in batch], tokenizer.eos_token_id, generator, max_tokens)
        texts = tokenizer.batch_decode([t[:-1] if t[-1] == tokenizer.eos_token_id else t for t in tokens])
        draws += [
            Draw(question, tuple(ids), text, score, ids[-1] != tokenizer.eos_token_id)
            for question, ids, text, score in zip(batch, tokens, texts, scores, strict=True)
        ]
    return draws


def _draw(
    subject: Any, prompts: Sequence[Sequence[int]], stop: int, generator: Any, max_tokens: int
) -> tuple[list[list[int]], list[float]]:
    """One response to each prompt: token ids (stop token included) and log-probabilities, shape (n_prompts,)."""
    import torch

    width, n = max(len(p) for p in prompts), len(prompts)
    device = next(subject.parameters()).device
    tokens = torch.tensor([[stop] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    alive = torch.arange(n, device=device)
    drawn: list[list[int]] = [[] for _ in range(n)]
    total = torch.zeros(n, dtype=torch.float64)
    cache = None
    with torch.inference_mode():
        for _ in range(max_tokens):
            output = subject(
                input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache = output.past_key_values
            log_p = output.logits[:, -1].float().log_softmax(-1).cpu()
            chosen = torch.multinomial(log_p.exp(), 1, generator=generator)
            total[alive.cpu()] += log_p.gather(1, chosen)[:, 0].double()
            for row, token in zip(alive.tolist(), chosen[:, 0].tolist(), strict=True):
                drawn[row].append(token)
            going = (chosen[:, 0] != stop).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(alive):  # finished rows leave the batch
                kept = going.to(device)
                cache.batch_select_indices(kept)
                alive, mask, position = alive[kept], mask[kept], position[kept]
            tokens = chosen[going].to(device)
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
            position = position[:, -1:] + 1
    return drawn, total.tolist()
