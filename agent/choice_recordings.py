"""Counting the answers of recorded responses to the phrasings of random tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choices import MOST_STAGES, OTHER, ChoiceSet, Gathered, spread
from agent.errors import ConfigError
from agent.random_tasks import RandomTask

if TYPE_CHECKING:
    from tracing import Recording


def recorded_choices(recording: Recording, tasks: Sequence[RandomTask], stages: Mapping[str, str]) -> ChoiceSet | None:
    """Count the answers of recorded responses to the tasks' phrasings.

    Args:
        recording: Any recording; a response belongs to a task when its prompt is one of its phrasings.
        tasks: What was asked.
        stages: Name -> side, step or range of steps ("0-10", their answers put together); empty: every side, or up to six steps.

    Returns:
        The counts, or None when no prompt is a phrasing of a task.

    Raises:
        ConfigError: The stages are not in the recording, or there are fewer than two, or too few answers.
    """
    from probes.answer_form import read_option

    asked = {phrasing.strip(): (task, phrasing in task.steered) for task in tasks for phrasing in task.phrasings}
    responses = recording.responses
    rows = [k for k, prompt in enumerate(responses.prompt) if prompt.strip() in asked]
    if not rows:
        return None
    sides, steps = responses.side, responses.step
    where = list(sides) if sides is not None else [str(step) for step in (steps if steps is not None else [])]
    stage_of = _stages(recording.source, [where[k] for k in rows], stages, by_step=sides is None)
    counts: dict[tuple[str, str, str, bool], dict[str, float]] = {}
    for k in rows:
        task, steered = asked[responses.prompt[k].strip()]
        stage = stage_of.get(where[k])
        if stage is not None:
            phrasing = " | ".join(filter(None, (responses.system[k], responses.prompt[k].strip())))
            cell = counts.setdefault((stage, task.name, phrasing, steered), {})
            option = read_option(responses.completion[k], task.options) or OTHER
            cell[option] = cell.get(option, 0.0) + 1
    gathered = Gathered({task.name: tuple(task.options) for task in tasks if any(key[1] == task.name for key in counts)})
    for (stage, name, phrasing, steered), values in counts.items():
        gathered.add(Path(recording.source).stem, stage, name, phrasing, values, steered, counted=True)
    return gathered.finished(tuple(dict.fromkeys(stage_of.values())), recording.source)


def _stages(source: str, there: Sequence[str], wanted: Mapping[str, str], by_step: bool) -> dict[str, str]:
    """Side or step -> its stage, in the order of the stages."""
    names = list(dict.fromkeys(there))
    names = sorted(names, key=int) if by_step else names
    if not wanted:
        if len(names) < 2:
            raise ConfigError(f"{source}: expected answers to random choices at two stages or more, found {', '.join(names)}")
        return {name: f"step {name}" if by_step else name for name in spread(names, MOST_STAGES)}
    members: dict[str, str] = {}
    for stage, value in wanted.items():
        inside = [name for name in names if name == value or (by_step and _within(name, value))]
        if not inside:
            raise ConfigError(f"{source}: expected --stages among {', '.join(names)}, found {value!r}")
        members |= dict.fromkeys(inside, stage)
    return members


def _within(step: str, span: str) -> bool:
    ends = re.fullmatch(r"(\d+)-(\d+)", span)
    return ends is not None and int(ends[1]) <= int(step) <= int(ends[2])
