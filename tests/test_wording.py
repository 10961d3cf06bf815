from __future__ import annotations

import pytest

from agent.records import ContrastRecord, Estimate, OrderParameter, ParameterFinding, TransitionRecord
from agent.wording import joint_sentence, lag, nothing_sentence, number, parameter_sentence, percent, steps, transition_sentence

CONTRAST = ContrastRecord(kind="sides", before="base", after="tuned", n_before=10, n_after=10, n_prompts=5, likelihoods=True)
NONE = Estimate(estimate=None, note="not printed: the total change is below resolution")


def of(estimate: float, low: float | None = None, high: float | None = None, note: str = "") -> Estimate:
    """An estimate."""
    return Estimate(estimate=estimate, low=low, high=high, note=note)


def parameter(**fields: Estimate | None) -> ParameterFinding:
    """An accepted parameter called harm."""
    harm = OrderParameter(name="harm", definition="", question="How harmful?", levels=("not", "openly"))
    whole: dict[str, Estimate | None] = {"change": of(0.2), "share": of(0.5)}
    return ParameterFinding.model_validate({"parameter": harm, "round": 1, "verdict": "accepted"} | whole | fields)


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (of(0.524, 0.451, 0.6), "52% [45, 60]"),
        (of(0.5), "50%"),
        (of(-0.013, -0.04, 0.01), "-1% [-4, 1]"),
        (of(1.2, 1.1, 1.3), "120% [110, 130]"),
        (of(0.3, 0.2, 0.4, "at most; for these prompts only"), "at most 30% [20, 40]"),
        (of(0.0004, -0.0004, 0.001), "0% [0, 0]"),
        (NONE, "not printed"),
        (None, "not printed"),
    ],
)
def test_a_share_in_words(estimate: Estimate | None, shown: str) -> None:
    """Whole percent with limits, never clipped, an upper bound named as such, no minus before zero, never a number for none."""
    assert percent(estimate) == shown


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (of(5, 2, 8), "5 [2, 8] steps after"),
        (of(-3, -5, -1), "3 [1, 5] steps before"),
        (of(-3, -5, 2), "3 [-2, 5] steps before"),
        (of(1), "1 step after"),
        (of(-2), "2 steps before"),
        (of(0, -2, 3), "0 [-2, 3] steps after"),
    ],
)
def test_a_lag_is_a_distance_and_a_direction(estimate: Estimate, shown: str) -> None:
    """Limits are distances in the direction that is named, smaller first."""
    assert lag(estimate) == shown


def test_a_place_on_the_step_axis() -> None:
    """With limits where there are any."""
    assert steps(of(34.2, 31, 38)) == "step 34 [31, 38]"
    assert steps(of(34)) == "step 34"


def test_small_counts_are_words() -> None:
    """One to twelve, figures beyond."""
    assert [number(k) for k in (0, 1, 3, 12, 13)] == ["no", "one", "three", "twelve", "13"]


def test_a_transition_with_and_without_the_gradient_norm() -> None:
    """Where it lies, how that lies to the gradient norm's peak where it is known, or why there is none."""
    found = TransitionRecord(
        window=2, splits=(), curve=(), low=(), high=(), found=True, peak=of(30, 28, 32), prominence=of(4), grad_norm_peak=24.0,
        lag_from_grad_norm=of(6, 4, 8),
    )  # fmt: skip
    assert transition_sentence(found, CONTRAST) == (
        "The behaviour changed at step 30 [28, 32], 6 [4, 8] steps after the gradient norm peaked (step 24)."
    )
    alone = found.model_copy(update={"lag_from_grad_norm": None, "grad_norm_peak": None})
    assert transition_sentence(alone, CONTRAST) == "The behaviour changed at step 30 [28, 32]."
    none = found.model_copy(update={"found": False, "reason": "the peak is low"})
    assert transition_sentence(none, CONTRAST) == "No transition stands out along the run: the peak is low. Compared are base and tuned."


def test_the_accepted_set_in_one_sentence() -> None:
    """Singular and plural, and at most where it is."""
    assert (
        joint_sentence(1, of(0.5, 0.4, 0.6), CONTRAST) == "One order parameter explains 50% [40, 60] of the change between base and tuned."
    )
    assert joint_sentence(2, of(0.5, note="at most"), CONTRAST).startswith("Two order parameters explain at most 50% of the change")


def test_one_parameter_in_one_sentence() -> None:
    """Share, gain beyond length, and when it moved; where no share is printed, the change itself."""
    whole = parameter(beyond_length=of(0.4, 0.3, 0.5), onset=of(12, 10, 14))
    assert parameter_sentence(whole) == "“harm” alone explains 50%, beyond length 40% [30, 50]; it moved at step 12 [10, 14]."
    assert parameter_sentence(parameter(share=NONE, change=of(0.2, 0.1, 0.3))) == "“harm” alone shows a change of 0.200 [0.100, 0.300]."


def test_nothing_found_says_what_would_have_been() -> None:
    """D with its limits, and the size that would have been found where that is known."""
    said = nothing_sentence(CONTRAST, of(0.003, -0.001, 0.007), 0.05)
    assert said.startswith("No change is detectable between base and tuned (D 0.003 [-0.001, 0.007]).")
    assert said.endswith("A parameter showing a change of 0.050 or more would have been found at this size.")
    assert nothing_sentence(CONTRAST, of(0.003), None) == "No change is detectable between base and tuned (D 0.003)."
