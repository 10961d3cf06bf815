"""Answers to finite random choices, gathered from wherever they come, ready for measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import ConfigError

if TYPE_CHECKING:
    from probes.finite_choice import Choice

OTHER = "(other)"
"""The option that stands for every answer outside the options."""
MIN_DRAWS = 10
"""A phrasing with fewer draws on its options is left out and counted in a note."""
MOST_STAGES = 6


@dataclass(frozen=True)
class ChoiceSet:
    """Choices by subject, with the names of the options of each task and the order of the stages."""

    subjects: dict[str, list[Choice]]
    options: dict[str, tuple[str, ...]]
    stages: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Gathered:
    """Choices as they come in; phrasings with too few draws are counted, not kept."""

    def __init__(self, options: Mapping[str, tuple[str, ...]]) -> None:
        self.options = dict(options)
        self.subjects: dict[str, list[Choice]] = {}
        self.few: list[str] = []

    def add(self, subject: str, stage: str, task: str, phrasing: str, values: Mapping[str, float], steered: bool, counted: bool) -> None:
        """Take in the counts or probabilities of one phrasing; what is called OTHER is outside."""
        from probes.finite_choice import Choice

        on_options = [values.get(name, 0.0) for name in self.options[task]]
        total = sum(on_options) + values.get(OTHER, 0.0) if counted else 1.0
        if counted and sum(on_options) < MIN_DRAWS:
            self.few.append(f"{stage}, {task}")
            return
        kept = self.subjects.setdefault(subject, [])
        kept.append(Choice(stage, task, phrasing, tuple(v / total for v in on_options), int(sum(on_options)) if counted else None, steered))

    def finished(self, stages: tuple[str, ...], where: str) -> ChoiceSet:
        """The whole set.

        Raises:
            ConfigError: Nothing is left to measure.
        """
        if not self.subjects:
            raise ConfigError(
                f"{where}: expected at least {MIN_DRAWS} answers on the options per stage and phrasing, found fewer everywhere"
            )
        notes = (f"{len(self.few)} phrasings with fewer than {MIN_DRAWS} answers on the options left out",) if self.few else ()
        return ChoiceSet(self.subjects, self.options, stages, notes)


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spaced, the first and the last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(k * (len(names) - 1) / (most - 1))] for k in range(most)]


def stages_of(text: str | None, named: bool) -> dict[str, str]:
    """`base=models/a,sft=models/b` as name -> value, in order; without `=` a value names itself unless names are needed.

    Raises:
        ConfigError: A part is empty, has no name where one is needed, or a name comes twice.
    """
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.strip().partition("=")
        name, value = name.strip(), value.strip() if equals else name.strip()
        if not name or not value or (named and not equals):
            raise ConfigError(f"expected --stages NAME=PATH,NAME=PATH, found {part!r}")
        if name in found:
            raise ConfigError(f"expected different names of --stages, found {name!r} twice")
        found[name] = value
    return found
