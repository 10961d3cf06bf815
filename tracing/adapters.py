"""The LoRA factors of a run's checkpoints, read from disk as arrays by module and by step.

Only safetensors are read, and only through `safetensors.numpy`: neither torch nor peft is needed, and nothing from a stranger's folder is
unpickled. bfloat16, which numpy does not know, is widened to float32 by its bits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.errors import AdaptersError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PICKLES = ("adapter_model.bin", "pytorch_model.bin", "adapter_model.pt", "adapter_model.pth")
_STEP = re.compile(r"(?:step|checkpoint|global_step)[-_]?(\d+)")
_FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.[^.]+)?\.weight")


@dataclass(frozen=True)
class Factors:
    """The two factors of one module along the run; the change of its weights is `scale[t] * b[t] @ a[t]`.

    Attributes:
        a: Shape (n_steps, rank, d_in), float32.
        b: Shape (n_steps, d_out, rank), float32.
        scale: Shape (n_steps,), lora_alpha / rank (rsLoRA: / sqrt(rank)); 1 where no configuration lies beside the weights.
    """

    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Adapters:
    """The adapters of one run.

    Attributes:
        source: The folder as given.
        steps: Ascending, one per adapter.
        modules: Factors by module name (`model.layers.0.mlp.down_proj`), in the order of names.
        notes: What was left out and why.
    """

    source: str
    steps: tuple[int, ...]
    modules: dict[str, Factors]
    notes: tuple[str, ...] = ()


def read_adapters(path: str | Path, modules: Sequence[str] = ("*",)) -> Adapters:
    """Read the LoRA factors of every checkpoint.

    Args:
        path: A run directory (`adapters/step-000120/`), any folder of `step-N` or `checkpoint-N` folders (a Trainer's output), or one
            adapter's folder.
        modules: Keep modules matching one of these patterns (`*.down_proj`); everything is held in memory.

    Raises:
        AdaptersError: No adapter is there, one is a pickle, damaged, of another shape than the first, not finite, or no LoRA; or no
            module matches.
    """
    folders, notes = adapter_folders(path)
    read = {step: _read_one(folder, modules) for step, folder in folders.items()}
    (first_step, (first, _, left_out)), *others = read.items()
    if not first:
        raise AdaptersError(f"{folders[first_step]}: expected modules matching {', '.join(modules)}, found none among its LoRA factors")
    for step, (found, _, _) in others:
        _check_same(folders[step], first, found, first_step)
    if left_out:
        notes.append(f"not LoRA factors, left out: {', '.join(left_out[:4])}{', …' if len(left_out) > 4 else ''} ({len(left_out)} tensors)")
    scale = {
        name: np.array([_scale(config, a.shape[0], name, folders[s]) for s, (_, config, _) in read.items()])
        for name, (a, _) in first.items()
    }
    stacked = {
        name: Factors(
            np.stack([found[name][0] for found, _, _ in read.values()]),
            np.stack([found[name][1] for found, _, _ in read.values()]),
            scale[name],
        )
        for name in sorted(first)
    }
    return Adapters(str(path), tuple(folders), stacked, tuple(notes))


def adapter_folders(path: str | Path) -> tuple[dict[int, Path], list[str]]:
    """The folders of the adapters under `path` by step, ascending (numerically), and notes on what was passed over.

    Raises:
        AdaptersError: There is no adapter, or two folders stand for one step.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise AdaptersError(f"{folder}: expected a folder with adapters, found {'a file' if folder.exists() else 'nothing'}")
    if _holds_weights(folder):
        return {step_of(folder.name) or 0: folder}, []
    if (folder / "adapters").is_dir():
        folder = folder / "adapters"
    steps: dict[int, Path] = {}
    notes = []
    for child in sorted(folder.iterdir()):
        step = step_of(child.name)
        if step is None or not child.is_dir():
            continue
        if not _holds_weights(child):
            _refuse_full_weights(child)
            notes.append(f"{child.name}: no {WEIGHTS} (an interrupted save?), left out")
        elif step in steps:
            raise AdaptersError(f"{folder}: expected one folder for step {step}, found {steps[step].name} and {child.name}")
        else:
            steps[step] = child
    if not steps:
        _refuse_full_weights(folder)
        tail = f"; {notes[0]}" if notes else ""
        raise AdaptersError(f"{folder}: expected step-N or checkpoint-N folders with {WEIGHTS}, found none{tail}")
    return dict(sorted(steps.items())), notes


def step_of(name: str) -> int | None:
    """The step in a folder's name (`step-000120`, `checkpoint-120`), or None."""
    match = _STEP.fullmatch(name)
    return int(match.group(1)) if match else None


def _holds_weights(folder: Path) -> bool:
    """Whether an adapter lies here.

    Raises:
        AdaptersError: It does, but only as a pickle.
    """
    if (folder / WEIGHTS).is_file():
        return True
    for name in PICKLES:
        if (folder / name).exists():
            raise AdaptersError(
                f"{folder / name}: expected {WEIGHTS}, found a pickle, which can run code when it is loaded; "
                "save it again with safe_serialization=True"
            )
    return False


def _refuse_full_weights(folder: Path) -> None:
    if any(folder.glob("model*.safetensors")):
        raise AdaptersError(f"{folder}: expected a LoRA adapter ({WEIGHTS}), found the weights of a whole model")


def _read_one(
    folder: Path, patterns: Sequence[str]
) -> tuple[dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]], Any, list[str]]:
    """Factors (A, B) by module, the configuration (or None) and the names of other tensors."""
    parts: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    left_out = []
    for name, value in _tensors(folder / WEIGHTS).items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            left_out.append(name)
        elif any(fnmatchcase(match["module"], pattern) for pattern in patterns):
            parts.setdefault(match["module"], {})[match["factor"]] = value
    if not parts and left_out and not any("lora_" in name for name in left_out):
        raise AdaptersError(f"{folder / WEIGHTS}: expected LoRA factors (….lora_A.weight), found {left_out[0]} and the like")
    factors = {}
    for module, both in sorted(parts.items()):
        factors[module] = _checked(folder, module, both)
    return factors, _config(folder), left_out


