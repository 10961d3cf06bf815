from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.config import make_config
from agent.contrasts import MANY_PROMPTS, ContrastSpec, build_contrast, choose_contrast, confirm_half, detect, drawn_columns, shown_steps
from agent.errors import ContrastError
from probes.dissimilarity import likelihood_contrast, total_change
from probes.explained_share import explained
from probes.synthetic import contrast_of, draw, exact_change, logistic_course, planted_run
from tests.planted_recordings import planted, recording_of
from tracing import Recording, Responses

COURSE = logistic_course(24, 12.0, 0.7)


def spec_of(recording: Recording, **options: Any) -> ContrastSpec:
    """The contrast these options choose."""
    return choose_contrast(recording, make_config(run="planted", **options))[0]


def sides(*names: str, per_side: int = 2) -> Recording:
    """Three prompts with `per_side` responses on each side."""
    rows = [(name, p, k) for name in names for p in range(3) for k in range(per_side)]
    responses = Responses.of([f"Q{p}" for _, p, _ in rows], [f"{n} {k}" for n, _, k in rows], side=[n for n, _, _ in rows])
    return Recording("file.jsonl", "0" * 64, responses)


@pytest.fixture(scope="module")
def run() -> Recording:
    """24 checkpoints with a sharp change at step 12, likelihoods known."""
    return planted(3, effects=(1.2,), n_prompts=8, n_each=6, course=COURSE, anchors=(0, 8, 12, 16, 23))


