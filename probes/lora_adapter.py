"""LoRA adapters as factors by module, read from what peft saves. torch is imported inside functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.[^.]+)?\.weight")


@dataclass(frozen=True)
class Factors:
    """Shapes a (rank, d_in) and b (d_out, rank), float32; the change of the weights is `scale * b @ a`."""

    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]
    scale: float


@dataclass(frozen=True)
class LoraAdapter:
    """Factors by module name in the plain subject (`model.layers.0.mlp.down_proj`); none at all is the base itself."""

    factors: Mapping[str, Factors] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapted:
    """A plain subject, without peft's wrappers, and adapters by step: factors, or peft's folder of them, read when it is needed."""

    subject: Any
    adapters: Mapping[int, LoraAdapter | Path]


def lora_adapter(tensors: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any], where: str = "adapter") -> LoraAdapter:
    """An adapter from peft's tensors and configuration.

    Args:
        tensors: By parameter name, as peft saves them or names them in its model.
        config: adapter_config.json: r, lora_alpha, use_rslora, rank_pattern, alpha_pattern, ...
        where: Named in messages.

    Raises:
        SampleError: It is no plain LoRA (DoRA, biases, whole modules, embeddings), or a factor is missing, misshapen or not finite.
    """
    problem = not_plain(config)
    if problem:
        raise SampleError(f"{where}: expected a plain LoRA adapter, found {problem}")
    pairs: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for name, value in tensors.items():
        match = _NAME.fullmatch(name)
        if not match:
            raise SampleError(f"{where}: expected LoRA factors only, found {name}")
        pairs.setdefault(match["module"], {})[match["factor"]] = np.ascontiguousarray(value, dtype=np.float32)
    factors = {}
    for module, pair in sorted(pairs.items()):
        if set(pair) != {"A", "B"} or pair["A"].ndim != 2 or pair["B"].ndim != 2 or len(pair["A"]) != pair["B"].shape[1]:
            raise SampleError(
                f"{where}: expected two factors of one rank, found {sorted((k, v.shape) for k, v in pair.items())} at {module}"
            )
        if not (np.isfinite(pair["A"]).all() and np.isfinite(pair["B"]).all()):
            raise SampleError(f"{where}: expected finite factors, found others at {module}")
        factors[module] = Factors(pair["A"], pair["B"], _scale(config, module, len(pair["A"])))
    return LoraAdapter(factors)


def read_lora_adapter(folder: str | Path) -> LoraAdapter:
    """The adapter in a folder of peft's (adapter_config.json, adapter_model.safetensors).

    Raises:
        SampleError: It is not there, is no safetensors file, or is no plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)  # torch's reader knows bfloat16
    except (OSError, ValueError, SafetensorError) as error:
        raise SampleError(f"{folder}: expected {CONFIG} and {WEIGHTS}, found none that can be read ({error})") from error
    return lora_adapter({name: value.float().numpy() for name, value in tensors.items()}, config, str(folder))


def is_plain_folder(folder: Path) -> bool:
    """Whether a folder of peft's holds a plain LoRA adapter and nothing else."""
    from safetensors import SafetensorError, safe_open

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, "numpy") as file:
            return isinstance(config, dict) and not not_plain(config) and all(_NAME.fullmatch(name) for name in file.keys())  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        return False


def adapted_modules(adapter: LoraAdapter | Path) -> tuple[str, ...]:
    """The modules of an adapter or of peft's folder of one, of which only the names are read.

    Raises:
        SampleError: The folder holds no readable safetensors.
    """
    if isinstance(adapter, LoraAdapter):
        return tuple(adapter.factors)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / WEIGHTS, "numpy") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise SampleError(f"{adapter}: expected {WEIGHTS}, found none that can be read ({error})") from error
    return tuple(sorted({match["module"] for name in names if (match := _NAME.fullmatch(name))}))


def not_plain(config: Mapping[str, Any]) -> str:
    """What makes an adapter more than `scale * B A` at some modules; empty when nothing does."""
    if config.get("peft_type", "LORA") != "LORA":
        return str(config["peft_type"])
    asked = {
        "DoRA": config.get("use_dora"),
        "trained biases": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "whole modules": config.get("modules_to_save"),
        "trained tokens": config.get("trainable_token_indices"),
        "replicated layers": config.get("layer_replication"),
        "target parameters": config.get("target_parameters"),
    }
    return ", ".join(name for name, value in asked.items() if value)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = float(config.get("lora_alpha") or rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if (
            module == pattern
            or module.endswith("." + pattern)
            or fnmatchcase(module, pattern)
            or re.fullmatch(rf"(.*\.)?({pattern})", module)
        ):
            alpha = float(value)
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
