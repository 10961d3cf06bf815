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

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError
from probes.finite_choice import CLUSTER_DISTANCE, Answers, Choice, clusters, each_entropy, entropy, js_distance, left_out_entropy
from probes.moderated import Difference, Prior, fit_prior, holm, mean_interval, paired_difference, unpaired_difference
from probes.resampling import Interval

FloatArray = npt.NDArray[np.float64]
Label = Literal["liquid", "nucleation", "settling", "undecided"]

MIN_PHRASINGS = 3
"""With at least this many plain phrasings they alone are measured; with fewer, steered ones count as phrasings too."""
MIN_DROP = 0.1
"""A nucleation lowers each of the three by at least this part of its largest value."""
MIN_RISE = 0.02
"""A settling adds at least this mass to the seed's top options."""
LIQUID_ABOVE = 0.5
"""A stage before any nucleation is liquid where the lower limit of H/log|O| lies above this."""
MIN_INSIDE = 0.5
"""Where less of the mass lies on the options the task does not measure this subject."""
EXACT_PERMUTATIONS = 6
PERMUTATIONS = 1000
STATISTICS = ("entropy", "options", "variety")
_NO_PRIOR = Prior(0.0, 0.0, 0.0)


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
class Seed:
    """The earlier promptable distribution that the later answers are nearest to.

    Attributes:
        phrasings: The phrasings of its cluster.
        distribution: Their mean.
        distance: Jensen-Shannon distance in [0, 1] to the later plain answers.
        null_distance: Median of the same with the options of the later answers permuted.
        p: Part of the permutations that come as near.
        top: Its most probable options, as many as the later answers have in use.
        crystal: The same of the later answers themselves.
    """

    phrasings: tuple[str, ...]
    distribution: tuple[float, ...]
    distance: float
    null_distance: float
    p: float
    top: tuple[str, ...]
    crystal: tuple[str, ...]


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


@dataclass(frozen=True)
class _Cell:
    """One task at one stage: its answers, and per-phrasing values of the three statistics as parts of their largest value."""

    names: tuple[str, ...]
    all_names: tuple[str, ...]
    answers: Answers
    everything: Answers
    plain: Answers
    outside: float
    values: dict[str, FloatArray]

    @property
    def largest(self) -> dict[str, float]:
        """The unit of each statistic."""
        n = float(self.answers.p.shape[1])
        return {"entropy": 1.0, "options": n, "variety": n}


_Key = tuple[str, str]  # task, stage


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
    cells = {name: _cells(choices, options, stages) for name, choices in subjects.items()}
    single, paired = _priors(cells, stages)
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
            entropy_fell = mean_interval(np.array([step.entropy.estimate for step, _, _ in steps]), _NO_PRIOR)
            variety_fell = mean_interval(np.array([step.variety.estimate / size for step, size, _ in steps]), _NO_PRIOR)
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


# measuring


def _cells(choices: Sequence[Choice], options: Mapping[str, tuple[str, ...]], stages: Sequence[str]) -> dict[_Key, _Cell]:
    rows: dict[_Key, dict[str, Choice]] = {}
    for choice in choices:
        if choice.stage not in stages or choice.task not in options:
            raise SampleError(f"expected a known stage and task, found {choice.stage!r} and {choice.task!r}")
        if len(choice.probability) != len(options[choice.task]):
            raise SampleError(f"{choice.task}: expected {len(options[choice.task])} probabilities, found {len(choice.probability)}")
        cell = rows.setdefault((choice.task, choice.stage), {})
        if choice.phrasing in cell:
            raise SampleError(f"{choice.stage}, {choice.task}: expected every phrasing once, found {choice.phrasing!r} twice")
        cell[choice.phrasing] = choice
    few = {task: min(sum(not c.steered for c in cell.values()) for (t, _), cell in rows.items() if t == task) for task, _ in rows}
    return {key: _cell(list(cell.values()), few[key[0]] >= MIN_PHRASINGS) for key, cell in rows.items()}


def _cell(choices: Sequence[Choice], plain_only: bool) -> _Cell:
    ordered = sorted(choices, key=lambda choice: choice.phrasing)
    plain = [choice for choice in ordered if not choice.steered] or ordered
    used = plain if plain_only else ordered
    answers, everything = Answers.of(used), Answers.of(ordered)
    h = each_entropy(answers)
    n = answers.p.shape[1]
    values = {"entropy": h / math.log(n), "options": np.exp(h) / n, "variety": _variety_values(everything) / n}
    names = tuple(choice.phrasing for choice in used), tuple(choice.phrasing for choice in ordered)
    return _Cell(*names, answers, everything, Answers.of(plain), float(np.mean([choice.outside for choice in plain])), values)


def _variety_values(answers: Answers) -> FloatArray:
    """Jackknife pseudo-values of exp H of all phrasings together, moved to have that number itself as their mean, shape (n_phrasings,)."""
    whole, n = math.exp(entropy(answers)), len(answers.p)
    if n == 1:
        return np.array([whole])
    left_out = np.exp(left_out_entropy(answers))
    return np.asarray(whole + (n - 1) * (left_out.mean() - left_out))


def _is_paired(before: _Cell, after: _Cell, statistic: str) -> bool:
    return before.all_names == after.all_names if statistic == "variety" else before.names == after.names


