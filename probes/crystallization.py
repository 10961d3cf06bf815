"""Crystallization of finite random choices over training stages: liquid, nucleation, settling (METHOD 6; operationalisation ours).

Per task and stage, from the answers to several phrasings (given that an option was answered; the rest is shown as `outside`):

    H / log|O|   mean entropy of a phrasing's answers, as part of the largest possible
    options      mean of exp H: how many options one phrasing has in use
    variety      exp H of the answers of all phrasings together: how many options prompting can reach. variety / exp(mean H) is the
                 effective number of distinct promptable distributions (Jost 2007), whose plain count is the number of clusters

*Nucleation* from one stage to the next: all three fall. The variety stands for the number of distinct distributions, because that number
cannot fall where phrasings never differed, and because a subject that merely obeys its prompts better has a lower H and no lower variety.
The *seed* is the earlier promptable distribution nearest to the later plain answers, held against the same answers with their options
permuted. *Settling*: after a nucleation the mass on the seed's top options rises further. Phrasings are the sample; a stage is labelled
only where intervals separate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from probes.crystal_cells import MIN_PHRASINGS, STATISTICS, Cell, CellKey, fall, measured_cells, neighbouring, priors_of
from probes.crystal_results import AcrossSubjects, Crystallization, Label, Settling, StageMeasure, Transition
from probes.crystal_seed import Seed, find_seed
from probes.finite_choice import CLUSTER_DISTANCE, Answers, Choice, clusters, each_entropy, entropy, js_distance
from probes.moderated import Prior, fit_prior, holm, mean_interval, paired_difference, unpaired_difference
from probes.resampling import Interval

__all__ = ["AcrossSubjects", "Crystallization", "Settling", "StageMeasure", "Transition", "crystallize", "over_subjects", "permuted"]

FloatArray = npt.NDArray[np.float64]

MIN_DROP = 0.1
"""A nucleation lowers each of the three by at least this part of its largest value."""
MIN_RISE = 0.02
"""A settling adds at least this mass to the seed's top options."""
LIQUID_ABOVE = 0.5
"""A stage before any nucleation is liquid where the lower limit of H/log|O| lies above this."""
MIN_INSIDE = 0.5
"""Where less of the mass lies on the options the task does not measure this subject."""
NO_PRIOR = Prior(0.0, 0.0, 0.0)


def crystallize(
    subjects: Mapping[str, Sequence[Choice]],
    options: Mapping[str, tuple[str, ...]],
    stages: Sequence[str],
    rng: np.random.Generator,
    alpha: float = 0.05,
    cluster_distance: float = CLUSTER_DISTANCE,
) -> tuple[Crystallization, ...]:
    """Measure and label every task of every subject.

    Args:
        subjects: Choices by subject. Subjects are families of their own; they share only what is known about how phrasings vary.
        options: Names of each task's options.
        stages: Order of the stages; a subject may lack some.
        rng: For the seed's null.
        alpha: Family-wise level over a subject's tasks and transitions (nucleations; settlings are a family of their own).
        cluster_distance: Jensen-Shannon distance below which two phrasings give the same distribution.

    Raises:
        SampleError: A choice names an unknown stage or task, has another number of options, or comes twice.
    """
    cells = {name: measured_cells(choices, options, stages) for name, choices in subjects.items()}
    single, paired = priors_of(cells, stages)
    return tuple(
        _one_subject(name, {task: options[task] for task, _ in found}, found, stages, (single, paired), rng, alpha, cluster_distance)
        for name, found in cells.items()
    )


def over_subjects(found: Sequence[Crystallization]) -> tuple[AcrossSubjects, ...]:
    """What the subjects have in common, for every task and transition that at least two of them have."""
    groups: dict[tuple[str, str, str], list[tuple[Transition, int, bool]]] = {}
    for each in found:
        for step in each.transitions:
            called = (step.task, step.after, "nucleation") in each.calls
            groups.setdefault((step.task, step.before, step.after), []).append((step, len(each.options[step.task]), called))
    across = []
    for key, steps in groups.items():
        if len(steps) >= 2:
            entropy_fell = mean_interval(np.array([step.entropy.estimate for step, _, _ in steps]), NO_PRIOR)
            variety_fell = mean_interval(np.array([step.variety.estimate / size for step, size, _ in steps]), NO_PRIOR)
            n_called = sum(called for _, _, called in steps)
            consistent = entropy_fell.low > 0 and variety_fell.low > 0 and 2 * n_called > len(steps)
            across.append(AcrossSubjects(*key, entropy_fell, variety_fell, n_called, len(steps), consistent))
    return tuple(across)


