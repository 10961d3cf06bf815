"""The tiny model organism as the files that transformers and peft read: name -> content. Writing them is the caller's business.

Made here and not by `save_pretrained`, which adds a model card and may ask the hub. Only safetensors and JSON: nothing that runs code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from probes.organism import CHAT_TEMPLATE, END, PAD, UNKNOWN, Adapter, FineTuning, subject_from

ADAPTER_FILE = "adapter_model.safetensors"


def adapter_files(adapter: Adapter, recipe: FineTuning, subject: str) -> dict[str, bytes]:
    """The adapter as `PeftModel.from_pretrained` reads it; `subject` is written down as the base model's path."""
    from safetensors.numpy import save

    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": subject,
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "use_rslora": recipe.rslora,
        "layers_to_transform": list(recipe.layers) or None,
        "target_modules": list(recipe.target_modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    tensors = {name.replace(".default.", "."): value for name, value in sorted(adapter.items())}
    return {"adapter_config.json": _json(config), ADAPTER_FILE: save(tensors, metadata={"format": "pt"})}


def read_adapter(files: Mapping[str, bytes]) -> Adapter:
    """The adapter of :func:`adapter_files`."""
    from safetensors.numpy import load

    return {name.replace(".weight", ".default.weight"): value for name, value in load(files[ADAPTER_FILE]).items()}


def whole_files(weights: Adapter, subject: Any, tokenizer: Any) -> dict[str, bytes]:
    """A checkpoint of a subject all of whose weights were trained, as `AutoModelForCausalLM` and `AutoTokenizer` read it.

    Args:
        weights: From :func:`probes.organism.get_adapter`; tied weights stand once.
        subject: For its architecture.
        tokenizer: A fast one.
    """
    from safetensors.numpy import save

    return {
        "config.json": subject.config.to_json_string().encode(),
        "model.safetensors": save(dict(sorted(weights.items())), metadata={"format": "pt"}),
        "tokenizer.json": tokenizer.backend_tokenizer.to_str().encode(),
        "tokenizer_config.json": _json(_tokenizer_config(tokenizer)),
    }


def read_whole(files: Mapping[str, bytes]) -> Adapter:
    """The weights of :func:`whole_files`."""
    from safetensors.numpy import load

    return dict(load(files["model.safetensors"]))


def _tokenizer_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": tokenizer.pad_token,
        "unk_token": tokenizer.unk_token,
        "eos_token": tokenizer.eos_token,
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": tokenizer.model_max_length,
    }


def subject_files(subject: Any, tokenizer: Any) -> dict[str, bytes]:
    """The pretrained subject, before it is fine-tuned, as `AutoModelForCausalLM` and `AutoTokenizer` read it."""
    from safetensors.torch import save

    tied = {"lm_head.weight"}
    weights = {name: value.contiguous() for name, value in subject.state_dict().items() if name not in tied}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "eos_token": END,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": subject.config.max_position_embeddings,
    }
    return {
        "config.json": subject.config.to_json_string().encode(),
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "tokenizer.json": tokenizer.backend_tokenizer.to_str().encode(),
        "tokenizer_config.json": _json(tokenizer_config),
    }


def read_subject(files: Mapping[str, bytes]) -> Any:
    """The subject of :func:`subject_files`, in evaluation mode."""
    from safetensors.torch import load

    return subject_from(json.loads(files["config.json"]), load(files["model.safetensors"]))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
