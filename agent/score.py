"""Accepted order parameters of one run judged on other responses (`discover score`): does what was found hold there too?

Nothing is proposed and nothing is selected here, so every response counts. Rates are taken within each prompt first and then averaged
over prompts; the two sides are compared prompt by prompt. Shares come from the one estimator of `probes.explained_share`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agent.checks import checks_of, why_unknown
from agent.contrasts import ContrastSpec, prompt_codes
from agent.errors import ContrastError
from agent.findings import contrast_record, versions
from agent.judge import Text
from agent.measure import Measurement, estimate_of
from agent.records import ContrastRecord, CostLine, Estimate, Findings, Judgement, OrderParameter, ParameterFinding, Record
from agent.spending import cost_lines, price_note
from agent.wording import FEW_PROMPTS, SATURATED, percent
from agent.workbench import Workbench, judgement_row
from probes.dissimilarity import N_WITHIN_GROUPS, Contrast, total_change
from probes.errors import SampleError
from probes.explained_share import Explained, explained
from probes.resampling import MIN_PROMPTS, Interval, jackknife, within_prompt_groups
from probes.rules import RuleError
from tracing import Recording

SCORE_FORMAT = "order-parameter-score"
SCORE_VERSION = 1
ALIKE = 1e-12
TAIL = 0.025
"""Probability left out at each end of an interval."""
MANY_MISSING = 0.05
EVERYTHING = "all"
THESE_PROMPTS = "for these prompts only"

Role = Literal["all", "before", "after", ""]


class SideScore(Record):
    """How one order parameter is distributed on one side.

    Attributes:
        side: Name of the side, or "all": every side together, each counting the same within a prompt.
        role: "before" or "after" in the contrast, "all", or "" when nothing says which side came first.
        rates: Share of the responses at each level, of those that were read (prompts equal).
        mean: Expected level, of those that were read.
        missing: Share of the responses whose judgement is missing.
        refused, unreadable, cannot_tell: How many are missing for which reason.
    """

    side: str
    role: Role
    rates: tuple[Estimate, ...]
    mean: Estimate
    missing: Estimate
    refused: int = 0
    unreadable: int = 0
    cannot_tell: int = 0


class FoundBefore(Record):
    """The same numbers as the findings have them, on their own responses; None where they have none."""

    before: tuple[float, ...] | None
    after: tuple[float, ...] | None
    mean_before: float | None
    mean_after: float | None
    shift: float | None
    missing_before: float | None
    missing_after: float | None
    change: Estimate
    share: Estimate


class ParameterScore(Record):
    """One order parameter on the other responses.

    Attributes:
        judged: False when no response could be judged; `reason` says why, and every number is None.
        sides: "all" first, then each side.
        shift: Expected level, after minus before, paired by prompt; None without a contrast.
        rate_shifts: The same for the rate of each level.
        change: D[O], the change visible through this label; `share`: D[O]/D ("at most" where D is only bounded below).
        found: The numbers of the findings.
    """

    parameter: OrderParameter
    judged: bool
    reason: str = ""
    sides: tuple[SideScore, ...]
    shift: Estimate | None = None
    rate_shifts: tuple[Estimate, ...] = ()
    change: Estimate | None = None
    share: Estimate | None = None
    found: FoundBefore


class SideRecord(Record):
    """A side with its size: responses that speak for it (with likelihoods all of them do) and prompts."""

    side: str
    role: Role
    n: int
    n_prompts: int


class GateRecord(Record):
    """The condition of `--fail-if`, the numbers it looked at, and whether it is true."""

    expression: str
    values: dict[str, Estimate]
    true: bool


class Score(Record):
    """Findings scored on other responses; the same input, options and seed give the same record.

    Attributes:
        findings, findings_run, findings_digest, findings_judge: Where the order parameters come from.
        contrast: The two sides compared here, or None; `no_contrast` then says why.
        change, joint: Total change D and joint share of the judged parameters; None without a contrast.
        found_contrast, found_change, found_joint: The numbers of the findings.
        cost: What an LLM judge was paid for, starts before this one included where judgements are kept.
    """

    format: Literal["order-parameter-score"] = "order-parameter-score"
    version: int = SCORE_VERSION
    findings: str
    findings_run: str
    findings_digest: str
    findings_judge: str
    run: str
    run_digest: str
    judge: str
    config: dict[str, Any]
    versions: dict[str, str]
    sides: tuple[SideRecord, ...]
    contrast: ContrastRecord | None
    no_contrast: str = ""
    change: Estimate | None = None
    change_is_bound: bool = False
    joint: Estimate | None = None
    found_contrast: ContrastRecord
    found_change: Estimate
    found_change_is_bound: bool
    found_joint: Estimate | None
    parameters: tuple[ParameterScore, ...]
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cost: tuple[CostLine, ...] = ()
    gate: GateRecord | None = None


# ---- which responses speak for which side


@dataclass(frozen=True)
class Side:
    """One side of a sample: `mass (n,)` >= 0 is how much each response speaks for it, within its prompt; `n` of them do."""

    name: str
    role: Role
    mass: np.ndarray
    n: int


@dataclass(frozen=True)
class Sample:
    """The responses that are scored.

    Attributes:
        rows: `(n,)` their rows in the recording.
        prompt: `(n,)` codes `0..P-1`.
        group: `(n,)` jackknife groups: the prompts, or parts of every prompt when there are fewer than `MIN_PROMPTS`.
        sides: "all" first, then each side.
        contrast, spec: What is compared; None where nothing can be, and `reason` says why.
    """

    rows: np.ndarray
    prompt: np.ndarray
    group: np.ndarray
    sides: tuple[Side, ...]
    contrast: Contrast | None = None
    spec: ContrastSpec | None = None
    reason: str = ""

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return int(self.prompt.max()) + 1

    @property
    def by_prompt(self) -> bool:
        """True when the jackknife leaves out prompts."""
        return self.n_prompts >= MIN_PROMPTS

    @property
    def unweighted(self) -> bool:
        """True when a side's responses count the same within a prompt."""
        return self.contrast is None or not self.contrast.likelihoods


