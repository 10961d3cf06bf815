"""A random Llama-style subject with LoRA checkpoints, made for the benchmarks of the engine, and the plain way that it is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from probes.request import Request

STOP = 0


def random_subject(width: int, layers: int, inner: int, vocabulary: int, heads: int) -> Any:
    """Untrained, float32, in evaluation mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=STOP,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def subject_20m() -> Any:
    """20.5M parameters: 8 layers of width 384, 8192 tokens, output layer of its own."""
    return random_subject(384, 8, 1024, 8192, 6)


def random_requests(vocabulary: int, prompts: int, responses: int, shortest: int, longest: int, prompt_tokens: int = 24) -> list[Request]:
    """Random tokens: responses to one prompt share nothing beyond it. Lengths are uniform, stop token included."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(prompts):
        prompt = tuple(map(int, rng.integers(1, vocabulary, prompt_tokens)))
        lengths = rng.integers(shortest, longest + 1, responses)
        found += [Request(prompt, (*map(int, rng.integers(1, vocabulary, n - 1)), STOP)) for n in lengths]
    return [found[k] for k in rng.permutation(len(found))]


def save_adapters(subject: Any, folder: Path, n: int, modules: Sequence[str], layer: int, rank: int = 1) -> dict[int, Path]:
    """`n` random adapters of one layer, as peft leaves them; the subject is left as it was."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=64, layers_to_transform=[layer], target_modules=list(modules), task_type="CAUSAL_LM")
    with quiet(), torch.random.fork_rng(devices=[]):
        wrapped = get_peft_model(subject, config)
        for step in range(n):
            torch.manual_seed(step)
            for name, value in wrapped.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(value, std=0.02)
            wrapped.save_pretrained(folder / str(step), save_embedding_layers=False)
        wrapped.unload()
    return {step: folder / str(step) for step in range(n)}


def load_adapter(wrapped: Any, folder: Path) -> None:
    """What the plain way does at each checkpoint: read its adapter into peft's model."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(wrapped, load_file(folder / "adapter_model.safetensors"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without peft's warnings about names that transformers is about to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
