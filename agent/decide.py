"""Which candidates are accepted: gain given length and the accepted set, tested on the confirm half (METHOD 4).

A judge that errs leaves a part of every accepted parameter's own effect unexplained. A paraphrase would win that part with
certainty, and so would a parameter that is merely correlated with it. So a candidate that passes is held, before it is accepted,
against the accepted set without its reading error (`probes.second_reading`), which a second reading of that set reveals.
(Asking that it gain more than the second reading gains would let every second paraphrase pass and refuse every parameter
smaller than the error of a large one.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agent.records import TestRecord
from probes.dissimilarity import Contrast
from probes.explained_share import explained
from probes.permutation import conditional_permutation
from probes.second_reading import Beyond, beyond_second_reading

ReadAgain = Callable[[Sequence[str]], Sequence[np.ndarray]]
"""Ids accepted in this round -> second readings of everything accounted for: of the base labels, then of these, in order."""


@dataclass(frozen=True)
class Rule:
    """How a family of candidates is decided.

    Attributes:
        family: `agent` (maxT over the round's candidates at level alpha) or `human` (Holm over the hypotheses).
        alpha: Level of this round (agent: `round_level`) or of the whole family (human).
        min_share: Smallest gain that counts.
        n_permutations: Permutations per test.
    """

    family: Literal["agent", "human"]
    alpha: float
    min_share: float
    n_permutations: int


def round_level(alpha: float, round_number: int, carried: float) -> float:
    """Level of a round of the agent's family: alpha/2^round, and what the round before it passed on.

    A round that accepts everything it tests, as one of remembered parameters often does, passes its level on (the fallback procedure,
    Wiens & Dmitrienko 2005). The family keeps alpha: a round that tests something that did not move passes nothing on unless it errs, so
    of any two such rounds the later one has no part of alpha that the earlier one had, as long as no error was made.

    Args:
        alpha: Of the family.
        round_number: From 1.
        carried: `passed_on` of the round before; 0 in the first.
    """
    return alpha * 0.5**round_number + carried


def passed_on(level: float, ledger: Sequence[TestRecord]) -> float:
    """What a round leaves to the next: its whole level when everything it tested was accepted (or nothing was tested), else 0."""
    return level if all(test.accepted for test in ledger) else 0.0


def decide(
    confirm: Contrast,
    base: Sequence[np.ndarray],
    candidates: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    rule: Rule,
    round_number: int,
    rng: np.random.Generator,
    read_again: ReadAgain | None = None,
) -> tuple[list[str], list[TestRecord]]:
    """Accept candidates one at a time, the strongest first, each given length, the accepted set and those accepted before it.

    Args:
        confirm: The confirm half.
        base: Labels of length and of the accepted set, rows as `confirm`.
        candidates: Labels by parameter id, in an order that does not depend on when they arrived.
        names: Names by parameter id.
        rule: Level, smallest gain, permutations.
        round_number: For the ledger.
        rng: Source of the permutations.
        read_again: Second readings of the base labels (length: the same again) and of what this round accepted before. Asked only
            when a candidate would be accepted beside a judged one; None where a second reading is bound to agree with the first.

    Returns:
        Accepted ids in order, and one ledger line per candidate: its last test.
    """
    remaining = dict(candidates)
    accepted: list[str] = []
    base = list(base)
    ledger: dict[str, TestRecord] = {}
    while remaining:
        ids = sorted(remaining)
        gains = [_gain(confirm, base, remaining[i]) for i in ids]
        test = conditional_permutation(confirm, base, [remaining[i] for i in ids], rng, rule.n_permutations)
        p_values = test.p_value if rule.family == "agent" else test.marginal_p_value
        alpha = rule.alpha if rule.family == "agent" else rule.alpha / len(remaining)
        reasons = [_reason(gain, float(p), alpha, rule.min_share) for gain, p in zip(gains, p_values, strict=True)]
        passing = [k for k in range(len(ids)) if not reasons[k]]
        again = base if read_again is None or not passing else read_again(accepted)
        if any(not np.array_equal(a, b) for a, b in zip(base, again, strict=True)):
            for k in passing:
                beyond = beyond_second_reading(confirm, base, again, remaining[ids[k]])
                reasons[k] = _repeat(beyond, gains[k], confirm, alpha / len(passing), rule.min_share)
            passing = [k for k in passing if not reasons[k]]
        best = max(passing, key=lambda k: (test.z[k], ids[k]), default=None)
        for k, i in enumerate(ids):
            ledger[i] = TestRecord(
                round=round_number,
                family=rule.family,
                parameter_id=i,
                name=names[i],
                n=confirm.s.size,
                gain=gains[k],
                p_value=float(p_values[k]),
                alpha=alpha,
                accepted=k == best,
                reason=reasons[k],
            )
        if best is None:
            break
        accepted.append(ids[best])
        base.append(remaining.pop(ids[best]))
    return accepted, [ledger[i] for i in sorted(ledger)]


def _gain(confirm: Contrast, base: list[np.ndarray], label: np.ndarray) -> float:
    """Gain in joint share (in D[O] itself without likelihoods, where a share of at most 1 is a share of at least that)."""
    more, less = explained(confirm, [*base, label]), explained(confirm, base)
    return float((more.change - less.change) / more.total)


def _reason(gain: float, p_value: float, alpha: float, min_share: float) -> str:
    if not p_value <= alpha:
        return f"not distinguishable from chance (p {p_value:.2g}, level {alpha:.2g})"
    if not gain >= min_share:
        return f"gains {gain:.3f} beyond length and the accepted set (at least {min_share:g} needed)"
    return ""


def _repeat(beyond: Beyond, gain: float, confirm: Contrast, alpha: float, min_share: float) -> str:
    """Why a candidate is no more than another reading of the accepted set; empty when it is more."""
    left = beyond.gain / (confirm.mean(confirm.s**2) if confirm.likelihoods else 1.0)
    if not beyond.p_value <= alpha:
        return f"gains {gain:.3f}, but no more than another reading of the accepted set would (p {beyond.p_value:.2g}, level {alpha:.2g})"
    if not left >= min_share:
        return f"gains {gain:.3f}, but only {left:.3f} beyond the accepted set without its reading error (at least {min_share:g} needed)"
    return ""