def permuted(choices: Sequence[Choice], rng: np.random.Generator) -> list[Choice]:
    """The same answers with the stages exchanged at random: a subject in which no stage differs from another.

    Where a phrasing was asked at every stage its answers change places among the stages, else all phrasings of a task do.
    """
    shuffled: list[Choice] = []
    for task in dict.fromkeys(choice.task for choice in choices):
        rows = [choice for choice in choices if choice.task == task]
        names = [{row.phrasing for row in rows if row.stage == stage} for stage in dict.fromkeys(row.stage for row in rows)]
        same = all(each == names[0] for each in names)
        groups = [[row for row in rows if row.phrasing == name] for name in sorted(names[0])] if same else [rows]
        for group in groups:
            order = rng.permutation(len(group))
            for place, k in enumerate(order):
                name = group[k].phrasing if same else f"{group[k].phrasing} [{k}]"
                shuffled.append(replace(group[k], stage=group[place].stage, phrasing=name))
    return shuffled


def _mass(cell: Cell, options: Sequence[str], top: Sequence[str]) -> FloatArray:
    return np.asarray(cell.answers.p[:, [options.index(name) for name in top]].sum(axis=1))


def _one_subject(
    subject: str,
    options: dict[str, tuple[str, ...]],
    cells: Mapping[CellKey, Cell],
    stages: Sequence[str],
    priors: tuple[dict[str, Prior], dict[str, Prior]],
    rng: np.random.Generator,
    alpha: float,
    distance: float,
) -> Crystallization:
    steps = neighbouring(cells, stages)
    falls = {step: {name: fall(cells[step[0], step[1]], cells[step[0], step[2]], name, priors) for name in STATISTICS} for step in steps}
    p = [max(fall.p for fall in falls[step].values()) for step in steps]
    transitions = []
    for step, own, adjusted in zip(steps, p, holm(p), strict=True):
        before, after = cells[step[0], step[1]], cells[step[0], step[2]]
        enough = all(fall.interval.estimate >= MIN_DROP for fall in falls[step].values())
        inside = max(before.outside, after.outside) <= 1 - MIN_INSIDE
        fell, options_fell, variety_fell = (falls[step][name].interval.scaled(before.largest[name]) for name in STATISTICS)
        called = adjusted <= alpha and enough and inside
        seed = find_seed(before.everything, before.all_names, after.plain, options[step[0]], rng, distance) if called else None
        transitions.append(Transition(*step, fell, options_fell, variety_fell, own, adjusted, called, seed))
    settlings = _settlings(transitions, cells, options, alpha)
    measures = [
        _measure(task, stage, cells[task, stage], options[task], transitions, settlings, priors[0], distance)
        for task in options
        for stage in stages
        if (task, stage) in cells
    ]
    there = tuple(stage for stage in stages if any(key[1] == stage for key in cells))
    return Crystallization(
        subject,
        there,
        options,
        tuple(measures),
        tuple(transitions),
        tuple(settlings),
        _overall(transitions),
        alpha,
        distance,
        _notes(cells),
    )


def _settlings(
    transitions: Sequence[Transition], cells: Mapping[CellKey, Cell], options: Mapping[str, tuple[str, ...]], alpha: float
) -> list[Settling]:
    """The mass on the first seed's top options over the stages after a nucleation; their p values are one family."""
    steps = [(step, seed) for task in options for step, seed in _after_nucleation([t for t in transitions if t.task == task])]
    tops = [seed.top if seed.p <= alpha else seed.crystal for _, seed in steps]
    masses = [
        tuple(_mass(cells[s.task, stage], options[s.task], top) for stage in (s.before, s.after))
        for (s, _), top in zip(steps, tops, strict=True)
    ]
    paired = [cells[s.task, s.before].names == cells[s.task, s.after].names for s, _ in steps]
    single = fit_prior([mass for pair in masses for mass in pair])
    differences = fit_prior([after - before for (before, after), same in zip(masses, paired, strict=True) if same])
    rises = [
        paired_difference(after, before, differences) if same else unpaired_difference(after, before, single)
        for (before, after), same in zip(masses, paired, strict=True)
    ]
    return [
        Settling(
            step.task,
            step.before,
            step.after,
            top,
            seed.p <= alpha,
            mean_interval(after, single),
            rise.interval,
            js_distance(_exact(seed.distribution), cells[step.task, step.after].plain),
            rise.p,
            p,
            # A further fall of all three is a change already; towards the same options it is settling, not another nucleation.
            rise.interval.estimate >= MIN_RISE and after.mean() > 0.5 and (p <= alpha or step.all_fall),
        )
        for (step, seed), top, (_, after), rise, p in zip(steps, tops, masses, rises, holm([rise.p for rise in rises]), strict=True)
    ]


