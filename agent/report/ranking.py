"""The ranked table and the lines around it, as text cells: the same content for terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass

from agent.records import ContrastRecord, Estimate, Findings, ParameterFinding
from agent.report.shown import Shown, number, shown, step

_VERDICT_ORDER = {"accepted": 0, "vetoed": 1, "rejected": 2, "not tested": 3}
_AGREEMENT_KEYS = ("krippendorff_alpha", "weighted_kappa", "kappa")


@dataclass(frozen=True)
class Row:
    """One order parameter in the ranked table; `rank` counts from 1 over all verdicts, accepted ones first."""

    rank: int
    finding: ParameterFinding
    change: Shown
    share: Shown
    unique: Shown
    beyond_length: Shown
    onset: Shown
    reliability: str

    @property
    def name(self) -> str:
        """The order parameter's name; untrusted text."""
        return self.finding.parameter.name

    @property
    def agreement(self) -> float | None:
        """Agreement of repeated judgements as a number; None for an exact rule and where it was not measured."""
        return agreement(self.finding)

    @property
    def notes(self) -> tuple[str, ...]:
        """What qualifies the row's numbers, each once."""
        every = [cell.note for cell in (self.share, self.change, self.unique, self.beyond_length, self.onset)]
        return tuple(dict.fromkeys(note for note in every if note))


def row(finding: ParameterFinding, rank: int = 0) -> Row:
    """The cells of one order parameter."""
    return Row(
        rank=rank,
        finding=finding,
        change=shown(finding.change),
        share=shown(finding.share),
        unique=shown(finding.unique),
        beyond_length=shown(finding.beyond_length),
        onset=shown(finding.onset, unit=False),
        reliability=reliability(finding),
    )


def ranked(findings: Findings) -> tuple[Row, ...]:
    """All order parameters: accepted first, then by share (by D[O] where no share is printed), largest first; ties keep their order."""
    ordered = sorted(findings.parameters, key=_rank_key)
    return tuple(row(finding, rank) for rank, finding in enumerate(ordered, start=1))


def _rank_key(finding: ParameterFinding) -> tuple[int, float]:
    size = finding.share.estimate if finding.share.estimate is not None else finding.change.estimate
    return _VERDICT_ORDER[finding.verdict], -size if size is not None else float("inf")


def reliability(finding: ParameterFinding) -> str:
    """Agreement of repeated judgements, "exact" for a rule, an en dash when it was not measured."""
    return "exact" if finding.parameter.rule is not None else number(agreement(finding), 2)


def agreement(finding: ParameterFinding) -> float | None:
    """Agreement of repeated judgements as a number; None for an exact rule and where it was not measured."""
    if finding.parameter.rule is not None:
        return None
    values = (finding.reliability.get(key) for key in _AGREEMENT_KEYS)
    return next((value for value in values if value is not None), None)


def quantities(finding: ParameterFinding) -> list[tuple[str, Estimate]]:
    """Every estimate of one order parameter that was made, with its name."""
    every = (
        ("share of D", finding.share),
        ("D[O]", finding.change),
        ("unique share", finding.unique),
        ("Shapley share", finding.shapley),
        ("gain beyond length", finding.beyond_length),
        ("gain beyond all rules", finding.beyond_rules),
        ("share with prompt interaction", finding.interaction),
        ("share on questions not seen", finding.transfer),
        ("D[O] at equal length", finding.length_matched),
        ("gain when decided", finding.gain),
    )
    return [(name, estimate) for name, estimate in every if estimate is not None]


def further_text(findings: Findings) -> str:
    """Places of the further transitions, highest first; "" when there is none."""
    places = [shown(place, unit=False).line for place in findings.other_transitions if place.estimate is not None]
    return f"also at step {', '.join(places)}" if places else ""


def total(findings: Findings) -> Shown:
    """The total change D, "at least" where it is only bounded below."""
    return shown(findings.change, bound="at least" if findings.change_is_bound else "")


def joint(findings: Findings) -> Shown:
    """Joint share of the accepted set."""
    return shown(findings.joint)


