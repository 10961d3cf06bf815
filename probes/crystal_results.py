"""What a crystallization is found to be: frozen results, one per task, stage and step between stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from probes.crystal_seed import Seed
from probes.resampling import Interval

Label = Literal["liquid", "nucleation", "settling", "undecided"]


@dataclass(frozen=True)
class StageMeasure:
    """One task at one stage.

    Attributes:
        task, stage: Names.
        label, reason: What the stage is, and why or why not.
        entropy: H/log|O| in [0, 1]. options: exp H in 1..|O|. variety: options reached by all phrasings together, in 1..|O|.
        distinct: Effective number of distinct promptable distributions, at least 1. n_clusters: their count at the cluster distance.
        distribution: Plain answers, mean over the plain phrasings. mode: Its most probable option.
        outside: Mean mass outside the options.
        n_phrasings: Phrasings measured. n_draws: Draws on options, None where exact.
    """

    task: str
    stage: str
    label: Label
    reason: str
    entropy: Interval
    options: Interval
    variety: Interval
    distinct: float
    n_clusters: int
    distribution: tuple[float, ...]
    mode: str
    outside: float
    n_phrasings: int
    n_draws: int | None


@dataclass(frozen=True)
class Transition:
    """One task from one stage to the next: how far each of the three falls (in its own units, positive: falls).

    `p` is the largest of the three one-sided p values (all must fall), `p_adjusted` is Holm's over the subject's tasks and transitions.
    `all_fall`: they do, by enough and at the level asked for; then it is a nucleation (after one and towards the same options: settling)
    and its `seed` is looked for.
    """

    task: str
    before: str
    after: str
    entropy: Interval
    options: Interval
    variety: Interval
    p: float
    p_adjusted: float
    all_fall: bool
    seed: Seed | None


@dataclass(frozen=True)
class Settling:
    """Mass on the seed's top options after a nucleation: at this stage, and how much it rose since the stage before.

    Where no seed stands out of its null (`from_seed` is False) the crystal's own top options stand in. Settling is called where the rise
    separates from 0 and these options hold most of the mass. `distance` is the Jensen-Shannon distance to the seed.
    """

    task: str
    before: str
    after: str
    top: tuple[str, ...]
    from_seed: bool
    mass: Interval
    rise: Interval
    distance: float
    p: float
    p_adjusted: float
    settling: bool


@dataclass(frozen=True)
class Crystallization:
    """All tasks of one subject.

    Attributes:
        subject: Its name.
        stages: In order.
        options: Of each task.
        measures: By task, then stage.
        transitions: By task, then stage.
        settlings: Those measured (after a nucleation).
        overall: Per transition `before -> after`, the mean drop of H/log|O| over the tasks with an interval over tasks.
        alpha: Family-wise level of the calls. cluster_distance: Of the clusters.
        notes: What was left out.
    """

    subject: str
    stages: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    measures: tuple[StageMeasure, ...]
    transitions: tuple[Transition, ...]
    settlings: tuple[Settling, ...]
    overall: dict[str, Interval]
    alpha: float
    cluster_distance: float
    notes: tuple[str, ...] = field(default=())

    @property
    def calls(self) -> tuple[tuple[str, str, Label], ...]:
        """(task, stage, label) of every nucleation and settling."""
        return tuple((m.task, m.stage, m.label) for m in self.measures if m.label in ("nucleation", "settling"))


@dataclass(frozen=True)
class AcrossSubjects:
    """One task and transition over several subjects.

    Attributes:
        entropy, variety: Mean fall of H/log|O| and of variety/|O|, with Student's interval over subjects.
        n_called: Subjects with a nucleation. n_subjects: All that have both stages.
        consistent: Whether both falls separate from 0 and more than half of the subjects are called.
    """

    task: str
    before: str
    after: str
    entropy: Interval
    variety: Interval
    n_called: int
    n_subjects: int
    consistent: bool
