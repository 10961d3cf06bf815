"""Where the weights of a run's checkpoints are: a Trainer's output, a folder of adapters, or named stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError
from tracing.trainer_output import fingerprint, read_trainer_output

if TYPE_CHECKING:
    from probes.subjects import AdapterFolders, WholeFolders


@dataclass(frozen=True)
class CheckpointSource:
    """The checkpoints of one run, by step.

    Attributes:
        name: Of the subject, for the manifest.
        folders: Folder of each step's weights; None: the base of the adapters, or a hub name in `base`.
        adapters: Whether they are adapters of one base; else whole models.
        base: Folder or hub name of the base; None where there is none.
        stages: Name of each step, where steps are stages.
        training: What the trainer logged.
        notes: What was left out, and why.
    """

    name: str
    folders: Mapping[int, Path | None]
    adapters: bool
    base: str | None = None
    stages: Mapping[int, str] | None = None
    training: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """Checkpoints, ascending."""
        return tuple(sorted(self.folders))

    def resolved(self) -> CheckpointSource:
        """The same with absolute folders, for machines that work in another directory."""
        folders = {step: folder.resolve() if folder is not None and folder.exists() else folder for step, folder in self.folders.items()}
        base = str(Path(self.base).resolve()) if self.base is not None and Path(self.base).exists() else self.base
        return replace(self, folders=folders, base=base)

    def folder(self, step: int) -> str:
        """Folder (or hub name) of the weights of a step."""
        return str(self.folders[step] or self.base)

    def fingerprints(self) -> dict[int, str]:
        """A digest of the weights of every step."""
        return {step: fingerprint(self.folder(step)) for step in self.steps}

    def subjects(self, dtype: str = "float32", device: str | None = None) -> AdapterFolders | WholeFolders:
        """The subject at every step, read when it is asked for."""
        from probes.subjects import AdapterFolders, WholeFolders

        if self.adapters:
            return AdapterFolders(str(self.base), self.folders, dtype, device)
        return WholeFolders({step: Path(self.folder(step)) for step in self.steps}, self.base, dtype, device)

    def tokenizer_places(self) -> list[str]:
        """Where a tokenizer may lie: the newest checkpoint first, the folder above it, the base last."""
        newest = [Path(self.folder(step)) for step in reversed(self.steps)]
        above = [folder.parent for folder in newest[:1]]
        places = [str(place) for place in (newest[0], *above, *newest[1:]) if (place / "tokenizer_config.json").is_file()]
        return [*places, *([self.base] if self.base else [])] or [str(newest[0])]


def checkpoints_in(path: Path, base_model: str | None = None) -> CheckpointSource:
    """The whole checkpoints of a folder, with the base as step 0 where it is known.

    Args:
        path: A Trainer's or TRL's output directory, or any folder of `checkpoint-N` or `adapters/step-N`.
        base_model: The base; None: what the adapters name.

    Raises:
        CheckpointsError: No checkpoint is there, or one is refused.
        ConfigError: Adapters name no base, or there is only one checkpoint.
    """
    found = read_trainer_output(path)
    base = base_model or found.base
    folders: dict[int, Path | None] = dict(found.folders)
    notes = list(found.notes)
    if found.kind == "adapter" and base is None:
        raise ConfigError(f"{path}: expected adapters that name their base, found none; give --base-model PATH")
    if base is not None:
        folders.setdefault(0, None)
    elif 0 not in folders:
        notes.append("the base is not known, so the first checkpoint stands for it; --base-model PATH adds it as step 0")
    if len(folders) < 2:
        tail = f" ({'; '.join(notes)})" if notes else ""
        raise ConfigError(f"{path}: expected at least two checkpoints (the base counts), found one{tail}")
    name = path.resolve().name
    return CheckpointSource(name, dict(sorted(folders.items())), found.kind == "adapter", base, None, found.training, tuple(notes))


def stages_in(stages: Mapping[str, str], base_model: str | None = None) -> CheckpointSource:
    """Named stages as a run: step 0, 1, 2, … in the order given.

    Args:
        stages: Folder (or hub name) by name, in order: whole models, or adapters beside the base they name.
        base_model: Base of the stages that are adapters.

    Raises:
        ConfigError: There are fewer than two.
    """
    if len(stages) < 2:
        raise ConfigError(f"expected at least two --stages NAME=PATH, found {len(stages)}")
    folders = {step: Path(path) for step, path in enumerate(stages.values())}
    names = dict(enumerate(stages))
    notes = ("stages: " + ", ".join(f"step {step} is {name}" for step, name in names.items()),)
    return replace(CheckpointSource(" -> ".join(stages), folders, False, base_model), stages=names, notes=notes)
