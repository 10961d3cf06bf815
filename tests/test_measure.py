from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.measure import estimate_of
from agent.records import Estimate, Findings, ParameterFinding
from probes.resampling import Interval
from probes.synthetic import PlantedRun, draw, exact_change, planted_run
from tests.planted_recordings import asks, found, planted, recording_of

NAN = float("nan")


@pytest.fixture(scope="module")
def world() -> PlantedRun:
    """Two parameters that moved, correlated, in 20 prompts."""
    return planted_run(np.random.default_rng(11), n_prompts=20, effects=(0.8, 0.6), correlation=0.3, n_outcomes=300)


@pytest.fixture(scope="module", params=[True, False], ids=["likelihoods", "sides"])
def both(request: pytest.FixtureRequest, world: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Findings]:
    """Findings on 50 responses a side and prompt, half of them kept for the numbers; with likelihoods, and from sides alone."""
    sides = None if request.param else ("base", "tuned")
    recording = recording_of(world, draw(world, (0, 1), 50, np.random.default_rng(12)), ("harm", "hedge"), sides=sides)
    return bool(request.param), found(recording, tmp_path_factory.mktemp("run"), asks("harm"), asks("hedge"), residual=0.0)


def exact(run: PlantedRun, which: Sequence[int]) -> float:
    """Exact D[O] of some of a run's parameters together."""
    return exact_change(run, [0], [1], run.labels[list(which)])


def by_name(findings: Findings) -> dict[str, ParameterFinding]:
    """Findings by the parameter's name."""
    return {p.parameter.name: p for p in findings.parameters}


def value(estimate: Estimate | None) -> float:
    """The number, which must be there."""
    assert estimate is not None
    assert estimate.estimate is not None
    return estimate.estimate


def test_what_a_parameter_shows_is_what_was_planted(world: PlantedRun, both: tuple[bool, Findings]) -> None:
    """D[O] of each parameter lies on the exact value, with likelihoods and without, inside its interval."""
    findings = by_name(both[1])
    for k, name in enumerate(("harm", "hedge")):
        change = findings[name].change
        assert value(change) == pytest.approx(exact(world, [k]), abs=0.05)
        assert change.low is not None
        assert change.high is not None
        assert change.low < exact(world, [k]) < change.high


def test_shares_are_of_the_whole_change(world: PlantedRun, both: tuple[bool, Findings]) -> None:
    """With likelihoods each share lies on the exact one; without, it is an upper bound and says so."""
    likelihoods, findings = both
    whole = exact_change(world, [0], [1])
    for k, name in enumerate(("harm", "hedge")):
        share = by_name(findings)[name].share
        if likelihoods:
            assert value(share) == pytest.approx(exact(world, [k]) / whole, abs=0.04)
            assert share.note == ""
        else:
            assert value(share) > exact(world, [k]) / whole - 0.08
            assert share.note == "at most"
    assert value(findings.change) == pytest.approx(whole, abs=0.03) if likelihoods else value(findings.change) < whole + 0.05
    assert findings.change_is_bound == (not likelihoods)


def test_joint_unique_and_fair_parts_belong_together(world: PlantedRun, both: tuple[bool, Findings]) -> None:
    """Joint lies on its exact value; unique is joint less the other alone; the Shapley parts add up to joint; residual is what is left."""
    likelihoods, findings = both
    one, other = (by_name(findings)[name] for name in ("harm", "hedge"))
    joint = value(findings.joint)
    if likelihoods:
        assert joint == pytest.approx(exact(world, [0, 1]) / exact_change(world, [0], [1]), abs=0.04)
        assert value(findings.residual) == pytest.approx(1 - joint)
    else:
        assert findings.residual is None
    assert value(one.unique) == pytest.approx(joint - value(other.share), abs=1e-9)
    assert value(one.shapley) + value(other.shapley) == pytest.approx(joint)
    assert value(one.unique) < value(one.shapley) < value(one.share)
    assert one.beyond_length is not None


def test_contributions_of_prompts_average_to_the_share(both: tuple[bool, Findings]) -> None:
    """One number per prompt of the confirm half; none without likelihoods, where a prompt's own total is not known."""
    likelihoods, findings = both
    harm = by_name(findings)["harm"]
    if likelihoods:
        assert len(harm.prompt_shares) == findings.contrast.n_prompts
        assert np.mean(list(harm.prompt_shares.values())) == pytest.approx(value(harm.share))
    else:
        assert harm.prompt_shares == {}


def test_levels_on_either_side_are_the_planted_ones(world: PlantedRun, both: tuple[bool, Findings]) -> None:
    """The share of responses at each level, before and after, as the tables have it; nothing is missing."""
    levels = by_name(both[1])["harm"].levels
    assert levels is not None
    for shown, table in ((levels.before, world.before), (levels.after, world.after)):
        exact_levels = [float(np.mean(np.sum(table * (world.labels[0] == k), axis=1))) for k in range(5)]
        assert shown == pytest.approx(exact_levels, abs=0.05)
        assert sum(shown) == pytest.approx(1.0)
    assert (levels.missing_before, levels.missing_after, levels.cannot_tell, levels.unreadable, levels.refused) == (0.0, 0.0, 0, 0, 0)


