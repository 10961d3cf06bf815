"""Recording the tiny model organism: train it, sample and score every checkpoint, and write the run directory.

Each part is written whole and kept: a recording that was interrupted goes on where it stopped and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.checkpoints import Checkpoints
from probes.likelihood import Request, distinct, log_likelihoods, plan
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
from probes.sampler import Draw, Question, encode_question, sample
from tracing.lock import run_lock
from tracing.responses import Responses
from tracing.run_directory import MANIFEST_NAME, Manifest, RunDirectory
from tracing.whole_file import whole_file

Progress = Callable[[str, int, int], None]  # what is done, how far, of how many

SUBJECT_FOLDER = "subject"
TRUTH_NAME = "truth.parquet"
CHECKPOINTS_AT_A_TIME = (
    16  # sampled together, so that enough responses to one prompt share its forward pass; the unit that a crash can lose
)
NOISE_SAMPLE = 3  # responses per prompt scored again in double precision


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
            extra={"organism": written, "seed": seed, "threads_per_computation": 1, "checkpoints_at_a_time": CHECKPOINTS_AT_A_TIME},
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
        with Checkpoints(subject, adapters, workers or os.cpu_count() or 1) as checkpoints:
            _sample_and_score(run, recipe, seed, tokenizer, checkpoints, report)
        if run.manifest.scoring["noise_nats"] is None:
            with Checkpoints(in_double_precision(subject), adapters, 1) as checkpoints:
                noise = _scoring_noise(run, recipe, tokenizer, checkpoints)
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


def _sample_and_score(
    run: RunDirectory, recipe: OrganismRecipe, seed: int, tokenizer: Any, checkpoints: Checkpoints, report: Progress
) -> None:
    asked = [Question(text) for text in questions(recipe.questions_per_domain, recipe.pretraining.domains)]
    encoded = [encode_question(tokenizer, question) for question in asked]
    blocks = [recipe.steps[k : k + CHECKPOINTS_AT_A_TIME] for k in range(0, len(recipe.steps), CHECKPOINTS_AT_A_TIME)]
    sampled, scored = 0, 0
    for block in blocks:
        if all(run.has_likelihoods(step) for step in block):
            sampled, scored = sampled + len(block), scored + len(recipe.steps)
            continue

        def draw(subject: Any, step: int) -> list[Draw]:
            return sample(subject, tokenizer, asked, recipe.responses_per_prompt, _draw_seed(seed, step), recipe.max_tokens)

        draws = []
        for drawn in checkpoints.each(draw, block):
            draws.append(drawn)
            report("sampling", sampled := sampled + 1, len(recipe.steps))
        requests = [Request(encoded[one.question], one.tokens) for drawn in draws for one in drawn]
        first, place = distinct(requests)
        score = partial(_score, batches=plan([requests[k] for k in first]), prefixes=recipe.prefixes)
        columns = []
        for column in checkpoints.each(score, recipe.steps):
            columns.append(column)
            report("scoring", scored := scored + 1, len(blocks) * len(recipe.steps))
        scores = np.split(np.stack(columns, axis=1)[place].astype(np.float32), len(block))
        for step, drawn, likelihoods in zip(block, draws, scores, strict=True):
            if not run.has_likelihoods(step):
                texts = [asked[one.question].prompt for one in drawn], [one.text for one in drawn]
                run.write_step(step, Responses.of(*texts, step=step), likelihoods, overwrite=True)


def _draw_seed(seed: int, step: int) -> int:
    """One stream of draws per checkpoint, so that an interrupted recording goes on with the draws it would have had."""
    return int(np.random.SeedSequence([seed, 3, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _scoring_noise(run: RunDirectory, recipe: OrganismRecipe, tokenizer: Any, checkpoints: Checkpoints) -> float:
    """Largest absolute difference (nats) between stored log-probabilities and the same ones in double precision.

    Measured on `NOISE_SAMPLE` responses per prompt, drawn at the middle checkpoint, under the first, the middle and the last one.
    """
    chosen = [recipe.steps[0], recipe.steps[len(recipe.steps) // 2], recipe.steps[-1]]
    responses = run.read_step(chosen[1])
    stored = run.read_likelihoods(chosen[1])
    if stored is None:
        raise AssertionError("a recorded step has likelihoods")
    rows = np.arange(min(len(responses), NOISE_SAMPLE * len(set(responses.prompt))))
    requests = [_request(tokenizer, responses.prompt[k], responses.completion[k], recipe.max_tokens) for k in rows]
    exact = checkpoints.each(partial(_score, batches=plan(requests), prefixes=recipe.prefixes), chosen)
    columns = [stored[1].index(step) for step in chosen]
    worst = np.abs(stored[0][rows][:, columns].astype(np.float64) - np.stack(list(exact), axis=1)).max()
    return float(f"{worst:.2g}")


def _score(subject: Any, step: int, batches: Sequence[Any], prefixes: Sequence[int]) -> npt.NDArray[np.float64]:
    return log_likelihoods(subject, batches, prefixes)


def _request(tokenizer: Any, prompt: str, completion: str, max_tokens: int) -> Request:
    """Back from text to what was sampled: the tokenizer loses nothing, and what is shorter than `max_tokens` had ended by itself."""
    tokens = tuple(tokenizer(completion, add_special_tokens=False)["input_ids"])
    return Request(encode_question(tokenizer, Question(prompt)), tokens if len(tokens) == max_tokens else (*tokens, tokenizer.eos_token_id))


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