def _steps(cells: Mapping[_Key, _Cell], stages: Sequence[str]) -> list[tuple[str, str, str]]:
    """(task, before, after) of neighbouring stages, by task."""
    found = []
    for task in dict.fromkeys(task for task, _ in cells):
        there = [stage for stage in stages if (task, stage) in cells]
        found += [(task, before, after) for before, after in itertools.pairwise(there)]
    return found


def _priors(cells: Mapping[str, Mapping[_Key, _Cell]], stages: Sequence[str]) -> tuple[dict[str, Prior], dict[str, Prior]]:
    """What all groups say about variances: of one stage's phrasings, and of paired differences."""
    single = {name: fit_prior([cell.values[name] for found in cells.values() for cell in found.values()]) for name in STATISTICS}
    paired = {}
    for name in STATISTICS:
        pairs = [(found[task, a], found[task, b]) for found in cells.values() for task, a, b in _steps(found, stages)]
        paired[name] = fit_prior([a.values[name] - b.values[name] for a, b in pairs if _is_paired(a, b, name)])
    return single, paired


def _fall(before: _Cell, after: _Cell, statistic: str, priors: tuple[dict[str, Prior], dict[str, Prior]]) -> Difference:
    a, b = before.values[statistic], after.values[statistic]
    if _is_paired(before, after, statistic):
        return paired_difference(a, b, priors[1][statistic])
    return unpaired_difference(a, b, priors[0][statistic])


# seeds and settling


def find_seed(
    earlier: Answers, names: Sequence[str], later: Answers, options: Sequence[str], rng: np.random.Generator, distance: float
) -> Seed:
    """The cluster of earlier phrasings nearest to the later answers, against these answers with their options permuted.

    Args:
        earlier: Answers of the earlier stage, one per phrasing.
        names: Of its phrasings.
        later: Plain answers of the later stage (their mean is used).
        options: Names of the options.
        rng: Draws the permutations where there are too many to try all.
        distance: Jensen-Shannon distance of the clusters.
    """
    code = clusters(earlier, distance)
    groups = [np.flatnonzero(code == k) for k in range(code.max() + 1)]
    centres = np.stack([earlier.p[group].mean(axis=0) for group in groups])
    final = later.p.mean(axis=0)
    orders = _orders(len(options), rng)
    null = _plug_in_divergence(centres, final[orders]).min(axis=0)
    nearest = int(np.argmin(_plug_in_divergence(centres, final[None])[:, 0]))
    group = groups[nearest]
    found = Answers(earlier.p[group], earlier.n[group])
    count = max(1, min(len(options) - 1, round(math.exp(entropy(later)))))
    return Seed(
        tuple(names[k] for k in group.tolist()),
        tuple(centres[nearest].tolist()),
        js_distance(found, later),
        float(np.sqrt(np.median(null))),
        float(np.mean(null <= null[0] + 1e-12)),
        _top(centres[nearest], count, options),
        _top(final, count, options),
    )


def _top(distribution: FloatArray, count: int, options: Sequence[str]) -> tuple[str, ...]:
    return tuple(options[k] for k in sorted(np.argsort(-distribution, kind="stable")[:count].tolist()))


def _orders(n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Permutations of n options, the identity first: all of them, or as many as `PERMUTATIONS` at random."""
    if n <= EXACT_PERMUTATIONS:
        return np.array(list(itertools.permutations(range(n))))
    drawn = rng.permuted(np.tile(np.arange(n), (PERMUTATIONS - 1, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn])


def _plug_in_divergence(first: FloatArray, second: FloatArray) -> FloatArray:
    """Jensen-Shannon divergence in bits of every row of `first (a, k)` with every row of `second (b, k)`, shape (a, b)."""
    from scipy.special import entr

    middle = (first[:, None] + second[None]) / 2
    divergence = entr(middle).sum(axis=2) - (entr(first).sum(axis=1)[:, None] + entr(second).sum(axis=1)[None]) / 2
    return np.asarray(np.maximum(divergence, 0.0) / np.log(2))


def _mass(cell: _Cell, options: Sequence[str], top: Sequence[str]) -> FloatArray:
    return np.asarray(cell.answers.p[:, [options.index(name) for name in top]].sum(axis=1))


# deciding


def _one_subject(
    subject: str,
    options: dict[str, tuple[str, ...]],
    cells: Mapping[_Key, _Cell],
    stages: Sequence[str],
    priors: tuple[dict[str, Prior], dict[str, Prior]],
    rng: np.random.Generator,
    alpha: float,
    distance: float,
) -> Crystallization:
    steps = _steps(cells, stages)
    falls = {step: {name: _fall(cells[step[0], step[1]], cells[step[0], step[2]], name, priors) for name in STATISTICS} for step in steps}
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
    transitions: Sequence[Transition], cells: Mapping[_Key, _Cell], options: Mapping[str, tuple[str, ...]], alpha: float
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
    cell: _Cell,
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


def _label(stage: str, cell: _Cell, level: Interval, transitions: Sequence[Transition], settlings: Sequence[Settling]) -> tuple[Label, str]:
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
    return {name: mean_interval(np.array(drops), _NO_PRIOR) for name, drops in groups.items()}


def _notes(cells: Mapping[_Key, _Cell]) -> tuple[str, ...]:
    mixed = sorted({task for (task, _), cell in cells.items() if len(cell.plain.p) < MIN_PHRASINGS and len(cell.names) > len(cell.plain.p)})
    if mixed:
        return (f"fewer than {MIN_PHRASINGS} plain phrasings, so steered ones are measured with them: {', '.join(mixed)}",)
    return ()
