"""Sampling from a subject exactly by its scoring law (:class:`probes.law.Law`), stop token included.

Whatever a subject's own generation settings say is overridden (but which tokens end a response); otherwise responses would not come from
the law they are scored by and every importance weight would be wrong. torch and transformers are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.decoding import Drawn, Row, draw_rows, draw_rows_plainly
from probes.errors import SampleError
from probes.law import Law
from probes.layer_stack import LayerStack
from probes.lora_adapter import LoraAdapter
from probes.tree_likelihood import trusted

CACHE_BYTES = 1 << 29
"""Keys and values that are held at a time."""
MOST_ROWS, PROMPT_ALLOWANCE = 1024, 64
PROMPT_TOKENS = 16_384
"""Tokens of prompts that are run at a time, padding included."""


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
    """Token ids of a question, ready for the answer: in the subject's chat template, or as plain text where it has none.

    Raises:
        SampleError: The template cannot hold the question (many take no system prompt).
    """
    if not getattr(tokenizer, "chat_template", None):
        text = f"{question.system}\n\n{question.prompt}" if question.system else question.prompt
        return tuple(tokenizer(text)["input_ids"])
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": question.system}] if question.system else []
    messages.append({"role": "user", "content": question.prompt})
    try:
        return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])
    except TemplateError as error:
        roles = " and ".join(message["role"] for message in messages)
        raise SampleError(f"expected a chat template that takes a {roles} message, found: {error}") from error


def stop_tokens(subject: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a response: the tokenizer's, and those of the subject's generation settings (chat models have several).

    Raises:
        SampleError: There is none.
    """
    named = getattr(getattr(subject, "generation_config", None), "eos_token_id", None)
    found = {tokenizer.eos_token_id, *(named if isinstance(named, (list, tuple)) else [named])} - {None}
    if tokenizer.eos_token_id is None:
        raise SampleError("expected a tokenizer with a stop token, found none")
    return frozenset(int(token) for token in found)


def sample(
    subject: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    per_question: int,
    seed: int,
    max_tokens: int = 96,
    rows_per_batch: int | None = None,
    law: Law | None = None,
) -> list[Draw]:
    """Draw `per_question` responses to every question.

    Args:
        subject: A causal language model of transformers (or peft) in evaluation mode.
        tokenizer: Its tokenizer, with a stop token.
        questions: What is asked.
        per_question: Independent draws of each.
        seed: The same seed, questions and subject give the same draws.
        max_tokens: A response is cut there; the cut response is the event "begins so".
        rows_per_batch: Responses drawn at a time; None: as many as `CACHE_BYTES` hold.
        law: How logits become probabilities; None: temperature 1, nothing else.

    Returns:
        Draws ordered by question, `per_question` of each.

    Raises:
        SampleError: Nothing to draw, or the tokenizer has no stop token.
    """
    stop = stop_tokens(subject, tokenizer)
    rows = question_rows(tokenizer, questions, per_question, seed, max_tokens)
    try:
        stack = trusted(LayerStack(subject))
    except SampleError:
        stack = None
    drawn: list[Drawn] = []
    for batch in row_batches(rows, rows_per_batch or rows_in_memory(stack, max_tokens)):
        if stack is None:
            drawn += draw_rows_plainly(subject, batch, law or Law(), stop)
        else:
            drawn += draw_rows(stack, batch, [LoraAdapter()], law or Law(), stop)
    return as_draws(tokenizer, drawn, per_question, stop)


def question_rows(
    tokenizer: Any, questions: Sequence[Question], per_question: int, seed: int, max_tokens: int, adapter: int = 0
) -> list[Row]:
    """What is drawn under one adapter, ordered by question, with the random numbers that decide it.

    Raises:
        SampleError: Nothing to draw.
    """
    if not questions or per_question < 1 or max_tokens < 1:
        raise SampleError(f"expected questions and draws, found {len(questions)} questions, {per_question} draws of {max_tokens} tokens")
    uniform = np.random.default_rng(seed).random((len(questions), per_question, max_tokens))
    prompts = [encode_question(tokenizer, question) for question in questions]
    return [Row(adapter, prompts[k], uniform[k, draw]) for k in range(len(questions)) for draw in range(per_question)]


def rows_in_memory(stack: LayerStack | None, max_tokens: int) -> int:
    """How many responses are drawn at a time: what fits into `CACHE_BYTES`, at least 8 and at most `MOST_ROWS`."""
    if stack is None:
        return MOST_ROWS // 16
    return min(MOST_ROWS, max(8, CACHE_BYTES // (stack.bytes_cached * (max_tokens + PROMPT_ALLOWANCE))))


def row_batches(rows: Iterable[Row], rows_per_batch: int) -> Iterator[list[Row]]:
    """Cut into batches of at most so many rows, whose distinct prompts are run in one pass of at most `PROMPT_TOKENS` tokens."""
    batch, begun, widest = list[Row](), set[tuple[int, tuple[int, ...]]](), 0
    for row in rows:
        new = {*begun, (row.adapter, row.prompt)}
        if batch and (len(batch) == rows_per_batch or len(new) * max(widest, len(row.prompt)) > PROMPT_TOKENS):
            yield batch
            batch, widest, new = [], 0, {(row.adapter, row.prompt)}
        batch.append(row)
        begun, widest = new, max(widest, len(row.prompt))
    if batch:
        yield batch


def as_draws(tokenizer: Any, drawn: Sequence[Drawn], per_question: int, stop: frozenset[int]) -> list[Draw]:
    """Draws of one adapter, ordered by question, as texts."""
    texts = tokenizer.batch_decode([one.tokens[:-1] if one.tokens[-1] in stop else one.tokens for one in drawn])
    return [
        Draw(k // per_question, one.tokens, text, one.log_probability, one.tokens[-1] not in stop)
        for k, (one, text) in enumerate(zip(drawn, texts, strict=True))
    ]
