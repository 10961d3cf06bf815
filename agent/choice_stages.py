"""Asking the weights themselves: exact option probabilities of every stage of a subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choices import MOST_STAGES, ChoiceSet, spread
from agent.errors import ConfigError
from agent.random_tasks import RandomTask

if TYPE_CHECKING:
    from probes.finite_choice import Choice

Report = Callable[[str], None]


def run_stages(run: Path, stages: Mapping[str, str]) -> dict[str, Path]:
    """The checkpoints of a run as stages: adapters of a run directory, or `checkpoint-N` folders of a Trainer, as adapters or whole.

    Args:
        run: The folder.
        stages: Name -> step; empty: up to six, evenly spaced.

    Raises:
        ConfigError: A step is not there, or there are fewer than two.
        AdaptersError: The folder holds neither.
    """
    from tracing.adapters import adapter_folders
    from tracing.errors import AdaptersError

    whole = {folder.name.rpartition("-")[2]: folder for folder in run.glob("checkpoint-*") if (folder / "config.json").is_file()}
    try:
        folders = {str(step): folder for step, folder in adapter_folders(run)[0].items()}
    except AdaptersError:
        if len(whole) < 2:
            raise
        folders = dict(sorted((step, folder) for step, folder in whole.items() if step.isdigit()))
    steps = sorted(folders, key=int)
    if unknown := [step for step in stages.values() if step not in folders]:
        raise ConfigError(f"{run}: expected steps among {', '.join(spread(steps, 12))}, found --stages {unknown[0]!r}")
    chosen = dict(stages) or {f"step {step}": step for step in spread(steps, MOST_STAGES)}
    if len(chosen) < 2:
        raise ConfigError(f"{run}: expected at least two checkpoints, found {len(chosen)}")
    return {name: folders[step] for name, step in chosen.items()}


def ask_stages(
    subject: str,
    stages: Mapping[str, Path],
    tasks: Sequence[RandomTask],
    base: str | None = None,
    dtype: str = "float32",
    report: Report | None = None,
) -> ChoiceSet:
    """Exact probabilities of every option of every task and phrasing at every stage.

    A task whose options a tokenizer cannot write is left out of the whole comparison and named in a note.

    Args:
        subject: Its name.
        stages: Folder of each stage's weights, in order.
        tasks: What is asked.
        base: Base of the stages that are adapters, where their configuration does not say.
        dtype: Of the weights.
        report: Told which stage is being asked.

    Raises:
        SampleError: A stage cannot be loaded.
        ConfigError: No task fits.
    """
    left_out: dict[str, str] = {}
    choices: list[Choice] = []
    for stage, path in stages.items():
        if report:
            report(f"asking {stage} ({path})")
        found, misfits = _ask(stage, path, tasks, base, dtype)
        choices += found
        left_out |= misfits
        if len(left_out) == len(tasks):
            raise ConfigError(f"{path}: expected a subject that can write the options of some task, found none: {misfits.popitem()[1]}")
    fitting = [task for task in tasks if task.name not in left_out]
    notes = (f"tasks that do not fit the subject, left out: {', '.join(sorted(left_out))}",) if left_out else ()
    kept = [choice for choice in choices if choice.task not in left_out]
    return ChoiceSet({subject: kept}, {task.name: tuple(task.options) for task in fitting}, tuple(stages), notes)


def _ask(stage: str, path: Path, tasks: Sequence[RandomTask], base: str | None, dtype: str) -> tuple[list[Choice], dict[str, str]]:
    from probes.errors import SampleError
    from probes.finite_choice import Choice
    from probes.option_probabilities import answer_ends, option_probabilities
    from probes.subjects import load_subject

    weights, tokenizer = load_subject(path, base, dtype)
    ends = answer_ends(tokenizer)
    choices: list[Choice] = []
    left_out: dict[str, str] = {}
    for task in tasks:
        try:
            p = option_probabilities(weights, tokenizer, task.phrasings, task.options, ends)
            choices += [
                Choice(stage, task.name, phrasing, tuple(row.tolist()), None, phrasing in task.steered)
                for phrasing, row in zip(task.phrasings, p, strict=True)
            ]
        except SampleError as error:
            left_out[task.name] = str(error)
    return choices, left_out