def sample_of(work: Workbench) -> Sample:
    """The responses to score: those of the contrast the options ask for, or every side alone where nothing says which came first.

    Raises:
        ContrastError: The recording does not hold the contrast that was asked for.
    """
    config = work.config
    asked = config.contrast != "auto" or any(o is not None for o in (config.before, config.after, config.split, config.window))
    try:
        spec, contrast = work.chosen[0], work.contrast
    except (ContrastError, SampleError) as error:
        if asked:
            raise
        return _every_side(work.recording, str(error))
    return contrast_sample(contrast, spec)


def contrast_sample(contrast: Contrast, spec: ContrastSpec) -> Sample:
    """The responses of a contrast: how much each speaks for *before* and *after* follows from s and its weight, `w (1 +- s)`."""
    w, s = contrast.weight, contrast.s
    n, n_before = s.size, int(np.sum(s > 0))
    counts = (n, n) if contrast.likelihoods else (n_before, n - n_before)
    sides = (
        Side(EVERYTHING, "all", w, n),
        Side(spec.before, "before", w * (1 + s), counts[0]),
        Side(spec.after, "after", w * (1 - s), counts[1]),
    )
    return Sample(contrast.index, contrast.prompt, contrast.group, sides, contrast, spec)


def _every_side(recording: Recording, reason: str) -> Sample:
    r = recording.responses
    given = r.side if r.side is not None else tuple(f"step {s}" for s in r.step) if r.step is not None else ("",) * len(r)
    names = list(dict.fromkeys(given))
    place = {name: k for k, name in enumerate(names)}
    side = np.array([place[name] for name in given])
    prompt = prompt_codes(recording)
    n_prompts, n_sides = int(prompt.max()) + 1, len(names)
    count = np.bincount(prompt * n_sides + side, minlength=n_prompts * n_sides).reshape(n_prompts, n_sides)
    mass = 1 / (count[prompt, side] * (count > 0).sum(axis=1)[prompt])
    group = prompt
    if n_prompts < MIN_PROMPTS:
        group = within_prompt_groups(prompt, side, min(N_WITHIN_GROUPS, max(2, int(count.sum(axis=1).min()))), np.random.default_rng(0))
    own = [Side(name, "", np.where(side == k, mass, 0.0), int(np.sum(side == k))) for k, name in enumerate(names)]
    return Sample(np.arange(prompt.size), prompt, group, (Side(EVERYTHING, "all", mass, prompt.size), *own), reason=reason)