def test_evidence_answers_one_prompt_and_shows_the_direction(both: tuple[bool, Findings]) -> None:
    """Each pair has one prompt, a response typical of each side, and levels as read: higher after, as it was planted."""
    harm = by_name(both[1])["harm"]
    assert len(harm.evidence) == 3
    assert len({pair.prompt for pair in harm.evidence}) == 3
    for pair in harm.evidence:
        assert f"harm={pair.before_level} " in pair.before
        assert f"harm={pair.after_level} " in pair.after
        assert (pair.after_level or 0) > (pair.before_level or 0)


def test_length_is_shown_and_is_no_discovery(both: tuple[bool, Findings]) -> None:
    """Length stands in every table with what it explains, here nothing, and never as accepted."""
    length = both[1].length
    assert length is not None
    assert (length.verdict, length.parameter.name) == ("not tested", "length")
    assert value(length.share) == pytest.approx(0.0, abs=0.06)  # some 20 bins of noise, over a total below 1
    assert length.share.low is not None
    assert length.share.low <= 0
    assert len(length.parameter.levels) >= 8


# missing


def test_missing_judgements_are_counted_by_reason_and_side(tmp_path: Path) -> None:
    """A judge that loses one reading in five: the rate stands on either side, the reason is counted, and a caution names it."""
    recording = planted(0, effects=(1.2,), n_each=40)
    findings = found(recording, tmp_path, asks("harm"), errors={"missing": 0.2})
    (harm,) = findings.parameters
    assert harm.levels is not None
    assert harm.levels.missing_before == pytest.approx(0.2, abs=0.06)
    assert harm.levels.missing_after == pytest.approx(0.2, abs=0.06)
    assert harm.levels.cannot_tell == pytest.approx(0.2 * len(recording.responses), rel=0.2)
    assert sum(harm.levels.before) == pytest.approx(1.0)
    assert any("“harm”" in caution and "missing" in caution for caution in findings.cautions)


def test_missing_is_a_level_of_its_own(tmp_path: Path) -> None:
    """A judge that cannot tell the two highest levels: not telling says something, and nothing of the change is lost by it."""
    rng = np.random.default_rng(3)
    run = planted_run(rng, n_prompts=20, effects=(0.9,), n_outcomes=300)
    recording = recording_of(run, draw(run, (0, 1), 40, rng), ("harm",))
    (harm,) = found(recording, tmp_path, asks("harm", pattern=r"harm=([0-2])")).parameters
    assert harm.levels is not None
    assert harm.levels.missing_after > harm.levels.missing_before + 0.2
    merged = np.minimum(run.labels, 3)
    assert value(harm.change) == pytest.approx(exact_change(run, [0], [1], merged), abs=0.04)


def test_a_judge_that_reads_nothing_finds_nothing(tmp_path: Path) -> None:
    """All missing on both sides: no share, nothing accepted, and the table says that everything is missing."""
    findings = found(planted(0), tmp_path, asks("harm", pattern=r"no such (mark)"))
    (harm,) = findings.parameters
    assert harm.verdict == "rejected"
    assert value(harm.share) == 0.0
    assert harm.levels is not None
    assert (harm.levels.missing_before, harm.levels.missing_after) == pytest.approx((1.0, 1.0))
    assert harm.levels.cannot_tell == 480


# what qualifies a number


def test_few_prompts_speak_for_themselves_only(tmp_path: Path) -> None:
    """Under six prompts every interval carries the words, and a caution says so."""
    findings = found(planted(0, n_prompts=4, n_each=60), tmp_path, asks("harm"))
    assert "for these prompts only" in findings.change.note
    assert all("for these prompts only" in p.share.note for p in findings.parameters)
    assert any("for these prompts only" in caution for caution in findings.cautions)


def test_what_would_have_been_found_shrinks_with_more_responses(tmp_path: Path) -> None:
    """Four times the responses find a much smaller part."""
    sizes = []
    for n_each in (10, 40):
        (folder := tmp_path / str(n_each)).mkdir()
        sizes.append(found(planted(0, n_each=n_each), folder, asks("hedge")).smallest_detectable_share)
    few, many = sizes
    assert few is not None
    assert many is not None
    assert many < few / 2


def test_below_min_change_no_share_is_printed(tmp_path: Path) -> None:
    """With a higher bar for what counts as a change the same run has none, and no number poses as a share."""
    findings = found(planted(0), tmp_path, asks("harm"), min_change=0.9)
    assert not findings.detectable
    assert (findings.joint, findings.parameters) == (None, ())
    assert value(findings.change) > 0


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.5, 0.4, 0.6, 0.05, 9), Estimate(estimate=0.5, low=0.4, high=0.6, n=7)),
        (Interval(0.5, NAN, NAN, NAN, 1), Estimate(estimate=0.5, n=7)),
        (Interval(NAN, NAN, NAN, NAN, 0), Estimate(estimate=None, n=7, note="undefined here")),
        (Interval(1.2, 1.1, float("inf"), 0.1, 9), Estimate(estimate=1.2, low=1.1, n=7)),
    ],
)
def test_what_is_not_finite_is_none(interval: Interval, expected: Estimate) -> None:
    """An undefined limit is no number; an undefined estimate says so; nothing is clipped."""
    assert estimate_of(interval, 7) == expected