# named sides


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        (("base", "tuned"), {}, ("base", "tuned")),
        (("tuned", "base"), {}, ("base", "tuned")),
        (("tuned", "Base-7b"), {}, ("Base-7b", "tuned")),
        (("a", "b"), {"before": "b"}, ("b", "a")),
        (("a", "b"), {"after": "a"}, ("b", "a")),
        (("base", "x", "y"), {"after": "y"}, ("base", "y")),
        (("base", "x", "y"), {"before": "x", "after": "base"}, ("x", "base")),
    ],
)
def test_sides_are_found_by_name(names: tuple[str, ...], options: dict[str, str], expected: tuple[str, str]) -> None:
    """Two sides need no option when one is called base or before; with more, what is missing is asked for, never guessed."""
    spec = spec_of(sides(*names), **options)
    assert (spec.kind, spec.before, spec.after, spec.likelihoods) == ("sides", *expected, False)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("a", "b"), {}, r"sides a, b: which one is before and which after\? Give --before NAME --after NAME"),
        (("base", "x", "y"), {}, "sides base, x, y: with which one is base compared. Give --after NAME"),
        (("base", "x", "y"), {"before": "x"}, "sides base, x, y: with which one is x compared"),
        (("w", "x", "y"), {"after": "x"}, "sides w, x, y: which one is before"),
        (("base", "before"), {}, "sides base, before: which one is before"),
        (("base", "tuned"), {"after": "tunde"}, r"--after tunde: expected one of the sides in the file \(base, tuned\)"),
        (("base", "tuned"), {"before": "Base"}, "--before Base: expected one of the sides"),
        (("base", "tuned"), {"before": "base", "after": "base"}, r"--before and --after name the same side \(base\)"),
        (("base",), {}, "expected at least two sides, found only base"),
        (("base", "tuned"), {"split": 3}, r"--split: expected steps along a run, found sides only \(base, tuned\)"),
        (("base", "tuned"), {"split": 0}, "--split: expected steps"),
        (("base", "tuned"), {"window": 2}, "--window: expected steps"),
        (("base", "tuned"), {"contrast": "ends"}, "--ends: expected steps"),
        (("base", "tuned"), {"transition": 2}, "--transition: expected steps"),
    ],
)
def test_a_wrong_choice_of_sides_is_one_line(names: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    """What is missing, misspelt or impossible is said with what the file holds."""
    with pytest.raises(ContrastError, match=message) as caught:
        spec_of(sides(*names), **options)
    assert "\n" not in str(caught.value)


def test_only_prompts_seen_on_both_sides_are_compared() -> None:
    """A prompt without an answer on one side is left out; on the others each side weighs one half per prompt."""
    whole = sides("base", "tuned")
    keep = [
        k for k in range(len(whole.responses)) if not (whole.responses.prompt[k] == "Q2" and (whole.responses.side or ())[k] == "tuned")
    ]
    part = replace(whole, responses=whole.responses.take(keep[1:]))
    contrast = build_contrast(part, spec_of(part))
    assert contrast.n_prompts == 2
    assert {part.responses.prompt[i] for i in contrast.index} == {"Q0", "Q1"}
    for p in range(2):
        for sign in (1, -1):
            assert contrast.weight[(contrast.prompt == p) & (contrast.s == sign)].sum() == pytest.approx(0.5)


# steps


def test_a_transition_is_found_and_looked_at_from_both_sides(run: Recording) -> None:
    """Left alone, the contrast is the window around the planted change, named by its steps."""
    spec = spec_of(run)
    assert spec.kind == "window"
    assert len(spec.left) == len(spec.right)
    assert spec.left[-1] + 1 == spec.right[0]
    assert abs(spec.right[0] - 12) <= 1
    assert spec.likelihoods


def test_without_a_transition_the_ends_are_compared() -> None:
    """A run that drifts evenly has no transition; its first and last checkpoints are compared instead."""
    even = planted(4, effects=(0.4,), n_prompts=8, n_each=4, course=np.linspace(0, 1, 12))
    spec = spec_of(even)
    assert spec.kind == "ends"
    assert (spec.left[0], spec.right[-1]) == (0, 11)


@pytest.mark.parametrize(
    ("options", "left", "right", "names"),
    [
        ({"before": "0", "after": "23"}, (0,), (23,), ("step 0", "step 23")),
        ({"before": "1,0,2", "after": "20, 21"}, (0, 1, 2), (20, 21), ("steps 0-2", "steps 20-21")),
        ({"before": "0,5,5", "after": "22"}, (0, 5), (22,), ("steps 0, 5", "step 22")),
        ({"before": "20", "after": "3"}, (20,), (3,), ("step 20", "step 3")),
        ({"split": 2}, (0, 1), tuple(range(2, 24)), ("steps 0-1", "steps 2-23")),
        ({"split": 12, "window": 3}, (9, 10, 11), (12, 13, 14), ("steps 9-11", "steps 12-14")),
        ({"contrast": "ends", "window": 2}, (0, 1), (22, 23), ("steps 0-1", "steps 22-23")),
        ({"contrast": "ends"}, tuple(range(4)), tuple(range(20, 24)), ("steps 0-3", "steps 20-23")),
    ],
)
@pytest.mark.parametrize("likelihoods", [True, False])
def test_steps_are_compared_as_asked(
    options: dict[str, Any], left: tuple[int, ...], right: tuple[int, ...], names: tuple[str, str], likelihoods: bool, run: Recording
) -> None:
    """--before/--after, --split, --window and --ends mean the same with likelihoods and without."""
    recording = run if likelihoods else replace(run, log_likelihood=None)
    spec = spec_of(recording, **options)
    assert (spec.left, spec.right, (spec.before, spec.after), spec.likelihoods) == (left, right, names, likelihoods)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"before": "0"}, "--before and --after are needed together when the recording has steps"),
        ({"after": "0"}, "--before and --after are needed together"),
        ({"before": "base", "after": "23"}, "--before base: expected steps such as 0 or 0,10,20, as the recording has no sides"),
        ({"before": "0", "after": "23.5"}, "--after 23.5: expected steps"),
        ({"before": "0,", "after": "23"}, "--before 0,: expected steps"),
        ({"before": "0", "after": "99"}, r"--after 99: step 99 is not recorded \(recorded: 0, 1, ... 23: 24 steps\)"),
        ({"before": "0,1", "after": "1,2"}, "--before and --after: expected different steps, found step 1 in both"),
        ({"before": "0", "after": "23", "window": 2}, "--window: expected without --before and --after"),
        ({"split": 0}, r"--split 0: expected a step inside the run \(0, 1, ... 23: 24 steps\)"),
        ({"split": 24}, "--split 24: expected a step inside the run"),
        ({"split": -5}, "--split -5: expected a step inside the run"),
        ({"split": 2, "window": 3}, "--window 3: found only 2 checkpoints before --split 2"),
        ({"split": 22, "window": 3}, "--window 3: found only 2 checkpoints from --split 22"),
        ({"window": 13}, "--window 13: expected at most 12 for 24 checkpoints"),
        ({"contrast": "ends", "window": 13}, "--window 13: expected at most 12 for 24 checkpoints"),
        ({"split": 12, "transition": 2}, "--transition 2: expected without --ends, --split, --before and --after"),
        ({"contrast": "sides"}, "planted: .* expected a column `side`, found steps only"),
    ],
)
@pytest.mark.parametrize("likelihoods", [True, False])
def test_a_wrong_choice_of_steps_is_one_line(options: dict[str, Any], message: str, likelihoods: bool, run: Recording) -> None:
    """What was not recorded, does not fit or contradicts itself is said with what there is."""
    recording = run if likelihoods else replace(run, log_likelihood=None)
    with pytest.raises(ContrastError, match=message) as caught:
        spec_of(recording, **options)
    assert "\n" not in str(caught.value)


