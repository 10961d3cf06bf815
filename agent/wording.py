"""The findings in plain English: one sentence per transition and parameter, and what would make the numbers wrong."""

from __future__ import annotations

from agent.records import ContrastRecord, Estimate, OrderRecord, ParameterFinding, TransitionRecord

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SATURATED = 0.9
FEW_PROMPTS = 12


def number(k: int) -> str:
    """A small count as a word."""
    return NUMBERS[k] if 0 <= k < len(NUMBERS) else str(k)


def percent(e: Estimate | None) -> str:
    """`52% [45, 60]`; the limits are left out when there are none."""
    if e is None or e.estimate is None:
        return "not printed"
    most = "at most " if "at most" in e.note else ""
    limits = "" if e.low is None or e.high is None else f" [{100 * e.low:z.0f}, {100 * e.high:z.0f}]"
    return f"{most}{100 * e.estimate:z.0f}%{limits}"


def steps(e: Estimate) -> str:
    """`step 34 [31, 38]`."""
    assert e.estimate is not None  # noqa: S101 - only called for printed estimates
    limits = "" if e.low is None or e.high is None else f" [{e.low:z.0f}, {e.high:z.0f}]"
    return f"step {e.estimate:z.0f}{limits}"


def lag(e: Estimate) -> str:
    """`5 [2, 8] steps after`, `3 [1, 5] steps before` (limits as distances in that direction)."""
    assert e.estimate is not None  # noqa: S101 - only called for printed estimates
    sign = 1 if e.estimate >= 0 else -1
    ends = sorted((sign * e.low, sign * e.high)) if e.low is not None and e.high is not None else None
    limits = "" if ends is None else f" [{ends[0]:z.0f}, {ends[1]:z.0f}]"
    distance = abs(e.estimate)
    unit = "step" if round(distance) == 1 and ends is None else "steps"
    return f"{distance:z.0f}{limits} {unit} {'after' if sign > 0 else 'before'}"


def transition_sentence(transition: TransitionRecord, contrast: ContrastRecord) -> str:
    """When the behaviour changed, and how that lies to the gradient norm."""
    if not transition.found:
        return f"No transition stands out along the run: {transition.reason}. Compared are {contrast.before} and {contrast.after}."
    out = f"The behaviour changed at {steps(transition.peak)}"
    e = transition.lag_from_grad_norm
    if e is not None and e.estimate is not None:
        peaked = f"the gradient norm peaked (step {transition.grad_norm_peak:.0f})"
        limits = "" if e.low is None or e.high is None else f", {e.low:+.0f} to {e.high:+.0f} steps"
        out += f", when {peaked}{limits}" if round(e.estimate) == 0 else f", {lag(e)} {peaked}"
    return out + "."


def joint_sentence(n: int, joint: Estimate, contrast: ContrastRecord) -> str:
    """How much the accepted set explains together."""
    noun = "order parameter explains" if n == 1 else "order parameters explain"
    return f"{number(n).capitalize()} {noun} {percent(joint)} of the change between {contrast.before} and {contrast.after}."


def parameter_sentence(found: ParameterFinding) -> str:
    """What one accepted parameter explains, beyond length too, and when it moved."""
    name = found.parameter.name
    if found.share.estimate is None:
        change = found.change
        limits = "" if change.low is None or change.high is None else f" [{change.low:z.3f}, {change.high:z.3f}]"
        out = f"“{name}” alone shows a change of {change.estimate:z.3f}{limits}"
    else:
        out = f"“{name}” alone explains {percent(found.share)}, beyond length {percent(found.beyond_length)}"
    if found.onset is not None and found.onset.estimate is not None:
        out += f"; it moved at {steps(found.onset)}"
    return out + "."


def shown_numbers(e: Estimate) -> str:
    """`0.98 [0.95, 1.02]`, or the note where there is no number."""
    if e.estimate is None:
        return e.note
    limits = "" if e.low is None or e.high is None else f" [{e.low:z.2f}, {e.high:z.2f}]"
    return f"{e.estimate:z.2f}{limits}"


def unknown_sentence(contrast: ContrastRecord, why: str) -> str:
    """A total change that is not known, and why."""
    return f"How much changed between {contrast.before} and {contrast.after} is unknown: {why}."


def nothing_sentence(contrast: ContrastRecord, change: Estimate, smallest: float | None) -> str:
    """Nothing to be found, and what size would have been."""
    size = "" if smallest is None else f" A parameter showing a change of {smallest:z.3f} or more would have been found at this size."
    limits = "" if change.low is None or change.high is None else f" [{change.low:z.3f}, {change.high:z.3f}]"
    return f"No change is detectable between {contrast.before} and {contrast.after} (D {change.estimate:z.3f}{limits}).{size}"


def further_sentence(others: tuple[Estimate, ...]) -> str:
    """The other transitions of the run, and how to look at them."""
    where = ", ".join(steps(e) for e in others)
    noun = "A further transition lies" if len(others) == 1 else "Further transitions lie"
    return f"{noun} at {where}; --transition 2 analyses the next one."


def order_sentence(order: OrderRecord) -> str:
    """One settled order of two parameters."""
    e = order.lag
    limits = "" if e.low is None or e.high is None else f" [{e.low:.0f}, {e.high:.0f}]"
    first, second = (name if name == "length" else f"“{name}”" for name in (order.first, order.second))
    return f"{first[0].upper()}{first[1:]} moved before {second}, by {e.estimate:.0f}{limits} steps."
