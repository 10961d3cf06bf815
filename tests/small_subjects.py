"""Untrained subjects of several architectures, small enough to be run in milliseconds, with LoRA adapters made by peft."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY, STOP = 40, 4
_GROUPED = {"num_key_value_heads": 2, "intermediate_size": 48}
SIZES: dict[str, dict[str, Any]] = {
    "Llama": _GROUPED,
    "Qwen2": _GROUPED,
    "Qwen3": {**_GROUPED, "head_dim": 8},
    "Mistral": {**_GROUPED, "sliding_window": 5},
    "GPT2": {},
    "GPTNeoX": {"intermediate_size": 48},
    "Olmo2": _GROUPED,
    "Mixtral": {**_GROUPED, "num_local_experts": 4},
    "Gemma2": {**_GROUPED, "head_dim": 8},
    "Bloom": {},
}
"""What each architecture needs beside its common sizes: query heads share key heads, Mistral sees five tokens only, Olmo2 normalises behind
its modules, Gemma2 and Bloom attend in ways of their own."""


def small_subject(name: str, seed: int = 0, layers: int = 4) -> Any:
    """An untrained subject with large random weights: its laws are far from uniform and depend on all that precedes."""
    import torch
    import transformers

    common = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4, "initializer_range": 0.3}
    tokens = {"bos_token_id": None, "eos_token_id": STOP, "pad_token_id": None}
    config = getattr(transformers, f"{name}Config")(**common, **tokens, **SIZES[name])
    head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, head)(config).eval()


def adapt(subject: Any, modules: Sequence[str], seed: int, layers: Sequence[int] | None = None, **how: Any) -> Any:
    """The subject wrapped by peft with an adapter whose factors are random, so that it changes every law."""
    import torch
    from peft import LoraConfig, get_peft_model

    where = {"layers_to_transform": list(layers)} if layers else {}
    config = LoraConfig(
        target_modules=list(modules), task_type="CAUSAL_LM", lora_dropout=0.3, **where, **{"r": 2, "lora_alpha": 3.0, **how}
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # peft tells of fan_in_fan_out and asks transformers by old names
        torch.manual_seed(seed)
        wrapped = get_peft_model(subject, config).eval()
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(value, std=0.3)
    return wrapped


def save_adapter(wrapped: Any, folder: Path) -> Path:
    """As peft leaves it in a checkpoint's folder."""
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder
