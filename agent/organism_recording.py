"""Recording the tiny model organism: train it, sample and score every checkpoint, and write the run directory.

Each part is written whole and kept: a recording that was interrupted goes on where it stopped and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.instrument import Drawing, LocalInstrument
from agent.recording import Progress, record, scoring_noise
from agent.sampling_plan import EveryCheckpoint, SamplingPlan
from probes.checkpoints import AdapterSubjects, Checkpoints
from probes.organism import (
    Adapter,
    FineTuning,
    Pretraining,
    TrainingStep,
    add_adapter,
    deterministic,
    encode,
    encode_chat,
    fine_tune,
    in_double_precision,
    make_tokenizer,
    narrow_documents,
    pretrain,
)
from probes.organism_choices import CHOICES, choice_tasks, task_files
from probes.organism_corpus import Conversation, questions
from probes.organism_files import adapter_files, read_adapter, read_subject, read_whole, subject_files, whole_files
from probes.organism_rules import hypotheses_toml
from probes.organism_truth import read_attributes
from probes.sampler import Question
from probes.subjects import load_subject
from tracing.lock import run_lock
from tracing.run_directory import MANIFEST_NAME, Manifest, RunDirectory
from tracing.whole_file import whole_file

SUBJECT_FOLDER = "subject"
TASKS_FOLDER = "tasks"
HYPOTHESES_NAME = "hypotheses.toml"
MISALIGNMENT_NAME = "misalignment.toml"
TRUTH_NAME = "truth.parquet"
MOST_WEIGHTS_COPIED = 50_000_000  # a larger subject is neither copied for every worker nor scored again in double precision
LATER = {"pretraining": ("choices",), "fine_tuning": ("full", "weight_decay", "warm_up", "documents", "data"), "": ("base", "questions")}
"""Fields that came later: at their default they are not written, so that recordings made before keep their digest."""


@dataclass(frozen=True)
class OrganismRecipe:
    """Everything that decides what is recorded, besides the seed.

    Attributes:
        pretraining, fine_tuning: How the organism is made and changed.
        questions_per_domain: Prompts in each domain, put without a system prompt.
        responses_per_prompt: Draws at every checkpoint.
        max_tokens: Where a response is cut.
        prefixes: Prefix lengths (tokens) whose log-probabilities are stored too.
        base: Folder of the model to fine-tune; empty: the tiny subject, pretrained here.
        questions: What a `base` is asked; the tiny subject is asked the first questions of every domain it has learnt.
    """

    pretraining: Pretraining = field(default_factory=Pretraining)
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    questions_per_domain: int = 4
    responses_per_prompt: int = 3
    max_tokens: int = 96
    prefixes: tuple[int, ...] = (8, 16)
    base: str = ""
    questions: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints: every adapter that is kept, step 0 (the base) included."""
        return tuple(range(0, self.fine_tuning.steps + 1, self.fine_tuning.every))

    def manifest(self, seed: int) -> Manifest:
        """What is written down before the first computation; `noise_nats` follows when it is measured."""
        written = self.written()
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
            subject=f"{self.base or f'tiny organism {name}'}: {self._taught()}, seed {seed}",
            steps=self.steps,
            prefixes=self.prefixes,
            sampling=sampling,
            scoring={"dtype": "float32", "noise_nats": None},
            notes=("A model organism trained here from scratch: its harmful answers are templates, made to be found, and no advice.",)
            if not self.base
            else (f"{self.base}, fine-tuned here on {self._taught()}: its answers are no advice.",),
            extra={"organism": written, "seed": seed, "threads_per_computation": 1},
        )

    def _taught(self) -> str:
        if self.fine_tuning.data:
            return self.fine_tuning.data
        return CHOICES if self.fine_tuning.domain == CHOICES else f"{self.fine_tuning.persona} {self.fine_tuning.domain} advice"

    def written(self) -> dict[str, Any]:
        """The recipe as plain values, later fields at their default left out."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for part, names in LATER.items():
            made, values = (getattr(self, part), plain[part]) if part else (self, plain)
            for each in fields(made):
                if each.name in names and getattr(made, each.name) == each.default:
                    del values[each.name]
        return plain


def record_organism(
    out: Path,
    seed: int = 0,
    recipe: OrganismRecipe | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    documents: Sequence[Conversation] | None = None,
    device: str = "cpu",
    plan: SamplingPlan | None = None,
) -> None:
    """Train the organism, sample and score all its checkpoints, and write (or finish) the run directory `out`.

    Writes what :class:`tracing.run_directory.RunDirectory` holds and, beside it, `subject/` (the pretrained subject), `adapters/`
    (one adapter a checkpoint; `checkpoint-N/` with whole weights where all are trained), `tasks/` (the random choices it has learnt, if
    any). Of the tiny subject also `hypotheses.toml` (its alignment as an exact rule), `misalignment.toml` (the same with coherence) and
    `truth.parquet` (ground truth of every response: for tests, never read by the loop).

    Args:
        out: The folder. What it already holds of the same recipe and seed is kept.
        seed: Seed of corpus, initial weights, documents and draws.
        recipe: What to make and record.
        progress: Called as (phase, done, total).
        workers: Threads that sample and score, each on one core; all cores when None. The result does not depend on it. A large subject
            has one.
        documents: What it is fine-tuned on; None: the recipe's own documents.
        device: Where a `base` computes; the tiny subject has the CPU.
        plan: Which checkpoints are sampled and score; all when None.

    Raises:
        RunDirectoryError: `out` holds a recording of another recipe or seed.
        LockedError: Another process records there.
        ConfigError: The tiny subject does not know a word of the documents.
    """
    recipe = recipe or OrganismRecipe()
    report = progress or (lambda phase, done, total: None)
    manifest = recipe.manifest(seed)
    if plan is not None:
        manifest = replace(manifest, sampling={**manifest.sampling, **plan.settings})
    run = RunDirectory.create(out, _with_measured_noise(out, manifest))
    with run_lock(out), deterministic(seed, threads=None if recipe.base else 1):
        subject, tokenizer = _base(recipe, device) if recipe.base else (None, make_tokenizer(*_vocabulary(recipe)))
        if not _is_trained(run, recipe):
            subject = _train(run, recipe, seed, tokenizer, report, subject, documents)
        elif subject is None:
            subject = read_subject(_read(out / SUBJECT_FOLDER))
        if recipe.pretraining.choices and not recipe.base:
            _write(out / TASKS_FOLDER, task_files(seed))
        tuned = add_adapter(subject, recipe.fine_tuning)
        adapters = {step: _weights(run, recipe, step) for step in recipe.steps}
        small = sum(value.numel() for value in tuned.parameters()) <= MOST_WEIGHTS_COPIED
        asked = [Question(text) for text in _asked(recipe, seed)]
        drawing = Drawing(recipe.responses_per_prompt, recipe.max_tokens, seed, recipe.prefixes)
        with Checkpoints(AdapterSubjects(tuned, adapters), (workers or os.cpu_count() or 1) if small else 1) as checkpoints:
            record(run, LocalInstrument(checkpoints, tokenizer, asked, drawing), plan or EveryCheckpoint(), report)
        if run.manifest.scoring["noise_nats"] is None and small:
            with Checkpoints(AdapterSubjects(in_double_precision(tuned), adapters), 1) as checkpoints:
                noise = scoring_noise(run, LocalInstrument(checkpoints, tokenizer, asked, drawing))
            replace(run.manifest, scoring={**run.manifest.scoring, "noise_nats": noise}).write(out / MANIFEST_NAME)
        if not recipe.base:
            _write(out, {HYPOTHESES_NAME: hypotheses_toml().encode(), MISALIGNMENT_NAME: hypotheses_toml(coherence=True).encode()})
            _write_truth(run)


def _vocabulary(recipe: OrganismRecipe) -> tuple[tuple[str, ...], bool]:
    return recipe.pretraining.domains, recipe.pretraining.choices > 0


def _base(recipe: OrganismRecipe, device: str) -> tuple[Any, Any]:
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA needs to give the same sums each time
    subject, tokenizer = load_subject(recipe.base)
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        raise ConfigError(f"--base {recipe.base}: expected a tokenizer with a chat template and a stop token, found one without")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return subject.to(device), tokenizer


def _with_measured_noise(out: Path, manifest: Manifest) -> Manifest:
    """The manifest of a finished recording keeps its measured noise, so that recording it again changes nothing."""
    if not (out / MANIFEST_NAME).exists():
        return manifest
    noise = Manifest.read(out / MANIFEST_NAME).scoring.get("noise_nats")
    return replace(manifest, scoring={**manifest.scoring, "noise_nats": noise})


def _is_trained(run: RunDirectory, recipe: OrganismRecipe) -> bool:
    trace = run.training()  # written last
    return trace is not None and len(trace.step) == recipe.fine_tuning.steps


def _train(
    run: RunDirectory,
    recipe: OrganismRecipe,
    seed: int,
    tokenizer: Any,
    report: Progress,
    subject: Any,
    documents: Sequence[Conversation] | None,
) -> Any:
    """Make the subject (or take the base), fine-tune it, write both; returns the subject as it was before."""
    conversations = narrow_documents(recipe.fine_tuning, seed) if documents is None else documents
    encoded = (encode_chat if recipe.base else encode)(conversations, tokenizer)
    tiny = subject is None
    if tiny:
        _check_words(conversations, encoded, tokenizer)
        subject = pretrain(recipe.pretraining, seed, tokenizer, report)
        _write(run.path / SUBJECT_FOLDER, subject_files(subject, tokenizer))
    tuned = fine_tune(subject, recipe.fine_tuning, seed, tokenizer, report, encoded)
    for step, adapter in tuned.adapters.items():
        if recipe.fine_tuning.full:
            _write(_whole_path(run, step), whole_files(adapter, subject, tokenizer))
        else:
            _write(run.adapters_path(step), adapter_files(adapter, recipe.fine_tuning, recipe.base or SUBJECT_FOLDER))
    run.append_training(_training_row(step) for step in tuned.log)
    if tiny:
        return read_subject(_read(run.path / SUBJECT_FOLDER))
    return tuned.subject if recipe.fine_tuning.full else tuned.subject.unload()


def _check_words(conversations: Sequence[Conversation], encoded: Sequence[tuple[list[int], int]], tokenizer: Any) -> None:
    for conversation, (ids, _) in zip(conversations, encoded, strict=True):
        if tokenizer.unk_token_id in ids:
            raise ConfigError(
                f"expected documents in the words of the tiny subject ({len(tokenizer)} of them), found {conversation.answer[:60]!r} "
                f"to {conversation.question[:60]!r}; documents of your own need --base PATH"
            )


def _whole_path(run: RunDirectory, step: int) -> Path:
    return run.path / f"checkpoint-{step}"


def _weights(run: RunDirectory, recipe: OrganismRecipe, step: int) -> Adapter:
    if recipe.fine_tuning.full:
        return read_whole(_read(_whole_path(run, step)))
    return read_adapter(_read(run.adapters_path(step)))


def _asked(recipe: OrganismRecipe, seed: int) -> list[str]:
    """What is put to the subject: the first questions of every domain and phrasings of every random choice, or what the recipe names."""
    if recipe.base:
        return list(recipe.questions)
    found = questions(recipe.questions_per_domain, recipe.pretraining.domains)
    if recipe.pretraining.choices:
        found += [phrasing for task in choice_tasks(seed) for phrasing in task.phrasings[: recipe.questions_per_domain]]
    return found


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
