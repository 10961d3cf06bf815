"""Exact probabilities of the labels that may stand at one place of a reply, from a causal language model in this process.

A reply is begun for the LLM (`{"level": `) and every label is scored as the text that would follow, up to and with what ends it (`,`):

    log P(label) = sum over its tokens of log P(token | prompt, beginning, tokens before)

in the tokenization of the whole text, so that a label may be several tokens, or share one with what stands around it. Prompts are run once
for all labels. What is missing to 1 is the probability of saying something else. torch and transformers are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError
from probes.subjects import load_subject

Messages = Sequence[tuple[str, str]]
"""(role, text) of system, user and assistant, in order."""


@dataclass(frozen=True)
class Reader:
    """A language model that is asked, with its tokenizer.

    Attributes:
        model: A causal language model of transformers in evaluation mode.
        tokenizer: Its tokenizer.
        longest: Most tokens it can hold.
    """

    model: Any
    tokenizer: Any
    longest: int

    @classmethod
    def load(cls, path: str) -> Reader:
        """From a folder, or a name that the hub's cache holds; in bfloat16 on a GPU, in float32 without one.

        Raises:
            SampleError: It cannot be loaded, or only as a pickle.
        """
        import torch

        model, tokenizer = load_subject(path, dtype="bfloat16" if torch.cuda.is_available() else "float32")
        return cls(model, tokenizer, int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20))

    def encode(self, messages: Messages, begun: str = "") -> list[int]:
        """Token ids of a conversation and the beginning of its next reply: in the chat template, or as paragraphs where there is none."""
        text, special = self._rendered(messages)
        return list(self.tokenizer(text + begun, add_special_tokens=special)["input_ids"])

    def _rendered(self, messages: Messages) -> tuple[str, bool]:
        if not getattr(self.tokenizer, "chat_template", None):
            return "\n\n".join(text for _, text in messages) + "\n\n", True
        from jinja2 import TemplateError

        chat = [{"role": role, "content": text} for role, text in messages]
        try:
            return str(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)), False
        except TemplateError:  # many know no system role: what it would say stands before the first question
            (_, told), (_, asked), *later = messages
            chat = [{"role": "user", "content": f"{told}\n\n{asked}"}, *({"role": role, "content": text} for role, text in later)]
            return str(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)), False


def label_log_probabilities(
    reader: Reader, conversations: Sequence[Messages], begun: str, labels: Sequence[str], end: str
) -> npt.NDArray[np.float64]:
    """Log-probability of every label as the continuation of every conversation.

    Args:
        reader: The LLM.
        conversations: What it was told and asked.
        begun: How its reply begins.
        labels: What may follow, all different.
        end: What ends a label.

    Returns:
        Shape (n_conversations, n_labels), nats, at most 0.

    Raises:
        SampleError: The tokenizer writes two labels in the same way, or a conversation is longer than the LLM can hold.
    """
    import torch

    rows = [_split(reader, messages, begun, labels, end) for messages in conversations]
    if any(len(context) + max(map(len, tails)) > reader.longest for context, tails in rows):
        raise SampleError(f"the prompt is too long: expected at most {reader.longest} tokens")
    with torch.inference_mode():
        return _scored(reader, [context for context, _ in rows], [tails for _, tails in rows])


def _split(reader: Reader, messages: Messages, begun: str, labels: Sequence[str], end: str) -> tuple[list[int], list[list[int]]]:
    """What all labels have in common, and what of each is left."""
    whole = [reader.encode(messages, begun + label + end) for label in labels]
    if len(set(map(tuple, whole))) < len(labels):
        raise SampleError(f"expected labels that the tokenizer tells apart, found {list(labels)}")
    common = 0
    while len({row[common] if common < len(row) else None for row in whole}) == 1:
        common += 1
    common = min(common, *(len(row) - 1 for row in whole))
    return whole[0][:common], [row[common:] for row in whole]


def _scored(reader: Reader, contexts: list[list[int]], tails: list[list[list[int]]]) -> npt.NDArray[np.float64]:
    import torch

    n, k = len(contexts), len(tails[0])
    device = next(reader.model.parameters()).device
    width, depth = max(map(len, contexts)), max(len(tail) for row in tails for tail in row)
    ids = torch.zeros((n, width), dtype=torch.long)
    mask = torch.zeros((n, width + depth - 1), dtype=torch.long)
    for row, context in enumerate(contexts):
        ids[row, width - len(context) :] = torch.tensor(context)
        mask[row, width - len(context) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    first = reader.model(input_ids=ids, attention_mask=mask[:, :width], position_ids=place[:, :width], use_cache=True, logits_to_keep=1)
    laws = [first.logits[:, -1:].double().log_softmax(-1).repeat_interleave(k, 0)]
    after = torch.zeros((n * k, depth), dtype=torch.long)
    for row, tail in enumerate(tail for tails_of_one in tails for tail in tails_of_one):
        after[row, : len(tail)] = torch.tensor(tail)
    after = after.to(device)
    if depth > 1:
        cache = first.past_key_values
        cache.batch_repeat_interleave(k)
        rest = reader.model(
            input_ids=after[:, :-1],
            attention_mask=mask.repeat_interleave(k, 0),
            position_ids=place[:, width:].repeat_interleave(k, 0),
            past_key_values=cache,
            use_cache=True,
        )
        laws.append(rest.logits.double().log_softmax(-1))
    token = torch.cat(laws, 1).gather(2, after[..., None])[..., 0].cpu().numpy()
    length = np.array([len(tail) for row in tails for tail in row])
    return np.asarray(np.where(np.arange(depth) < length[:, None], token, 0.0).sum(1).reshape(n, k))


def continued(reader: Reader, conversations: Sequence[Messages], begun: Sequence[str], max_tokens: int) -> list[tuple[str, bool, int]]:
    """The likeliest continuation of every begun reply, token by token, whatever the LLM's own generation settings say.

    Args:
        reader: The LLM.
        conversations: What it was told and asked.
        begun: How each reply begins.
        max_tokens: Longest continuation.

    Returns:
        For each its text, whether it was cut short, and how many tokens it has.

    Raises:
        SampleError: A conversation is longer than the LLM can hold.
    """
    import torch
    from transformers import GenerationConfig

    rows = [reader.encode(messages, start) for messages, start in zip(conversations, begun, strict=True)]
    width = max(map(len, rows))
    room = min(max_tokens, reader.longest - width)
    if room < 1:
        raise SampleError(f"the prompt is too long: expected at most {reader.longest} tokens, found {width}")
    device = next(reader.model.parameters()).device
    ids, mask = torch.zeros((len(rows), width), dtype=torch.long), torch.zeros((len(rows), width), dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :], mask[row, width - len(tokens) :] = torch.tensor(tokens), 1
    stop = _stops(reader)
    settings = GenerationConfig(max_new_tokens=room, do_sample=False, eos_token_id=stop, pad_token_id=stop[0])
    with torch.inference_mode():
        made = reader.model.generate(ids.to(device), attention_mask=mask.to(device), generation_config=settings)[:, width:].tolist()
    out = []
    for tokens in made:
        ended = next((place for place, token in enumerate(tokens) if token in stop), None)
        out.append((str(reader.tokenizer.decode(tokens[:ended], skip_special_tokens=True)), ended is None, len(tokens[:ended])))
    return out


def _stops(reader: Reader) -> list[int]:
    own = getattr(reader.model.generation_config, "eos_token_id", None)
    every = [*(own if isinstance(own, list) else [own]), reader.tokenizer.eos_token_id]
    found = [int(token) for token in dict.fromkeys(every) if token is not None]
    if not found:
        raise SampleError("expected a tokenizer with a stop token, found none")
    return found