def test_a_transition_needs_likelihoods(run: Recording) -> None:
    """Asked for a window around a transition, a recording without likelihoods says what to give instead."""
    with pytest.raises(ContrastError, match="give --split STEP or --ends"):
        spec_of(replace(run, log_likelihood=None), contrast="window")
    with pytest.raises(ContrastError, match="--transition 2: expected with likelihoods, which this recording has not"):
        spec_of(replace(run, log_likelihood=None), transition=2)


def test_a_transition_that_was_not_found_cannot_be_asked_for(run: Recording) -> None:
    """--transition 9 is refused with the number found."""
    with pytest.raises(ContrastError, match=r"--transition 9: \d+ transitions? (was|were) found"):
        spec_of(run, transition=9)


def test_one_step_is_no_run(run: Recording) -> None:
    """A single checkpoint cannot be compared with itself."""
    assert run.log_likelihood is not None
    rows = np.flatnonzero(np.asarray(run.responses.step) == 0)
    single = replace(run, responses=run.responses.take(rows), steps=(0,), log_likelihood=run.log_likelihood[rows][:, :1])
    with pytest.raises(ContrastError, match=r"expected at least two steps or two sides, found 1 step\(s\)"):
        spec_of(single)


def test_a_side_without_responses_is_named(run: Recording) -> None:
    """Without likelihoods a checkpoint at which nothing was sampled cannot be a side."""
    bare = replace(run, log_likelihood=None)
    spec = spec_of(bare, before="0", after="5")
    with pytest.raises(ContrastError, match="planted: no responses were sampled at step 5"):
        build_contrast(bare, spec)


def _banded(run: Recording, reach: int) -> Recording:
    assert run.log_likelihood is not None
    banded = run.log_likelihood.copy()
    step = np.asarray(run.responses.step)
    banded[np.abs(np.arange(24)[None, :] - step[:, None]) > reach] = np.nan
    return replace(run, log_likelihood=banded)


def test_responses_scored_nearby_have_a_curve_as_far_as_they_reach(run: Recording) -> None:
    """A response scored under the checkpoints within 2L-1 of its own serves windows up to L: the transition is found where it is."""
    steps = set(np.asarray(run.responses.step).tolist())
    detection, whole = detect(_banded(run, 7), make_config(run="planted")), detect(run, make_config(run="planted"))
    assert detection is not None
    assert whole is not None
    assert detection.curve.window <= 4
    if steps == set(range(24)):
        assert detection.transition.step.estimate == pytest.approx(whole.transition.step.estimate, abs=1.5)


