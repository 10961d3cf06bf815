"""A tokenizer of one letter a token, without a chat template."""

from __future__ import annotations

from typing import Any


def letters_tokenizer() -> Any:
    """`!` is the stop token, 0; letters follow, whatever else there is in a vocabulary is not written."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({letter: k for k, letter in enumerate("!abcdefghijklmnopqrstuvwxyz")}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="!")
