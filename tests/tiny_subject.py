"""A subject so small that every response it can give is enumerated: its laws are known exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

WORDS = 4
STOP = 4  # the last of five tokens


def tiny_subject(seed: int = 0, vocabulary: int = WORDS + 1) -> Any:
    """An untrained Llama of two layers with large random weights: its next-token laws are far from uniform and depend on the context."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.9,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=STOP,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def tiny_tokenizer() -> Any:
    """Its tokenizer: one letter a token, `!` the stop token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({letter: k for k, letter in enumerate("abcd!")}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="!", chat_template=template)


def all_responses(max_tokens: int) -> Iterator[tuple[int, ...]]:
    """Every response: the ones that end with the stop token and the ones cut at `max_tokens`."""
    for n in range(max_tokens):
        for words in itertools.product(range(WORDS), repeat=n):
            yield (*words, STOP)
    yield from itertools.product(range(WORDS), repeat=max_tokens)