# ---- judging


def judge_sample(work: Workbench, sample: Sample, parameter: OrderParameter) -> str:
    """Have every distinct text of the sample judged that is not yet; returns why that is impossible, or ""."""
    if parameter.rule is None and work.judge.id == "embedded":
        return "it has no rule, and the embedded judge applies rules only: choose a judge that reads with --judge"
    r, keys = work.recording.responses, work.text_keys
    known = work.store.get(work.judge.id, parameter.id)
    texts: dict[str, Text] = {}
    for i in sample.rows:
        if keys[i] not in known:
            texts.setdefault(keys[i], (keys[i], r.system[i], r.prompt[i], r.completion[i]))
    try:
        judgements: list[Judgement] = work.judge.judge(parameter, list(texts.values())) if texts else []
    except RuleError as error:
        return f"its rule cannot be applied: {error}"
    work.store.put_many(judgement_row(work.judge.id, j) for j in judgements)
    readings = work.store.get(work.judge.id, parameter.id)
    found = [readings[keys[i]]["level"] for i in sample.rows]
    beyond = max((level for level in found if level is not None), default=-1)
    if beyond >= len(parameter.levels):
        return f"the judge read level {beyond}, and the scale has {len(parameter.levels)} levels from 0"
    if all(level is None for level in found):
        reasons = Counter(readings[keys[i]]["status"] for i in sample.rows)
        return "the judge read none of the responses (" + ", ".join(f"{n} {status}" for status, n in sorted(reasons.items())) + ")"
    return ""


@dataclass(frozen=True)
class Readings:
    """Levels `(n,)` of a sample's responses, -1 where missing, and the status of each reading."""

    level: np.ndarray
    status: tuple[str, ...]


def readings_of(work: Workbench, sample: Sample, parameter: OrderParameter) -> Readings:
    """The stored judgements of a sample's responses."""
    known = work.store.get(work.judge.id, parameter.id)
    rows = [known[work.text_keys[i]] for i in sample.rows]
    return Readings(
        np.array([-1 if row["level"] is None else row["level"] for row in rows], dtype=np.int64), tuple(row["status"] for row in rows)
    )


# ---- rates and shifts


