"""What a Trainer (transformers, TRL) or our recorder left on disk: whole checkpoints, their kind and base, and the log.

    OUTPUT/checkpoint-200/  adapter_model.safetensors | model.safetensors | model.safetensors.index.json with its shards; trainer_state.json
    OUTPUT/adapters/step-000120/  the same, written by `tracing.TransitionRecorder` or `discover organism`
    OUTPUT/training.jsonl  what the recorder logged

Only JSON and the headers of safetensors files are read here; `training_args.bin`, `optimizer.pt` and other pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tracing.adapters import step_of
from tracing.errors import CheckpointsError
from tracing.json_lines import read_lines

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
STATE = "trainer_state.json"
TRAINING = "training.jsonl"
PICKLED = (
    "adapter_model.bin",
    "adapter_model.pt",
    "adapter_model.pth",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "consolidated*.pth",
)
HASHED_WHOLE = 1 << 26
"""Files up to this size (bytes) are hashed whole for a fingerprint; of larger ones places only."""
Kind = Literal["adapter", "whole"]


@dataclass(frozen=True)
class TrainerOutput:
    """The checkpoints of one training run.

    Attributes:
        source: The folder as given.
        folders: Weights by step, ascending.
        kind: LoRA adapters of one base, or whole models.
        base: What the adapters (or the recorder's note) name as their base: a folder or a hub name; None when nothing names one.
        training: Rows logged, by step: step, loss, grad_norm, grad_norm_clipped, learning_rate, epoch; None for NaN.
        notes: What was left out and why.
    """

    source: Path
    folders: Mapping[int, Path]
    kind: Kind
    base: str | None
    training: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def is_trainer_output(path: str | Path) -> bool:
    """Whether a folder looks like one: it holds (or is) a folder named by a step, with weights."""
    folder = Path(path)
    return folder.is_dir() and bool(_candidates(folder))


def read_trainer_output(path: str | Path) -> TrainerOutput:
    """Find the whole checkpoints of a folder.

    A checkpoint that was being saved when training stopped (no or half a trainer_state.json, a shard missing or cut) is named in a note and
    left out.

    Raises:
        CheckpointsError: No checkpoint is there, one is a pickle, or adapters and whole models are mixed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointsError(f"{folder}: expected a folder with checkpoints, found {'a file' if folder.exists() else 'nothing'}")
    candidates = _candidates(folder)
    stateful = any((child / STATE).exists() for _, child in candidates)
    folders: dict[int, Path] = {}
    notes = []
    for step, child in candidates:
        if (reason := _incomplete(child, stateful and child.name.startswith("checkpoint"))) is not None:
            notes.append(f"{child.name}: {reason} (an interrupted save?), left out")
        else:
            folders.setdefault(step, child)
    if not folders:
        tail = f"; {notes[0]}" if notes else ""
        raise CheckpointsError(f"{folder}: expected folders like checkpoint-200 with {ADAPTER} or {WHOLE}, found none{tail}")
    folders = dict(sorted(folders.items()))
    training, logged = _training(folder, [child for _, child in candidates])
    return TrainerOutput(folder, folders, _kind(folder, folders), _base(folder, folders), training, (*notes, *logged))


def fingerprint(folder: str | Path, whole: int = HASHED_WHOLE) -> str:
    """A digest of the weights in a folder; a hub name is its own.

    Args:
        folder: With safetensors files.
        whole: Files of up to so many bytes are read whole; of larger ones the header, the beginning, the end, and samples between.
    """
    place = Path(folder)
    if not place.is_dir():
        return f"hub:{folder}"
    digest = hashlib.sha256()
    for file in sorted(place.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= whole:
                digest.update(stream.read())
                continue
            digest.update(stream.read(1 << 20))
            for part in range(1, 64):
                stream.seek(part * size // 64)
                digest.update(stream.read(1 << 14))
            stream.seek(-(1 << 20), 2)
            digest.update(stream.read())
    return digest.hexdigest()


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Folders named by a step, those of the recorder (`adapters/`) first; the folder itself when it is one."""
    found = []
    for place in (folder / "adapters", folder):
        children = sorted(place.iterdir()) if place.is_dir() else []
        found += [(step, child) for child in children if child.is_dir() and (step := step_of(child.name)) is not None]
    own = step_of(folder.name)
    if not found and own is not None and _incomplete(folder, False) is None:
        found = [(own, folder)]
    return sorted(found, key=lambda each: each[0])


def _incomplete(folder: Path, with_state: bool) -> str | None:
    """Why a checkpoint is not whole, or None.

    Raises:
        CheckpointsError: Its weights are there only as a pickle.
    """
    if (folder / ADAPTER).exists():
        files = [folder / ADAPTER]
        if not (folder / ADAPTER_CONFIG).is_file():
            return f"no {ADAPTER_CONFIG}"
    elif (folder / INDEX).exists():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
            files = [folder / Path(str(name)).name for name in shards]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{INDEX} is damaged"
    elif (folder / WHOLE).exists():
        files = [folder / WHOLE]
    else:
        _refuse_pickle(folder)
        return f"no {ADAPTER} and no {WHOLE}"
    if files[0].name != ADAPTER and not (folder / "config.json").is_file():
        return "no config.json"
    for file in files:
        if not file.is_file():
            return f"{file.name} is missing"
        if not _is_whole(file):
            return f"{file.name} is cut short"
    return "no whole trainer_state.json" if with_state and _state(folder) is None else None


def _refuse_pickle(folder: Path) -> None:
    for pattern in PICKLED:
        for file in sorted(folder.glob(pattern)):
            raise CheckpointsError(
                f"{file}: expected safetensors, found a pickle, which can run code when it is loaded; "
                "save it again with safe_serialization=True"
            )


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            return False
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return False
    return bool(size == 8 + length + max(ends, default=0))


def _state(folder: Path) -> dict[str, Any] | None:
    """trainer_state.json (NaN allowed, as transformers writes it), or None when it is missing or cut short."""
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _kind(folder: Path, folders: Mapping[int, Path]) -> Kind:
    kinds: dict[Kind, Path] = {}
    for child in folders.values():
        kinds.setdefault("adapter" if (child / ADAPTER).exists() else "whole", child)
    if len(kinds) > 1:
        one, other = kinds["adapter"], kinds["whole"]
        raise CheckpointsError(
            f"{folder}: expected checkpoints of one kind, found an adapter in {one.name} and a whole model in {other.name}"
        )
    return next(iter(kinds))


def _base(folder: Path, folders: Mapping[int, Path]) -> str | None:
    """What names the base: the newest adapter's configuration, else the recorder's note; a relative folder is looked for above the run."""
    newest = folders[max(folders)]
    for file, key in ((newest / ADAPTER_CONFIG, "base_model_name_or_path"), (folder / "recorder.json", "base")):
        try:
            named = json.loads(file.read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(named, str) and named:
            places = [parent / named for parent in (newest, *newest.resolve().parents[:4])]
            return next((str(place) for place in places if (place / "config.json").is_file()), named)
    return None


def _training(folder: Path, children: Sequence[Path]) -> tuple[tuple[Mapping[str, Any], ...], list[str]]:
    """Rows of the newest trainer_state.json and, over them, of the recorder's training.jsonl; and a note on values that were no numbers."""
    states = [state for child in (folder, *children) if (state := _state(child)) is not None]
    newest = max(states, key=_global_step, default={})
    logged: dict[int, dict[str, Any]] = {}
    history = newest.get("log_history")
    for row in history if isinstance(history, list) else []:
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            logged.setdefault(row["step"], {}).update({k: row[k] for k in ("loss", "grad_norm", "learning_rate", "epoch") if k in row})
    if (folder / TRAINING).is_file():
        for _, row in read_lines(folder / TRAINING):
            if isinstance(row.get("step"), int):
                logged.setdefault(row["step"], {}).update({k: v for k, v in row.items() if k != "step" and v is not None})
    rows, odd = [], dict[str, list[int]]()
    for step, values in sorted(logged.items()):
        numbers = {name: _number(value) for name, value in values.items()}
        for name in (name for name, number in numbers.items() if number is None):
            odd.setdefault(name, []).append(step)
        if {"loss", "grad_norm", "learning_rate"} & numbers.keys():
            rows.append({"step": step, **numbers})
    notes = [
        f"training log: {name} is no number at {len(steps)} of {len(rows)} steps (first: step {steps[0]}), kept as missing"
        for name, steps in sorted(odd.items())
    ]
    return tuple(rows), notes


def _global_step(state: Mapping[str, Any]) -> int:
    step = state.get("global_step")
    return step if isinstance(step, int) else -1


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
