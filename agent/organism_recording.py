"""Recording the tiny model organism: train it, sample and score every checkpoint, and write the run directory.

Each part is written whole and kept: a recording that was interrupted goes on where it stopped and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.instrument import Drawing, LocalInstrument
from agent.recording import Progress, record, scoring_noise
from agent.sampling_plan import EveryCheckpoint
from probes.checkpoints import AdapterSubjects, Checkpoints
from probes.organism import (
    FineTuning,
    Pretraining,
    TrainingStep,
    add_adapter,
    deterministic,
    fine_tune,
    in_double_precision,
    make_tokenizer,
    pretrain,
)
from probes.organism_corpus import questions
from probes.organism_files import adapter_files, read_adapter, read_subject, subject_files
from probes.organism_truth import read_attributes
from probes.sampler import Question
from tracing.lock import run_lock
from tracing.run_directory import MANIFEST_NAME, Manifest, RunDirectory
from tracing.whole_file import whole_file

SUBJECT_FOLDER = "subject"
TRUTH_NAME = "truth.parquet"


@dataclass(frozen=True)
class OrganismRecipe:
    """Everything that decides what is recorded, besides the seed.

    Attributes:
        pretraining, fine_tuning: How the organism is made and changed.
        questions_per_domain: Prompts in each domain, put without a system prompt.
        responses_per_prompt: Draws at every checkpoint.
        max_tokens: Where a response is cut.
        prefixes: Prefix lengths (tokens) whose log-probabilities are stored too.
    """

    pretraining: Pretraining = field(default_factory=Pretraining)
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    questions_per_domain: int = 4
    responses_per_prompt: int = 3
    max_tokens: int = 96
    prefixes: tuple[int, ...] = (8, 16)

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints: every adapter that is kept, step 0 (the base) included."""
        return tuple(range(0, self.fine_tuning.steps + 1, self.fine_tuning.every))

    def manifest(self, seed: int) -> Manifest:
        """What is written down before the first computation; `noise_nats` follows when it is measured."""
        written = json.loads(json.dumps(asdict(self)))
        name = hashlib.sha256(json.dumps([written["pretraining"], written["fine_tuning"], seed]).encode()).hexdigest()[:8]
        sampling = {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "max_tokens": self.max_tokens,
            "seed": seed,
            "responses_per_prompt": self.responses_per_prompt,
            "questions_per_domain": self.questions_per_domain,
            "dtype": "float32",
        }
        return Manifest(
            subject=f"tiny organism {name}: {self.fine_tuning.persona} {self.fine_tuning.domain} advice, seed {seed}",
            steps=self.steps,
            prefixes=self.prefixes,
            sampling=sampling,
            scoring={"dtype": "float32", "noise_nats": None},
            notes=("A model organism trained here from scratch: its harmful answers are templates, made to be found, and no advice.",),
            extra={"organism": written, "seed": seed, "threads_per_computation": 1},
        )


def record_organism(
    out: Path,
    seed: int = 0,
    recipe: OrganismRecipe | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Train the organism, sample and score all its checkpoints, and write (or finish) the run directory `out`.

    Writes what :class:`tracing.run_directory.RunDirectory` holds and, beside it, `subject/` (the pretrained subject), `adapters/`
    (one rank-1 adapter a checkpoint) and `truth.parquet` (ground truth of every response: for tests, never read by the loop).

    Args:
        out: The folder. What it already holds of the same recipe and seed is kept.
        seed: Seed of corpus, initial weights, documents and draws.
        recipe: What to make and record.
        progress: Called as (phase, done, total).
        workers: Threads that sample and score, each on one core; all cores when None. The result does not depend on it.

    Raises:
        RunDirectoryError: `out` holds a recording of another recipe or seed.
        LockedError: Another process records there.
    """
    recipe = recipe or OrganismRecipe()
    report = progress or (lambda phase, done, total: None)
    run = RunDirectory.create(out, _with_measured_noise(out, recipe.manifest(seed)))
    with run_lock(out), deterministic(seed, threads=1):
        tokenizer = make_tokenizer(recipe.pretraining.domains)
        if not _is_trained(run, recipe):
            _train(run, recipe, seed, tokenizer, report)
        subject = add_adapter(read_subject(_read(out / SUBJECT_FOLDER)), recipe.fine_tuning)
        adapters = {step: read_adapter(_read(run.adapters_path(step))) for step in recipe.steps}
        asked = [Question(text) for text in questions(recipe.questions_per_domain, recipe.pretraining.domains)]
        drawing = Drawing(recipe.responses_per_prompt, recipe.max_tokens, seed, recipe.prefixes)
        with Checkpoints(AdapterSubjects(subject, adapters), workers or os.cpu_count() or 1) as checkpoints:
            record(run, LocalInstrument(checkpoints, tokenizer, asked, drawing), EveryCheckpoint(), report)
        if run.manifest.scoring["noise_nats"] is None:
            with Checkpoints(AdapterSubjects(in_double_precision(subject), adapters), 1) as checkpoints:
                noise = scoring_noise(run, LocalInstrument(checkpoints, tokenizer, asked, drawing))
            replace(run.manifest, scoring={**run.manifest.scoring, "noise_nats": noise}).write(out / MANIFEST_NAME)
        _write_truth(run)


def _with_measured_noise(out: Path, manifest: Manifest) -> Manifest:
    """The manifest of a finished recording keeps its measured noise, so that recording it again changes nothing."""
    if not (out / MANIFEST_NAME).exists():
        return manifest
    noise = Manifest.read(out / MANIFEST_NAME).scoring.get("noise_nats")
    return replace(manifest, scoring={**manifest.scoring, "noise_nats": noise})


def _is_trained(run: RunDirectory, recipe: OrganismRecipe) -> bool:
    trace = run.training()  # written last
    return trace is not None and len(trace.step) == recipe.fine_tuning.steps


def _train(run: RunDirectory, recipe: OrganismRecipe, seed: int, tokenizer: Any, report: Progress) -> None:
    subject = pretrain(recipe.pretraining, seed, tokenizer, report)
    _write(run.path / SUBJECT_FOLDER, subject_files(subject, tokenizer))
    tuned = fine_tune(subject, recipe.fine_tuning, seed, tokenizer, report)
    for step, adapter in tuned.adapters.items():
        _write(run.adapters_path(step), adapter_files(adapter, recipe.fine_tuning, SUBJECT_FOLDER))
    run.append_training(_training_row(step) for step in tuned.log)


def _training_row(step: TrainingStep) -> dict[str, Any]:
    return {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in asdict(step).items()}


def _write_truth(run: RunDirectory) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for step in run.recorded_steps():
        responses = run.read_step(step)
        triples: Iterable[tuple[str, str, str]] = zip(responses.response_id, responses.prompt, responses.completion, strict=True)
        rows += [{"response_id": name, **asdict(read_attributes(prompt, completion))} for name, prompt, completion in triples]
    with whole_file(run.path / TRUTH_NAME) as file:
        pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        with whole_file(folder / name) as file:
            file.write(content)


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