def level_table(level: np.ndarray, mass: np.ndarray, prompt: np.ndarray, n_levels: int) -> np.ndarray:
    """Within each prompt, the share of a side's mass at each level and, last, of missing judgements.

    Args:
        level: `(n,)` levels, -1 missing.
        mass: `(n,)` >= 0.
        prompt: `(n,)` any codes; those without mass are left out.
        n_levels: Levels of the scale.

    Returns:
        `(n_prompts, n_levels + 1)`, rows sum to 1.
    """
    rows = mass > 0
    _, code = np.unique(prompt[rows], return_inverse=True)
    column = np.where(level[rows] < 0, n_levels, level[rows])
    size = int(code.max(initial=-1)) + 1
    table = np.bincount(code * (n_levels + 1) + column, weights=mass[rows], minlength=size * (n_levels + 1)).reshape(size, n_levels + 1)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def profile(table: np.ndarray) -> np.ndarray:
    """Rates of the levels among what was read, expected level, missing rate: `(..., n_levels + 2)` from tables `(..., n_levels + 1)`."""
    read = table[..., :-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = read / read.sum(axis=-1, keepdims=True)
    mean = rates @ np.arange(read.shape[-1])
    return np.concatenate([rates, mean[..., None], table[..., -1:]], axis=-1)


@dataclass(frozen=True)
class SideProfile:
    """Profile `(n_levels + 2,)` of one side, the same without each jackknife group, and the trials behind a rate of 0."""

    whole: np.ndarray
    without: np.ndarray
    trials: int


def side_profile(sample: Sample, side: Side, level: np.ndarray, n_levels: int) -> SideProfile:
    """Profile of one side with leave-one-group-out values `(n_groups, n_levels + 2)`, NaN where the group left out is all there is."""
    n_groups = int(sample.group.max()) + 1
    mine = np.unique(sample.prompt[side.mass > 0])
    table = level_table(level, side.mass, sample.prompt, n_levels)
    means = np.full((n_groups, n_levels + 1), np.nan)
    if sample.by_prompt:
        if mine.size > 1:
            means[mine] = (table.sum(axis=0) - table) / (mine.size - 1)
    else:
        for g in range(n_groups):
            kept = sample.group != g
            part = level_table(level[kept], side.mass[kept], sample.prompt[kept], n_levels)
            if part.shape[0] == mine.size:
                means[g] = part.mean(axis=0)
    read = (side.mass > 0) & (level >= 0)
    n_read = np.bincount(sample.prompt[read], minlength=sample.n_prompts)[mine]
    trials = int((n_read > 0).sum()) if sample.by_prompt else int(n_read.min()) * mine.size
    return SideProfile(profile(table.mean(axis=0)), profile(means), trials if sample.unweighted else 0)


def bounded(estimate: float, without: np.ndarray, highest: float, alike: bool, trials: int) -> tuple[Interval, str]:
    """Jackknife interval of a mean of values in [0, highest]; where every response has the same value, an exact limit.

    With `P` prompts taken at random whose responses all have one value, the part of the mean that lies elsewhere is r at most with
    `(1 - r)^P >= .025`, whatever the prompts are like: a response differs with probability r_p at prompt p, and
    `E[(1 - r_p)^n] <= 1 - E[r_p]`. Within fixed prompts the responses are the trials (arithmetic over geometric mean).

    Args:
        estimate: The mean on everything.
        without: `(n_groups,)` the mean without each group.
        highest: What no value is above.
        alike: Every response has the same value.
        trials: P (or responses) as above; 0 where that argument does not hold.

    Returns:
        The interval and what qualifies it.
    """
    interval = jackknife(estimate, without)
    if math.isfinite(interval.low) or not math.isfinite(estimate):
        return interval, ""
    if not (alike and trials):
        return interval, "no interval: all prompts are alike"
    rest = 1 - TAIL ** (1 / trials)
    limits = estimate * (1 - rest), estimate + rest * (highest - estimate)
    return Interval(estimate, *limits, interval.standard_error, interval.n_groups), f"all alike: limit from {trials} trials"


def _notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def side_score(sample: Sample, side: Side, found: SideProfile, readings: Readings, scope: str) -> SideScore:
    """One side's profile with intervals."""
    k = found.whole.size - 2
    # a mean of 1 in every prompt may be ones, or zeros and twos: only the rates tell
    one_level = bool(np.max(found.whole[:k], initial=0.0) > 1 - ALIKE)
    alike = [*(min(x, 1 - x) < ALIKE for x in found.whole[:k]), one_level, found.whole[-1] < ALIKE]
    estimates = []
    for j, highest in enumerate([*([1.0] * k), float(k - 1), 1.0]):
        interval, note = bounded(float(found.whole[j]), found.without[:, j], highest, bool(alike[j]), found.trials)
        undefined = "" if math.isfinite(found.whole[j]) else "no judgement was read"
        estimates.append(estimate_of(interval, side.n, _notes(scope, note, undefined)))
    status = Counter(status for status, m in zip(readings.status, side.mass, strict=True) if m > 0)
    reasons = {name: status.get(name, 0) for name in ("refused", "unreadable", "cannot_tell")}
    return SideScore(side=side.name, role=side.role, rates=tuple(estimates[:k]), mean=estimates[k], missing=estimates[k + 1], **reasons)


def _shifts(before: SideProfile, after: SideProfile, n: int, scope: str) -> tuple[Estimate, ...]:
    """After minus before of rates and expected level, paired by prompt."""
    out = []
    for j in range(before.whole.size - 1):
        difference = float(after.whole[j] - before.whole[j])
        interval = jackknife(difference, after.without[:, j] - before.without[:, j])
        alike = math.isfinite(difference) and not math.isfinite(interval.low)
        out.append(estimate_of(interval, n, _notes(scope, "no interval: all prompts are alike" if alike else "")))
    return tuple(out)


# ---- shares


class Shares:
    """D, D[O] and shares on all responses of the sample's contrast."""

    def __init__(self, work: Workbench, sample: Sample, contrast: Contrast, levels: dict[str, np.ndarray], judged: list[OrderParameter]):
        """Work out the total once; `levels` are the judged labels `(n,)` by parameter id."""
        self.contrast, self.levels = contrast, levels
        self.scope = "" if sample.by_prompt else THESE_PROMPTS
        self.rows = np.arange(contrast.s.size)
        self.bound: tuple[float, np.ndarray] | None = None
        self.problem, self.qualifier = "", ""
        n = contrast.s.size
        if why := why_unknown(checks_of(work)) if contrast.likelihoods else "":
            self.change = Estimate(estimate=None, n=n, note=f"unknown: {why}")
            self.problem = "not printed: the total change is unknown"
            return
        if contrast.likelihoods:
            interval = total_change(contrast)
            floor = max(work.config.min_change, Measurement(work, judged).numerical_floor)
            self.change = estimate_of(interval, n, self.scope)
            if not interval.low >= floor:
                self.problem = "not printed: the total change is below resolution"
            return
        self.qualifier = "at most"
        try:
            total = Measurement(work, judged).total
        except ValueError:  # a classifier that is left without one of the sides
            self.change = Estimate(estimate=None, n=n, note="not bounded: too few responses")
            self.problem = "not printed: the total change could not be bounded"
            return
        self.change = total.change
        if total.bound is None or not total.printable:
            self.problem = "not printed: the total change is below resolution"
            return
        self.bound = (total.bound.bound.estimate, self._aligned(work, total.bound.bound.estimate, total.bound.leave_one_out))

    def _aligned(self, work: Workbench, bound: float, without: np.ndarray) -> np.ndarray:
        """The bound without each jackknife group of the whole contrast: it rests on half of the responses, other prompts leave it alone."""
        if self.contrast.by_prompt and work.confirm.by_prompt:
            out = np.full(self.contrast.n_prompts, bound)
            out[np.unique(self.contrast.prompt[work.confirm_rows])] = without
            return out
        # groups within prompts are dealt anew for every half: the shares are then measured on the half of the bound
        self.rows, self.contrast = work.confirm_rows, work.confirm
        return without

    def _part(self, parameters: Sequence[OrderParameter]) -> Explained:
        return explained(self.contrast, [self.levels[p.id][self.rows] for p in parameters])

    def change_of(self, parameter: OrderParameter) -> Estimate:
        """D[O] of one parameter."""
        part = self._part([parameter])
        return estimate_of(part.change_interval, part.n, self.scope)

    def share_of(self, parameters: Sequence[OrderParameter]) -> Estimate:
        """D[O]/D of some parameters together."""
        if self.problem:
            return Estimate(estimate=None, n=self.rows.size, note=self.problem)
        part = self._part(parameters)
        interval = part.share_interval if self.bound is None else part.share_of(*self.bound)
        return estimate_of(interval, part.n, _notes(self.qualifier, self.scope))


# ---- the whole


def accepted_of(findings: Findings) -> list[ParameterFinding]:
    """What is scored: the accepted order parameters, in the order of the findings."""
    return [p for p in findings.parameters if p.verdict == "accepted"]


def score_findings(
    findings: Findings,
    source: str,
    work: Workbench,
    sample: Sample,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Score:
    """Judge the accepted order parameters of some findings on the responses of a workbench, and measure them there.

    Args:
        findings: Where the parameters come from.
        source: Their path, as given.
        work: The other recording with its options, judge and folder for judgements.
        sample: From `sample_of(work)`.
        progress: Called with ("judging", parameters done, parameters in all).

    Returns:
        Everything measured; parameters the judge cannot judge are reported with the reason.
    """
    wanted = accepted_of(findings)
    problems: dict[str, str] = {}
    for k, found in enumerate(wanted):
        progress("judging", k, len(wanted))
        if problem := judge_sample(work, sample, found.parameter):
            problems[found.parameter.id] = problem
    progress("judging", len(wanted), len(wanted))
    judged = [p.parameter for p in wanted if p.parameter.id not in problems]
    readings = {p.id: readings_of(work, sample, p) for p in judged}
    shares = None
    if sample.contrast is not None:
        shares = Shares(work, sample, sample.contrast, {i: r.level for i, r in readings.items()}, judged)
    parameters = tuple(
        _unjudged(p, sample, problems[p.parameter.id])
        if p.parameter.id in problems
        else _measured(p, sample, readings[p.parameter.id], shares)
        for p in wanted
    )
    contrast = None if sample.spec is None else contrast_record(work, sample.spec)
    score = Score(
        findings=source,
        findings_run=findings.run,
        findings_digest=findings.run_digest,
        findings_judge=findings.judge,
        run=work.config.run,
        run_digest=work.recording.digest,
        judge=work.judge.id,
        config=_options(work),
        versions=versions(),
        sides=tuple(SideRecord(side=s.name, role=s.role, n=s.n, n_prompts=_n_prompts(sample, s)) for s in sample.sides),
        contrast=contrast,
        no_contrast=sample.reason,
        change=None if shares is None else shares.change,
        change_is_bound=shares is not None and bool(shares.qualifier),
        joint=shares.share_of(judged) if shares is not None and judged else None,
        found_contrast=findings.contrast,
        found_change=findings.change,
        found_change_is_bound=findings.change_is_bound,
        found_joint=findings.joint,
        parameters=parameters,
        sentences=(),
        cautions=(),
        notes=(*work.recording.notes, *price_note(cost_lines(work))),
        cost=cost_lines(work),
    )
    return score.model_copy(update={"sentences": tuple(_sentences(score)), "cautions": tuple(_cautions(score))})


def _n_prompts(sample: Sample, side: Side) -> int:
    return int(np.unique(sample.prompt[side.mass > 0]).size)


def _options(work: Workbench) -> dict[str, Any]:
    asked = work.config.written()
    names = ("run", "columns", "select", "contrast", "before", "after", "split", "window", "transition", "judge", "seed", "min_change")
    return {name: asked[name] for name in names}


def found_before(found: ParameterFinding) -> FoundBefore:
    """The numbers of the findings about one parameter, with the expected levels worked out from its level distributions."""
    levels = found.levels
    if levels is None or not sum(levels.before) or not sum(levels.after):
        none = dict.fromkeys(("before", "after", "mean_before", "mean_after", "shift", "missing_before", "missing_after"))
        return FoundBefore(**none, change=found.change, share=found.share)
    before, after = (float(np.dot(rates, np.arange(len(rates)))) for rates in (levels.before, levels.after))
    return FoundBefore(
        before=levels.before,
        after=levels.after,
        mean_before=before,
        mean_after=after,
        shift=after - before,
        missing_before=levels.missing_before,
        missing_after=levels.missing_after,
        change=found.change,
        share=found.share,
    )


def _measured(found: ParameterFinding, sample: Sample, readings: Readings, shares: Shares | None) -> ParameterScore:
    parameter = found.parameter
    k = len(parameter.levels)
    scope = "" if sample.by_prompt else THESE_PROMPTS
    profiles = [side_profile(sample, side, readings.level, k) for side in sample.sides]
    sides = tuple(side_score(sample, side, p, readings, scope) for side, p in zip(sample.sides, profiles, strict=True))
    if shares is None:
        return ParameterScore(parameter=parameter, judged=True, sides=sides, found=found_before(found))
    *rate_shifts, shift = _shifts(profiles[1], profiles[2], sample.rows.size, scope)
    return ParameterScore(
        parameter=parameter,
        judged=True,
        sides=sides,
        shift=shift,
        rate_shifts=tuple(rate_shifts),
        change=shares.change_of(parameter),
        share=shares.share_of([parameter]),
        found=found_before(found),
    )


def _unjudged(found: ParameterFinding, sample: Sample, problem: str) -> ParameterScore:
    none = Estimate(estimate=None, note=f"not judged: {problem}")
    sides = tuple(
        SideScore(side=s.name, role=s.role, rates=(none,) * len(found.parameter.levels), mean=none, missing=none) for s in sample.sides
    )
    numbers: dict[str, Any] = {}
    if sample.contrast is not None:
        numbers = {"shift": none, "rate_shifts": (none,) * len(found.parameter.levels), "change": none, "share": none}
    return ParameterScore(parameter=found.parameter, judged=False, reason=problem, sides=sides, found=found_before(found), **numbers)


# ---- in plain English


def signed(e: Estimate) -> str:
    """`+1.20 [0.90, 1.50]`."""
    if e.estimate is None:
        return "not known"
    limits = "" if e.low is None or e.high is None else f" [{e.low:.2f}, {e.high:.2f}]"
    return f"{e.estimate:+.2f}{limits}"


def _sentences(score: Score) -> list[str]:
    out = []
    for p in score.parameters:
        name = f"“{p.parameter.name}”"
        if not p.judged:
            out.append(f"{name} could not be judged here: {p.reason}.")
        elif p.shift is None or score.contrast is None or p.share is None:
            mean = p.sides[0].mean
            limits = "" if mean.low is None or mean.high is None else f" [{mean.low:.2f}, {mean.high:.2f}]"
            out.append(f"{name}: expected level {mean.estimate:.2f}{limits} of 0 to {len(p.parameter.levels) - 1}.")
        else:
            was = "" if p.found.shift is None else f" (when found {p.found.shift:+.2f})"
            share = (
                "" if p.share.estimate is None else f" and explains {percent(p.share)} of the change (when found {percent(p.found.share)})"
            )
            out.append(f"{name} moves by {signed(p.shift)} levels from {score.contrast.before} to {score.contrast.after}{was}{share}.")
    return out


def _cautions(score: Score) -> list[str]:
    out = []
    if score.no_contrast:
        out.append(f"No shift and no share: {score.no_contrast}.")
    if score.run_digest == score.findings_digest:
        out.append("These are the responses the parameters were found on, half of them seen by the proposer: this tests nothing new.")
    if score.judge != score.findings_judge:
        out.append(f"Judged by {score.judge} here and by {score.findings_judge} when found: differences may be the judges'.")
    prompts = score.sides[0].n_prompts
    if prompts < MIN_PROMPTS:
        noun = "prompt" if prompts == 1 else "prompts"
        out.append(f"Only {prompts} {noun}: the intervals speak for these prompts only.")
    elif prompts < FEW_PROMPTS:
        out.append(f"Only {prompts} prompts: intervals are wide and cover a little less than they say.")
    if score.contrast is not None:
        out += _contrast_cautions(score, score.contrast)
    for p in score.parameters:
        missing = max((side.missing.estimate or 0.0 for side in p.sides), default=0.0)
        if p.judged and missing > MANY_MISSING:
            out.append(f"“{p.parameter.name}”: {100 * missing:.0f}% of the judgements on one side are missing.")
    lost = [p for p in score.parameters if not p.judged]
    if lost and score.joint is not None:
        out.append(f"The joint share is without the {len(lost)} of {len(score.parameters)} order parameters that could not be judged.")
    return out


def _contrast_cautions(score: Score, contrast: ContrastRecord) -> list[str]:
    out = []
    if contrast.n_prompts_excluded:
        out.append(f"{contrast.n_prompts_excluded} prompts were seen on one side only and are left out.")
    if score.change_is_bound:
        out.append("There are no likelihoods here: D is only bounded below, so every share is an upper bound. D[O] is the headline.")
    if contrast.likelihoods != score.found_contrast.likelihoods:
        out.append("D comes from likelihoods on one of the two only: compare D[O] and shifts, not shares.")
    if contrast.kind != score.found_contrast.kind:
        out.append(
            f"Compared is another kind of change ({contrast.kind} here, {score.found_contrast.kind} when found): shares are of another D."
        )
    change = score.change
    if change is not None and change.note.startswith("unknown"):
        out.append(f"How much changed is {change.note}. Rates and shifts rest on the same weights.")
    if not score.change_is_bound and change is not None and change.estimate is not None and change.estimate > SATURATED:
        out.append(f"D is {change.estimate:.2f}: close to 1 it saturates and hides differences.")
    return out
