"""Recording checkpoints that somebody trained: ask them questions, score the answers, write the run directory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.checkpoint_source import CheckpointSource
from agent.errors import ConfigError, RecordingError
from agent.instrument import Drawing, LocalInstrument
from agent.recording import Instrument, Progress, record, scoring_noise
from agent.run_tokenizer import run_tokenizer
from agent.sampling_plan import SamplingPlan
from probes.sampler import Question
from tracing.lock import run_lock
from tracing.run_directory import MANIFEST_NAME, Manifest, RunDirectory
from tracing.whole_file import whole_file

COPIED_ADAPTERS = 1 << 28
"""Adapters up to this size in all (bytes) are copied into the run directory, where the report looks for them."""
SMALL_SUBJECT = 1 << 29
"""Weights up to this size (bytes) are held once for each core and also tried in float64; larger ones once, computed on all cores."""


@dataclass(frozen=True)
class Recorder:
    """How checkpoints are recorded.

    Attributes:
        drawing: How responses are drawn and scored.
        plan: Which checkpoints are sampled, and under which their responses are scored.
        dtype: Of the weights.
        device: None: the best there is.
        workers: Threads with a copy of the subject each; None: as many as cores and memory allow.
        ray: Address of a Ray cluster that draws and scores; None: this process does.
        note: Called with what cannot be done fast, and why.
    """

    drawing: Drawing
    plan: SamplingPlan
    dtype: str = "float32"
    device: str | None = None
    workers: int | None = None
    ray: str | None = None
    note: Callable[[str], None] = lambda _: None


def record_checkpoints(
    source: CheckpointSource, questions: Sequence[Question], out: Path, how: Recorder, progress: Progress | None = None
) -> RunDirectory:
    """Sample and score checkpoints into the run directory `out`, or go on with one that was interrupted.

    Args:
        source: The checkpoints.
        questions: What is asked.
        out: The folder; what it holds already under the same settings is kept.
        how: Everything else.
        progress: Called as (phase, done, total).

    Raises:
        RunDirectoryError: `out` holds a recording under other settings.
        RecordingError: The weights of a step are not those it was recorded with.
        SampleError: A checkpoint cannot be loaded, or stages do not share a tokenizer.
        LockedError: Another process records there.
    """
    if not questions or len(set(questions)) < len(questions):
        raise ConfigError(f"expected different questions, found {len(questions)}, {len(set(questions))} of them different")
    tokenizer, notes = run_tokenizer(source)
    source = replace(source, notes=(*source.notes, *notes))
    out.mkdir(parents=True, exist_ok=True)
    with run_lock(out):
        run = RunDirectory.create(out, _manifest(source, questions, tokenizer, out, how))
        run.write_training(source.training)
        _copy_adapters(source, run)
        with (_on_ray if how.ray else _local)(source, tokenizer, questions, how) as instrument:
            record(run, instrument, how.plan, progress)
        if run.manifest.scoring["noise_nats"] is None and (exact := _more_exact(source, how)) is not None:
            with _local(source, tokenizer, questions, exact) as instrument:
                noise = scoring_noise(run, instrument)
            run = replace(run, manifest=replace(run.manifest, scoring={**run.manifest.scoring, "noise_nats": noise}))
            run.manifest.write(out / MANIFEST_NAME)
    return run


def _manifest(source: CheckpointSource, questions: Sequence[Question], tokenizer: Any, out: Path, how: Recorder) -> Manifest:
    drawing = how.drawing
    asked = [[question.system, question.prompt] for question in questions]
    weights = source.fingerprints()
    sampling = {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": drawing.max_tokens,
        "seed": drawing.seed,
        "responses_per_prompt": drawing.per_question,
        "dtype": how.dtype,
        "questions": _digest(asked),
        "chat_template": _digest(tokenizer.chat_template),
        "first_checkpoint": weights[source.steps[0]],
        **how.plan.settings,
    }
    manifest = Manifest(
        subject=source.name,
        steps=source.steps,
        prefixes=drawing.prefixes,
        sampling=sampling,
        scoring={"dtype": how.dtype, "noise_nats": None},
        notes=source.notes,
        extra={
            "weights": {str(step): digest for step, digest in weights.items()},
            "base_model": source.base,
            "questions": asked,
            **({} if source.stages is None else {"stages": {str(step): name for step, name in source.stages.items()}}),
        },
    )
    return _continued(manifest, out)


def _continued(manifest: Manifest, out: Path) -> Manifest:
    """The manifest of a recording that goes on: what was measured stays, and no step has other weights than it had."""
    if not (out / MANIFEST_NAME).exists():
        return manifest
    found = Manifest.read(out / MANIFEST_NAME)
    before, now = found.extra.get("weights"), manifest.extra["weights"]
    if found.digest == manifest.digest and isinstance(before, dict):
        for step, digest in before.items():
            if now.get(step) != digest:
                other = "other weights" if step in now else "no weights"
                raise RecordingError(f"{out}: expected the weights that step {step} was recorded with, found {other}; choose another --out")
    return replace(manifest, scoring={**manifest.scoring, "noise_nats": found.scoring.get("noise_nats")})


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@contextmanager
def _local(source: CheckpointSource, tokenizer: Any, questions: Sequence[Question], how: Recorder) -> Iterator[Instrument]:
    """An instrument of this process."""
    from probes.checkpoints import Checkpoints

    cores = os.cpu_count() or 1
    small = _is_small(source) and _device(how) == "cpu"
    workers = how.workers or (cores if small else 1)
    with Checkpoints(source.subjects(how.dtype, how.device), workers, 1 if small or workers > 1 else cores) as checkpoints:
        yield LocalInstrument(checkpoints, tokenizer, questions, how.drawing)
        for note in checkpoints.notes:
            how.note(note)


def _more_exact(source: CheckpointSource, how: Recorder) -> Recorder | None:
    """How to score a few responses again to measure the noise: in float64, large subjects in float32; None where nothing is more exact."""
    again = replace(how, workers=1, ray=None, note=lambda _: None)  # what was said once is not said again
    if _is_small(source):
        device = _device(how)
        return replace(again, dtype="float64", device="cpu" if device == "mps" else device)
    return replace(again, dtype="float32") if how.dtype != "float32" else None


@contextmanager
def _on_ray(source: CheckpointSource, tokenizer: Any, questions: Sequence[Question], how: Recorder) -> Iterator[Instrument]:
    """An instrument of the machines of a Ray cluster."""
    from agent.ray_instrument import Job, RayInstrument, ray_cluster
    from probes.sampler import encode_question

    with ray_cluster(str(how.ray)):
        job = Job(source.resolved(), tuple(questions), how.drawing, how.dtype, how.device)
        yield RayInstrument(job, [encode_question(tokenizer, question) for question in questions])


def _device(how: Recorder) -> str:
    from probes.subjects import detected_device

    return detected_device(how.device)


def _is_small(source: CheckpointSource) -> bool:
    folder = Path(source.base if source.adapters and source.base else source.folder(source.steps[-1]))
    return folder.is_dir() and sum(file.stat().st_size for file in folder.glob("*.safetensors")) <= SMALL_SUBJECT


def _copy_adapters(source: CheckpointSource, run: RunDirectory) -> None:
    """Small adapters go along with the run: the report reads the rotation of their factors."""
    folders = {step: folder for step, folder in source.folders.items() if folder is not None}
    names = ("adapter_config.json", "adapter_model.safetensors")  # the weights last: they are the mark that both are there
    if not source.adapters or sum((folder / names[1]).stat().st_size for folder in folders.values()) > COPIED_ADAPTERS:
        return
    for step, folder in folders.items():
        for name in names:
            if not (run.adapters_path(step) / name).exists():
                with whole_file(run.adapters_path(step) / name) as file, (folder / name).open("rb") as content:
                    shutil.copyfileobj(content, file)
