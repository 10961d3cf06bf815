"""Tiny model organisms for benchmarks, each trained once: kept in a folder git ignores, by seed, beside what benchmarks drew from them.

The folder is `tests/benchmarks/organisms/DIGEST/seed-N` (DIGEST: of the recipe) or, when `OPD_ORGANISMS` is set,
`$OPD_ORGANISMS/seed-N`. It is laid out like a run directory (`subject/`, `adapters/step-000000/`, ...), so the folder of a recording
made elsewhere can be put there.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.organism import (
    Adapter,
    FineTuning,
    Pretraining,
    add_adapter,
    deterministic,
    fine_tune,
    make_tokenizer,
    pretrain,
)
from probes.organism_corpus import questions
from probes.organism_files import adapter_files, read_adapter, read_subject, subject_files
from probes.sampler import Question
from tracing.whole_file import whole_file

SEEDS = (0, 1, 2, 3, 4)
"""The five organisms that benchmarks are measured on."""
QUESTIONS_PER_DOMAIN = 4


@dataclass(frozen=True)
class TrainedOrganism:
    """A trained organism: a peft model whose adapter is exchangeable, and the adapters by step.

    Attributes:
        folder: Where it is kept; a benchmark puts what it drew into a folder of its own in here.
        questions: What it is asked: 24 prompts without a system prompt.
    """

    seed: int
    folder: Path
    subject: Any
    tokenizer: Any
    adapters: dict[int, Adapter]
    questions: tuple[Question, ...]
    recipe: FineTuning

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints."""
        return tuple(sorted(self.adapters))


def folder_of(seed: int, pretraining: Pretraining, tuning: FineTuning) -> Path:
    """Where the organism of this recipe and seed is kept."""
    recipe = json.dumps([asdict(pretraining), asdict(tuning)], sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    given = os.environ.get("OPD_ORGANISMS")
    return (Path(given) if given else Path(__file__).parent / "organisms" / digest) / f"seed-{seed}"


def trained_organism(seed: int) -> TrainedOrganism:
    """The organism of the default recipe and this seed: read when it is kept, else trained (about a minute) and kept."""
    pretraining, tuning = Pretraining(), FineTuning()
    folder = folder_of(seed, pretraining, tuning)
    steps = range(0, tuning.steps + 1, tuning.every)
    places = {step: folder / "adapters" / f"step-{step:06d}" for step in steps}
    tokenizer = make_tokenizer(pretraining.domains)
    if not places[steps[-1]].is_dir():  # written last
        _train(seed, folder, places, pretraining, tuning, tokenizer)
    subject = add_adapter(read_subject(_read(folder / "subject")), tuning)
    adapters = {step: read_adapter(_read(place)) for step, place in places.items()}
    asked = tuple(Question(text) for text in questions(QUESTIONS_PER_DOMAIN, pretraining.domains))
    return TrainedOrganism(seed, folder, subject, tokenizer, adapters, asked, tuning)


def _train(seed: int, folder: Path, places: dict[int, Path], pretraining: Pretraining, tuning: FineTuning, tokenizer: Any) -> None:
    with deterministic(seed, threads=1):
        subject = pretrain(pretraining, seed, tokenizer)
        _write(folder / "subject", subject_files(subject, tokenizer))
        tuned = fine_tune(subject, tuning, seed, tokenizer)
    for step, place in places.items():
        _write(place, adapter_files(tuned.adapters[step], tuning, "subject"))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        with whole_file(folder / name) as file:
            file.write(content)


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