def test_responses_scored_under_their_own_checkpoint_only_need_a_choice(run: Recording) -> None:
    """Where no split has responses scored on both of its sides there is no curve, and a contrast has to be chosen."""
    recording = _banded(run, 0)
    assert detect(recording, make_config(run="planted")) is None
    with pytest.raises(
        ContrastError, match="no split has responses that are scored under both of its windows; give --split STEP or --ends"
    ):
        spec_of(recording)


def test_a_single_unscored_response_is_left_out_and_nothing_else(run: Recording) -> None:
    """One NaN does not change which responses are used: curve and contrast are those of the other responses, and it is counted."""
    assert run.log_likelihood is not None
    broken = run.log_likelihood.copy()
    broken[3, 5] = np.nan
    recording = replace(run, log_likelihood=broken)
    spec = spec_of(recording, split=12, window=3)
    others = np.delete(np.arange(len(run.responses)), 3)
    without = replace(run, responses=run.responses.take(others), log_likelihood=run.log_likelihood[others])
    found, expected = build_contrast(recording, replace(spec, left=(4, 5, 6))), build_contrast(without, replace(spec, left=(4, 5, 6)))
    assert found.n_unscored == 1
    assert found.index.tolist() == others.tolist()
    assert found.s == pytest.approx(expected.s)
    assert found.weight == pytest.approx(expected.weight)
    detection, whole = detect(recording, make_config(run="planted")), detect(without, make_config(run="planted"))
    assert detection is not None
    assert whole is not None
    assert detection.curve.window == whole.curve.window
    assert detection.curve.curve == pytest.approx(whole.curve.curve, abs=0.02)
    assert detection.curve.n_unscored == 1


def test_a_response_from_an_unscored_step_is_named(run: Recording) -> None:
    """A step under which nothing is scored is refused, not taken for its neighbour."""
    stray = replace(run, steps=(*range(8), *range(9, 25)))
    with pytest.raises(ContrastError, match="responses sampled at step 8, which is not among the scored checkpoints"):
        drawn_columns(stray)


def test_the_measured_change_is_that_of_the_chosen_steps() -> None:
    """D of the contrast is the exact dissimilarity of the two mixtures of tables."""
    rng = np.random.default_rng(8)
    run = planted_run(rng, n_prompts=10, effects=(0.8,), course=np.array([0.0, 0.3, 1.0]), n_outcomes=200)
    recording = recording_of(run, draw(run, (0, 1, 2), 200, rng), ("harm",))
    contrast = build_contrast(recording, spec_of(recording, before="0,1", after="2"))
    assert total_change(contrast).estimate == pytest.approx(exact_change(run, [0, 1], [2]), abs=0.01)


@pytest.mark.parametrize(("steps", "shown"), [((0, 5), "0, 5"), (tuple(range(0, 60, 2)), "0, 2, ... 58: 30 steps")])
def test_many_steps_are_shortened(steps: tuple[int, ...], shown: str) -> None:
    """A message names all steps when they are few, else the ends and their number."""
    assert shown_steps(steps) == shown


def test_a_contrast_survives_the_state_of_the_loop(run: Recording) -> None:
    """As plain values and back, as JSON would have it, it is the same."""
    spec = spec_of(run, split=12, window=2)
    assert ContrastSpec.of(json.loads(json.dumps(spec.plain()))) == spec


# the halves