def residual(findings: Findings) -> Shown:
    """Share of the change that no accepted order parameter explains."""
    return shown(findings.residual)


def steps_text(steps: tuple[int, ...]) -> str:
    """Checkpoints in words: "step 20", "steps 20 to 28 (5 checkpoints)"."""
    if not steps:
        return ""
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]} ({len(steps)} checkpoints)"


def _side_text(name: str, steps: tuple[int, ...]) -> str:
    """A side by name and steps; a name that only repeats the steps ("steps 16-30") is said once."""
    where = steps_text(steps)
    if not where or not name:
        return name or where
    if name in (where, f"step {steps[0]}", f"steps {steps[0]}-{steps[-1]}"):
        return where
    return name if name.startswith(("step ", "steps ")) else f"{name} ({where})"


def contrast_text(contrast: ContrastRecord) -> str:
    """What is compared, in one line with its sizes; untrusted where sides are named by the user."""
    sides = []
    for name, steps, n in (
        (contrast.before, contrast.before_steps, contrast.n_before),
        (contrast.after, contrast.after_steps, contrast.n_after),
    ):
        sides.append(f"{_side_text(name, steps)}, {n:,} responses")
    window = f"; L = {contrast.window} checkpoints a side" if contrast.window else ""
    source = "likelihoods known" if contrast.likelihoods else "samples only, no likelihoods"
    lost = f" ({contrast.n_prompts_excluded} more seen on one side only, left out)" if contrast.n_prompts_excluded else ""
    return f"{contrast.kind}: {sides[0]} against {sides[1]}{window}; {contrast.n_prompts} prompts{lost}; {source}"


def total_text(findings: Findings) -> str:
    """The total change in one line, with Jensen-Shannon and total variation where they are known."""
    change = total(findings)
    others = [
        f"{name} {number(value)}"
        for name, value in (("Jensen-Shannon", findings.jensen_shannon), ("total variation", findings.total_variation))
        if value is not None
    ]
    tail = f"; {', '.join(others)}" if others else ""
    note = f" ({change.note})" if change.note else ""
    sign = "" if findings.change_is_bound else "= "
    return f"D {sign}{change.line}{note}{tail}"


def undetectable_text(findings: Findings) -> str:
    """What is said in place of shares when no change is detectable, with the size that would have been found; "" when one is."""
    if findings.detectable:
        return ""
    start = "No change is detectable at this size, so no share is printed."
    if findings.smallest_detectable_share is None:
        return start
    size = number(findings.smallest_detectable_share)
    found = f"A parameter that carries a share of {size} or more of a change would have been found"
    return f"{start} {found}; one below {size} would have been missed."


def missed_text(findings: Findings) -> str:
    """The smallest share this run could have found, in words; "" when it is not known."""
    if findings.smallest_detectable_share is None:
        return ""
    return f"At this size a share below {number(findings.smallest_detectable_share)} would have been missed."


def lag_text(findings: Findings) -> str:
    """Where the transition lies against the peak of the gradient norm; "" when either is unknown."""
    transition = findings.transition
    if transition is None or transition.grad_norm_peak is None:
        return ""
    peak = f"The gradient norm peaks at step {step(transition.grad_norm_peak)}"
    lag = transition.lag_from_grad_norm
    if lag is None or lag.estimate is None:
        return f"{peak}."
    words = "later" if lag.estimate >= 0 else "earlier"
    limits = shown(lag, unit=False)
    interval = f", lag {limits.text} {limits.interval}" if limits.interval else ""
    return f"{peak}; the behaviour changes {step(abs(lag.estimate))} steps {words}{interval}."


def flagged(findings: Findings) -> bool:
    """True when an estimate of the ranked table lies outside 0 to 1."""
    rows = list(ranked(findings)) + ([row(findings.length)] if findings.length else [])
    cells = [cell for entry in rows for cell in (entry.change, entry.share, entry.unique, entry.beyond_length)]
    return any(cell.flag for cell in [*cells, total(findings), joint(findings), residual(findings)])
