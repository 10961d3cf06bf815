"""How a number is printed: one way for terminal, Markdown and HTML, so that the three can be held against `findings.json`."""

from __future__ import annotations

from dataclasses import dataclass

from agent.records import Estimate

DIGITS = 3
NAME_LIMIT = 120
MISSING = "–"
OUTSIDE = "outside 0 to 1"
BOUNDS = ("at most", "at least")


@dataclass(frozen=True)
class Shown:
    """An estimate as text.

    Attributes:
        value: The number itself, None when none is printed.
        text: The number, with "at most" or "at least" before it when it is a bound; an en dash when there is none.
        interval: "[low, high]", or "" when no interval is defined.
        flag: "outside 0 to 1" when a share or a dissimilarity is; values are never clipped.
        note: What else qualifies the number.
    """

    value: float | None
    text: str
    interval: str = ""
    flag: str = ""
    note: str = ""

    @property
    def line(self) -> str:
        """Everything in one line: "at most 0.312 [0.221, 0.403]!" where "!" marks a value outside 0 to 1."""
        return f"{self.text}{'!' if self.flag else ''} {self.interval}".strip()


NOTHING = Shown(None, MISSING)


def number(value: float | None, digits: int = DIGITS) -> str:
    """`value` with `digits` decimals (never "-0.000"); an en dash when there is none."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0.0 else text


def step(value: float | None) -> str:
    """An optimizer step: whole where it is whole, else one decimal."""
    return MISSING if value is None else f"{value:.1f}".removesuffix(".0")


def p_value(value: float | None) -> str:
    """A p-value or a level with four decimals: 2000 permutations resolve no more."""
    return number(value, 4)


def shown(estimate: Estimate | None, *, unit: bool = True, bound: str = "") -> Shown:
    """`estimate` as text; `unit` says that it should lie in [0, 1], `bound` adds "at most" or "at least" that its note does not say."""
    if estimate is None:
        return NOTHING
    notes = [part.strip() for part in estimate.note.split(";") if part.strip()]
    prefix = next((part for part in notes if part in BOUNDS), bound)
    note = "; ".join(part for part in notes if part not in BOUNDS)
    if estimate.estimate is None:
        return Shown(None, MISSING, note=note)
    write = number if unit else step
    limits = "" if estimate.low is None or estimate.high is None else f"[{write(estimate.low)}, {write(estimate.high)}]"
    flag = OUTSIDE if unit and not 0.0 <= estimate.estimate <= 1.0 else ""
    return Shown(estimate.estimate, f"{prefix} {write(estimate.estimate)}".strip(), limits, flag, note)
