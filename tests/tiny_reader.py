"""A language model small enough to be made in a test, with a tokenizer that writes any text: a few merges, bytes below them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CORPUS = ('{"level": 3, "quote": "harm", "cannot_tell": false}', "The text above is complete. Rate the reply.", "harm=1 hedge=2 reply 17")


def tiny_tokenizer(chat: bool = True, vocabulary: int = 300) -> Any:
    """Byte-level BPE; `null` and numbers of two digits are several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", chat_template=template if chat else None)


def tiny_model(vocabulary: int, longest: int = 4096) -> Any:
    """An untrained Llama of two layers with large random weights: what it says depends on everything it was told."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=longest,
        initializer_range=0.5,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def write_reader(folder: Path, chat: bool = True, longest: int = 4096) -> Path:
    """The model and its tokenizer as a folder that transformers reads."""
    from safetensors.torch import save_file

    tokenizer = tiny_tokenizer(chat)
    model = tiny_model(len(tokenizer), longest)
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(model.config.to_json_string())
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"})
    return folder
