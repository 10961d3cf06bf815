"""The run directory: everything recorded about one run, on disk, in a form that survives a crash.

manifest.json                        what was recorded and under which settings
responses/step-000120.parquet        responses sampled at step 120 (its presence says that the step is complete)
likelihoods/step-000120.npy          their log-probabilities under other checkpoints (+ .steps.json)
tokens/step-000120.npz               their token ids as sampled
training.jsonl                       what the trainer logged
adapters/step-000120/                the weights
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.errors import EventsError, LikelihoodsError, ResponsesError, RunDirectoryError
from tracing.json_lines import append_lines, read_lines
from tracing.likelihoods import check_likelihoods, read_likelihoods, read_scored_steps, steps_path, write_likelihoods
from tracing.manifest import Manifest
from tracing.recording import Recording, TrainingTrace
from tracing.responses import Responses, read_parquet, step_name, write_parquet
from tracing.whole_file import sync_folder, whole_file

__all__ = ["Manifest", "Recording", "RunDirectory", "TrainingTrace"]

MANIFEST_NAME = "manifest.json"
_STEP_FILE = re.compile(r"step-(\d{6,})\.parquet")
_TRAINING_COLUMNS = ("loss", "grad_norm", "learning_rate", "epoch")


@dataclass(frozen=True)
class RunDirectory:
    """A run directory that exists. Make one with `create`, open one with `open`.

    Attributes:
        path: The folder.
        manifest: Its manifest.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest) -> RunDirectory:
        """Create a run directory, or go on with one that was recorded under the same settings (its steps are kept).

        Raises:
            RunDirectoryError: The folder holds a recording under other settings, or is no folder.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise RunDirectoryError(f"{folder}: expected a folder to record into, found a file")
        if (folder / MANIFEST_NAME).exists():
            found = Manifest.read(folder / MANIFEST_NAME)
            if found.digest != manifest.digest:
                raise RunDirectoryError(
                    f"{folder}: expected the settings of the recording that is there, found {_differences(found, manifest)}"
                )
            manifest = replace(manifest, steps=tuple(sorted({*found.steps, *manifest.steps})))
            if found == manifest:
                return cls(folder, found)
        manifest.write(folder / MANIFEST_NAME)
        return cls(folder, manifest)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open an existing run directory.

        Raises:
            RunDirectoryError: It is none, has a foreign format, or was written by a newer program.
        """
        return cls(Path(path), Manifest.read(Path(path) / MANIFEST_NAME))

    def responses_path(self, step: int) -> Path:
        """Where the responses sampled at `step` are."""
        return self.path / "responses" / f"{step_name(step)}.parquet"

    def likelihoods_path(self, step: int) -> Path:
        """Where the log-probabilities of the responses sampled at `step` are."""
        return self.path / "likelihoods" / f"{step_name(step)}.npy"

    def tokens_path(self, step: int) -> Path:
        """Where the sampled token ids of the responses of `step` are, if they were kept."""
        return self.path / "tokens" / f"{step_name(step)}.npz"

    def adapters_path(self, step: int) -> Path:
        """The folder for the weights of `step`."""
        return self.path / "adapters" / step_name(step)

    def has_step(self, step: int) -> bool:
        """Whether the responses of `step` are recorded, with the log-probabilities they were written with."""
        return self.responses_path(step).exists()

    def has_likelihoods(self, step: int) -> bool:
        """Whether the responses of `step` are recorded and scored."""
        return self.has_step(step) and self.likelihoods_path(step).exists()

    def scored_steps(self, step: int) -> tuple[int, ...]:
        """The checkpoints under which the responses of `step` are scored, ascending; none when they are not.

        Raises:
            LikelihoodsError: The sidecar is damaged or was recorded under other settings.
        """
        if not self.has_likelihoods(step):
            return ()
        found = read_scored_steps(self.likelihoods_path(step), settings=self.manifest.digest)
        return self.manifest.steps if found is None else found

    def recorded_steps(self) -> tuple[int, ...]:
        """Steps with recorded responses, ascending. Leftovers of a crash (`.….tmp`) do not count.

        Raises:
            RunDirectoryError: A file is named almost like a step, and would be overlooked.
        """
        folder = self.path / "responses"
        steps = []
        for file in sorted(folder.glob("step-*.parquet")) if folder.is_dir() else ():
            name = _STEP_FILE.fullmatch(file.name)
            if name is None or step_name(int(name.group(1))) != file.stem:
                raise RunDirectoryError(f"{file}: expected a name like step-000120.parquet, found {file.name}")
            steps.append(int(name.group(1)))
        return tuple(sorted(steps))

    def write_step(
        self,
        step: int,
        responses: Responses,
        likelihoods: npt.NDArray[np.floating] | None = None,
        scored_steps: Sequence[int] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Record one step: all of it or, if the process dies, nothing of it.

        Args:
            step: Where the responses were sampled; one of the manifest's steps.
            responses: n responses of this step.
            likelihoods: Shape (n, len(scored_steps), 1 + len(manifest.prefixes)), nats; None when they are scored later
                (`write_likelihoods`) or never.
            scored_steps: The checkpoint of each column; all steps of the manifest when None.
            overwrite: Replace a step that is already recorded.

        Raises:
            RunDirectoryError: The step is unknown or already recorded, or the responses belong to another step.
            LikelihoodsError: The array does not fit or holds values that are no log-probabilities.
        """
        self._check_step(step)
        if self.has_step(step) and not overwrite:
            raise RunDirectoryError(f"{self.responses_path(step)}: expected a step that is not recorded yet, found it there already")
        if responses.step is not None and not np.all(responses.step == step):
            raise RunDirectoryError(f"{self.path}: expected responses of step {step}, found some of {sorted(set(responses.step.tolist()))}")
        if responses.step is None:
            responses = _at_step(responses, step)
        if likelihoods is not None:
            self._check_likelihoods(step, len(responses), likelihoods, scored_steps)
        self._remove(self.responses_path(step))
        self._remove(self.likelihoods_path(step))
        if likelihoods is not None:
            self._write_likelihoods(step, likelihoods, scored_steps)
        write_parquet(self.responses_path(step), responses, settings=self.manifest.digest)

    def write_likelihoods(self, step: int, likelihoods: npt.NDArray[np.floating], scored_steps: Sequence[int] | None = None) -> None:
        """Record (or replace) the log-probabilities of responses that are already recorded.

        Raises:
            RunDirectoryError: The step has no responses.
            LikelihoodsError: The array does not fit or holds values that are no log-probabilities.
        """
        if not self.has_step(step):
            raise RunDirectoryError(f"{self.path}: expected step {step} to have responses before they are scored, found none")
        self._check_likelihoods(step, len(self.read_step(step)), likelihoods, scored_steps)
        self._write_likelihoods(step, likelihoods, scored_steps)

    def read_step(self, step: int) -> Responses:
        """The responses sampled at `step`.

        Raises:
            ResponsesError: The file is damaged or was recorded under other settings.
            RunDirectoryError: The file holds other steps.
        """
        path = self.responses_path(step)
        responses = read_parquet(path, settings=self.manifest.digest)
        if responses.step is None or not np.all(responses.step == step):
            raise RunDirectoryError(f"{path}: expected responses of step {step} only, found others")
        return responses

    def read_likelihoods(self, step: int) -> tuple[npt.NDArray[np.float32], tuple[int, ...]] | None:
        """The log-probabilities of the responses of `step` and the checkpoints they were scored under, or None.

        Raises:
            LikelihoodsError: The file is damaged or was recorded under other settings.
        """
        path = self.likelihoods_path(step)
        if not path.exists():
            return None
        steps = read_scored_steps(path, settings=self.manifest.digest)
        return read_likelihoods(path), self.manifest.steps if steps is None else steps

    def append_training(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append to training.jsonl: step, and any of loss, grad_norm, grad_norm_clipped, learning_rate, epoch. NaN is written as null."""
        append_lines(self.path / "training.jsonl", ({name: _finite(value) for name, value in row.items()} for row in rows))

    def write_training(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write training.jsonl anew, whole or not at all; nothing happens when it says the same already, or there are no rows."""
        plain = [{name: _finite(value) for name, value in row.items()} for row in rows]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in plain).encode()
        path = self.path / "training.jsonl"
        if text and not (path.exists() and path.read_bytes() == text):
            with whole_file(path) as file:
                file.write(text)

    def training(self) -> TrainingTrace | None:
        """What the trainer logged, ascending in steps (of a step logged twice the later values count), or None.

        Raises:
            EventsError: A line is damaged, has no step, or a value is no number.
        """
        path = self.path / "training.jsonl"
        if not path.exists():
            return None
        logged: dict[int, dict[str, float]] = {}
        for number, row in read_lines(path):
            step = row.get("step")
            if not isinstance(step, int) or isinstance(step, bool):
                raise EventsError(f"{path}:{number}: expected a whole number 'step', found {step!r}")
            values = logged.setdefault(step, {})
            for name in _TRAINING_COLUMNS:
                value = row.get(name)
                if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                    raise EventsError(f"{path}:{number}: expected a number {name!r}, found {value!r}")
                if value is not None:
                    values[name] = float(value)
        steps = sorted(logged)
        columns = {name: np.array([logged[step].get(name, math.nan) for step in steps], dtype=np.float64) for name in _TRAINING_COLUMNS}
        return TrainingTrace(step=np.array(steps, dtype=np.int64), **columns)

    def load(self) -> Recording:
        """Read everything into memory.

        Raises:
            RunDirectoryError: Nothing is recorded, or steps that the manifest does not know.
            ResponsesError, LikelihoodsError, EventsError: A file is damaged or was recorded under other settings.
        """
        recorded = self.recorded_steps()
        if not recorded:
            raise RunDirectoryError(f"{self.path}: expected recorded responses (responses/step-….parquet), found none")
        for step in recorded:
            self._check_step(step)
        parts = {step: self.read_step(step) for step in recorded}
        scored = {step: found for step in recorded if (found := self.read_likelihoods(step)) is not None}
        for step, (array, columns) in scored.items():
            where = str(self.likelihoods_path(step))
            check_likelihoods(array, len(parts[step]), len(columns), len(self.manifest.prefixes), where)
        steps = tuple(sorted({*recorded, *(column for _, columns in scored.values() for column in columns)}))
        try:
            responses = Responses.concatenate(list(parts.values()))
        except ResponsesError as error:
            raise ResponsesError(f"{self.path}: {error}") from error
        whole, prefixes = self._assemble(parts, scored, steps)
        return Recording(
            source=str(self.path),
            digest=self._content_digest(recorded),
            responses=responses,
            steps=steps,
            log_likelihood=whole,
            prefix_log_likelihood=prefixes,
            training=self.training(),
            manifest=self.manifest,
            notes=(*self.manifest.notes, *self._notes(steps)),
        )

    def _assemble(
        self, parts: dict[int, Responses], scored: dict[int, tuple[npt.NDArray[np.float32], tuple[int, ...]]], steps: tuple[int, ...]
    ) -> tuple[npt.NDArray[np.float64] | None, dict[int, npt.NDArray[np.float64]]]:
        if not scored:
            return None, {}
        n = sum(len(part) for part in parts.values())
        full = np.full((1 + len(self.manifest.prefixes), n, len(steps)), np.nan)
        start = 0
        for step, part in parts.items():
            if step in scored:
                array, columns = scored[step]
                full[:, start : start + len(part), np.searchsorted(steps, columns)] = np.moveaxis(array, 2, 0)
            start += len(part)
        return full[0], dict(zip(self.manifest.prefixes, full[1:], strict=True))

    def _notes(self, steps: tuple[int, ...]) -> tuple[str, ...]:
        if missing := [step for step in self.manifest.steps if step not in steps]:
            shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
            return (f"{len(missing)} of {len(self.manifest.steps)} checkpoints are neither sampled nor scored: step {shown}",)
        return ()

    def _content_digest(self, recorded: tuple[int, ...]) -> str:
        files = [self.path / MANIFEST_NAME, self.path / "training.jsonl"]
        for step in recorded:
            files += [self.responses_path(step), self.likelihoods_path(step), steps_path(self.likelihoods_path(step))]
        total = hashlib.sha256()
        for file in files:
            if file.exists():
                total.update(f"{file.relative_to(self.path).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        return total.hexdigest()

    def _write_likelihoods(self, step: int, likelihoods: npt.NDArray[np.floating], scored_steps: Sequence[int] | None) -> None:
        columns = self.manifest.steps if scored_steps is None else scored_steps
        write_likelihoods(self.likelihoods_path(step), likelihoods, columns, settings=self.manifest.digest)

    def _check_likelihoods(self, step: int, n: int, likelihoods: npt.NDArray[np.floating], scored_steps: Sequence[int] | None) -> None:
        columns = self.manifest.steps if scored_steps is None else tuple(scored_steps)
        where = str(self.likelihoods_path(step))
        if unknown := sorted(set(columns) - set(self.manifest.steps)):
            raise LikelihoodsError(f"{where}: expected scored steps of the manifest, found also {unknown}")
        if list(columns) != sorted(set(columns)):
            raise LikelihoodsError(f"{where}: expected scored steps in ascending order, found {list(columns)}")
        check_likelihoods(likelihoods, n, len(columns), len(self.manifest.prefixes), where)

    def _check_step(self, step: int) -> None:
        if step not in self.manifest.steps:
            raise RunDirectoryError(f"{self.path}: expected a step of the manifest ({_shown(self.manifest.steps)}), found {step}")

    @staticmethod
    def _remove(path: Path) -> None:
        if path.exists():
            path.unlink()
            sync_folder(path.parent)


def _at_step(responses: Responses, step: int) -> Responses:
    """Responses that did not know their step; those only counted from 0 are named by it, since every other step counts from 0 too."""
    counted = tuple(str(i) for i in range(len(responses)))
    ids = tuple(f"{step_name(step)}/{i}" for i in counted) if responses.response_id == counted else responses.response_id
    return replace(responses, response_id=ids, step=np.full(len(responses), step, dtype=np.int64))


def _shown(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) <= 8 else f"{steps[0]} to {steps[-1]}, {len(steps)} in all"


def _differences(there: Manifest, given: Manifest) -> str:
    pairs = [(name, there.settings[name], given.settings[name]) for name in there.settings if there.settings[name] != given.settings[name]]
    return "; ".join(f"{name} {given!r} instead of {there!r}" for name, there, given in pairs)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