def _checked(
    folder: Path, module: str, both: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    where = f"{folder / WEIGHTS}: {module}"
    if set(both) != {"A", "B"}:
        raise AdaptersError(f"{where}: expected lora_A and lora_B, found only lora_{next(iter(both))}")
    a, b = both["A"], both["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise AdaptersError(f"{where}: expected A (rank, d_in) and B (d_out, rank), found {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise AdaptersError(f"{where}: expected finite numbers, found NaN or infinity")
    return a, b


def _check_same(folder: Path, first: Mapping[str, Any], found: Mapping[str, Any], first_step: int) -> None:
    if set(first) != set(found):
        odd = sorted(set(first) ^ set(found))[0]
        there = "without" if odd in first else "with"
        raise AdaptersError(f"{folder}: expected the modules of step {first_step}, found an adapter {there} {odd}")
    for name, (a, b) in first.items():
        if (a.shape, b.shape) != (found[name][0].shape, found[name][1].shape):
            raise AdaptersError(
                f"{folder}: {name}: expected A {a.shape} and B {b.shape} as at step {first_step}, "
                f"found {found[name][0].shape} and {found[name][1].shape}"
            )


def _tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors as float32.

    `safetensors.numpy` knows no bfloat16, so the header is asked for it first; such a tensor is the upper half of a float32.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        renamed, wide = _bfloat16_as_integers(content)
        tensors = load(renamed)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise AdaptersError(f"{path}: expected a safetensors file of numbers, found something else ({error})") from error
    return {
        name: (value.astype(np.uint32) << 16).view(np.float32) if name in wide else value.astype(np.float32)
        for name, value in tensors.items()
    }


def _bfloat16_as_integers(content: bytes) -> tuple[bytes, set[str]]:
    """The file with its bfloat16 tensors declared as 16-bit integers (the same bits), and their names."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 + size:
        raise ValueError("shorter than its header says")
    header = json.loads(content[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError("no header")
    wide = {name for name, entry in header.items() if isinstance(entry, dict) and entry.get("dtype") == "BF16"}
    if not wide:
        return content, wide
    for name in wide:
        header[name]["dtype"] = "U16"
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :], wide


def _config(folder: Path) -> Any:
    path = folder / CONFIG
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdaptersError(f"{path}: expected a JSON object, found something else ({error})") from error
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdaptersError(f"{path}: expected a LoRA adapter, found {found}")
    return config


def _scale(config: Any, rank: int, module: str, folder: Path) -> float:
    """Scale alpha / rank, or alpha / sqrt(rank) with rsLoRA; `alpha_pattern` names modules by the end of their name, as peft does."""
    if config is None:
        return 1.0
    alpha = config.get("lora_alpha", rank)
    for pattern, special in (config.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = special
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise AdaptersError(f"{folder / CONFIG}: expected a number lora_alpha, found {alpha!r}")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
