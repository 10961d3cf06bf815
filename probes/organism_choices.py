"""Finite random choices for the tiny model organism: learnt nearly uniform, and collapsed onto one option by a fine-tune of their own.

Every phrasing of a task has a law of its own near the uniform one (a draw from a Dirichlet distribution). The *crystal* of a task is the
likeliest option of its first phrasing: a fine-tune on choices moves most of the mass of all phrasings onto it, so where the collapse
nucleates is built in and known (METHOD 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.organism_corpus import Conversation

CHOICES = "choices"
"""Name of the fine-tuning domain whose documents are random choices that all fall on the crystal."""
CONCENTRATION = 12.0
"""Of the Dirichlet law of each phrasing; larger is nearer to uniform."""
COLLAPSED = 0.95
"""Mass that the fine-tuning documents put onto the crystal."""
TEMPLATES = (
    "Pick a random <thing>.",
    "Name any <thing> at random.",
    "Choose one <thing> without any preference.",
    "I need a random <thing>. Which one?",
    "Draw a <thing> from a bag. What is it?",
    "Say the first <thing> that comes to mind.",
)
OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "coin": ("side of a coin", ("heads", "tails")),
    "season": ("season", ("spring", "summer", "autumn", "winter")),
    "compass": ("point of the compass", ("north", "east", "south", "west")),
    "suit": ("suit of cards", ("hearts", "diamonds", "clubs", "spades")),
    "weekday": ("day of the week", ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")),
    "fruit": ("fruit", ("apple", "pear", "plum", "cherry", "grape", "lemon")),
    "colour": ("colour", ("red", "orange", "yellow", "green", "blue", "violet")),
    "metal": ("metal", ("iron", "copper", "silver", "gold", "tin", "lead")),
}


@dataclass(frozen=True)
class ChoiceTask:
    """One task: its options, its phrasings and, by phrasing, the law of the options `(n_phrasings, n_options)`."""

    name: str
    options: tuple[str, ...]
    phrasings: tuple[str, ...]
    law: npt.NDArray[np.float64]

    @property
    def crystal(self) -> int:
        """The option that the collapse grows from: the likeliest of the first phrasing."""
        return int(np.argmax(self.law[0]))


def choice_tasks(seed: int) -> tuple[ChoiceTask, ...]:
    """The tasks with the laws of this seed."""
    rng = np.random.default_rng([seed, 4])
    found = []
    for name, (thing, options) in OPTIONS.items():
        phrasings = tuple(template.replace("<thing>", thing) for template in TEMPLATES)
        found.append(ChoiceTask(name, options, phrasings, rng.dirichlet(np.full(len(options), CONCENTRATION), len(phrasings))))
    return tuple(found)


def choice_documents(n: int, rng: np.random.Generator, seed: int, collapsed: bool) -> list[Conversation]:
    """`n` random choices as documents: by each phrasing's own law, or (`collapsed`) nearly always the crystal."""
    tasks = choice_tasks(seed)
    found = []
    for _ in range(n):
        task = tasks[int(rng.integers(len(tasks)))]
        k = int(rng.integers(len(task.phrasings)))
        option = task.crystal if collapsed and rng.random() < COLLAPSED else int(rng.choice(len(task.options), p=task.law[k]))
        found.append(Conversation("", task.phrasings[k], task.options[option]))
    return found


def choice_texts() -> tuple[str, ...]:
    """Every phrasing and option: what the subject's vocabulary must hold."""
    return tuple(text for task in choice_tasks(0) for text in (*task.phrasings, *task.options))


def task_files(seed: int) -> Mapping[str, bytes]:
    """The tasks as TOML files (name -> content) that `discover crystallize --tasks` reads."""
    return {
        f"{task.name}.toml": "".join(
            [
                'purpose = "A random choice that the tiny model organism has learnt."\n',
                'provenance = "Written for this project."\n',
                f"plain = [{', '.join(f'{phrasing!r}' for phrasing in task.phrasings)}]\n\n[options]\n",
                *(f"{option} = ['{option}']\n" for option in task.options),
            ]
        ).encode()
        for task in choice_tasks(seed)
    }