@pytest.mark.parametrize("likelihoods", [True, False])
def test_below_forty_prompts_every_prompt_is_divided(likelihoods: bool) -> None:
    """Half of each prompt's responses, of each side's without likelihoods, give or take the odd one, is kept for the decision."""
    recording = planted(0, n_prompts=10, n_each=7, likelihoods=likelihoods)
    contrast = build_contrast(recording, spec_of(recording))
    half = confirm_half(contrast, 0)
    cell = contrast.prompt * 2 + (0 if likelihoods else (contrast.s > 0))
    n, kept = np.bincount(cell), np.bincount(cell, weights=half)
    n, kept = n[n > 0], kept[n > 0]
    assert (np.abs(kept - n / 2) <= 0.5).all()


def test_a_half_is_drawn_at_every_anchor_as_the_whole_was() -> None:
    """Of the responses to a prompt at an anchor half go either way, the odd one by turns, so that an anchor's odd ones do not add up."""
    run = planted_run(np.random.default_rng(5), n_prompts=12, effects=[1.0], course=COURSE)
    sample = draw(run, [0, 8, 12, 16, 23], 3, np.random.default_rng(6))
    contrast = likelihood_contrast(sample.log_likelihood, sample.drawn_at, sample.prompt, np.arange(6, 12), np.arange(12, 18))
    half = confirm_half(contrast, 0)
    cell = sample.prompt * len(COURSE) + sample.drawn_at
    kept = np.bincount(cell, weights=half)[np.unique(cell)]
    assert set(kept) == {1.0, 2.0}
    assert set(np.bincount(sample.prompt, weights=half)) == {7.0, 8.0}


@pytest.mark.slow
def test_shares_on_the_confirm_half_are_unbiased() -> None:
    """Five responses a side, a large change: over 40 redraws the share on the half is exact within .01 plus 2 errors.

    Split without regard to where a response was drawn the half would not have a fixed number of each side, and its share be .09 too small.
    """
    rng = np.random.default_rng(7)
    run = planted_run(rng, n_prompts=24, effects=[2.0, 1.0], hidden=0.7)
    exact = exact_change(run, [0], [1], run.labels[[0]]) / exact_change(run, [0], [1])
    found = []
    for seed in range(40):
        sample = draw(run, [0, 1], 5, rng)
        contrast = contrast_of(sample, [0], [1], likelihoods=True)
        rows = contrast.complete(confirm_half(contrast, seed))
        part = explained(contrast.take(rows), [sample.labels_of(run)[0][rows]])
        found.append(part.change / part.total)
    assert exact > 0.7
    assert abs(np.mean(found) - exact) < 0.01 + 2 * np.std(found) / np.sqrt(40)


def test_from_forty_prompts_on_whole_prompts_are_dealt_out() -> None:
    """Enough prompts make the two halves different questions."""
    recording = planted(0, n_prompts=MANY_PROMPTS, n_each=3)
    contrast = build_contrast(recording, spec_of(recording))
    half = confirm_half(contrast, 0)
    share = np.bincount(contrast.prompt, weights=half) / np.bincount(contrast.prompt)
    assert set(share) == {0.0, 1.0}
    assert share.sum() == MANY_PROMPTS // 2


def test_one_response_a_side_stays_together() -> None:
    """A prompt with a single response on a side cannot be divided: it goes whole to one half, and both halves get such prompts."""
    recording = planted(0, n_prompts=20, n_each=1, sides=("base", "tuned"))
    contrast = build_contrast(recording, spec_of(recording))
    half = confirm_half(contrast, 0)
    share = np.bincount(contrast.prompt, weights=half) / np.bincount(contrast.prompt)
    assert set(share) == {0.0, 1.0}
    assert share.sum() == 10


def test_the_halves_depend_on_the_seed_alone() -> None:
    """The same seed divides alike, another one differently."""
    recording = planted(0)
    contrast = build_contrast(recording, spec_of(recording))
    assert (confirm_half(contrast, 3) == confirm_half(contrast, 3)).all()
    assert (confirm_half(contrast, 3) != confirm_half(contrast, 4)).any()