def _after_nucleation(own: Sequence[Transition]) -> list[tuple[Transition, Seed]]:
    """The transitions of one task after its first nucleation, each with the seed of that."""
    found: list[tuple[Transition, Seed]] = []
    seed: Seed | None = None
    for transition in own:
        if seed is not None:
            found.append((transition, seed))
        seed = seed or transition.seed
    return found


def _exact(distribution: Sequence[float]) -> Answers:
    return Answers(np.array([distribution]), np.array([np.inf]))


def _measure(
    task: str,
    stage: str,
    cell: Cell,
    options: tuple[str, ...],
    transitions: Sequence[Transition],
    settlings: Sequence[Settling],
    prior: Mapping[str, Prior],
    distance: float,
) -> StageMeasure:
    own = {name: mean_interval(cell.values[name], prior[name]).scaled(cell.largest[name]) for name in STATISTICS}
    label, reason = _label(
        stage, cell, own["entropy"], [t for t in transitions if t.task == task], [s for s in settlings if s.task == task]
    )
    plain = cell.plain.p.mean(axis=0)
    return StageMeasure(
        task,
        stage,
        label,
        reason,
        **own,
        distinct=math.exp(entropy(cell.everything) - float(each_entropy(cell.everything).mean())),
        n_clusters=int(clusters(cell.everything, distance).max()) + 1,
        distribution=tuple(plain.tolist()),
        mode=options[int(np.argmax(plain))],
        outside=cell.outside,
        n_phrasings=len(cell.names),
        n_draws=None if np.isinf(cell.answers.n).any() else int(cell.everything.n.sum()),
    )


def _label(stage: str, cell: Cell, level: Interval, transitions: Sequence[Transition], settlings: Sequence[Settling]) -> tuple[Label, str]:
    into = next((t for t in transitions if t.after == stage), None)
    out = next((t for t in transitions if t.before == stage), None)
    settling = next((s for s in settlings if s.after == stage), None)
    if cell.outside > 1 - MIN_INSIDE:
        return "undecided", f"{cell.outside:.0%} of the mass lies outside the options"
    if settling is not None and settling.settling:
        return "settling", f"mass on {', '.join(settling.top)} rose by {settling.rise.estimate:.2f} to {settling.mass.estimate:.2f}"
    if into is not None and into.all_fall:
        return "nucleation", f"H/log|O|, options and variety fell since {into.before}"
    if settling is not None:
        return "undecided", f"after the nucleation, no rise of the mass on {', '.join(settling.top)} separates from 0"
    if out is not None and out.all_fall:
        return "liquid", f"all three fall to {out.after}"
    if level.low > LIQUID_ABOVE:
        return "liquid", f"H/log|O| lies above {LIQUID_ABOVE}"
    if not math.isfinite(level.low):
        return "undecided", f"{level.n_groups} phrasing{'s' * (level.n_groups != 1)} give{'s' * (level.n_groups == 1)} no interval"
    return "undecided", f"H/log|O| does not separate from {LIQUID_ABOVE}, no fall of all three separates from 0"


def _overall(transitions: Sequence[Transition]) -> dict[str, Interval]:
    groups: dict[str, list[float]] = {}
    for transition in transitions:
        groups.setdefault(f"{transition.before} -> {transition.after}", []).append(transition.entropy.estimate)
    return {name: mean_interval(np.array(drops), NO_PRIOR) for name, drops in groups.items()}


def _notes(cells: Mapping[CellKey, Cell]) -> tuple[str, ...]:
    mixed = sorted({task for (task, _), cell in cells.items() if len(cell.plain.p) < MIN_PHRASINGS and len(cell.names) > len(cell.plain.p)})
    if mixed:
        return (f"fewer than {MIN_PHRASINGS} plain phrasings, so steered ones are measured with them: {', '.join(mixed)}",)
    return ()
