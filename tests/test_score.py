from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.contrasts import ContrastSpec
from agent.errors import AgentError, BudgetError
from agent.llm.embedded import EmbeddedJudge
from agent.llm.scripted import ScriptedJudge
from agent.measure import Measurement
from agent.records import Estimate, Findings
from agent.report.findings_file import findings_bytes
from agent.score import Sample, Score, bounded, contrast_sample, level_table, profile, sample_of, score_findings, side_profile
from agent.score_expression import ExpressionError, parse
from agent.workbench import Workbench
from probes.dissimilarity import total_change
from probes.explained_share import explained
from probes.synthetic import PlantedRun, contrast_of, draw, exact_change, planted_run
from tests.handmade_findings import finding, findings, parameter
from tests.llm_server import LlmServer
from tests.planted_recordings import asks, config_of, planted, recording_of, scripted, write_jsonl, write_run, write_script
from tracing import Recording, Responses

ROOT = Path(__file__).resolve().parent.parent
HARM, HEDGE = asks("harm"), asks("hedge")
SIDES = ("base", "tuned")


HARM_PARAMETER, HEDGE_PARAMETER = parameter("harm"), parameter("hedge")
SOURCE = findings(finding(HARM_PARAMETER, 0.5), finding(HEDGE_PARAMETER, 0.2))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A scripted judge that knows both."""
    return write_script(tmp_path / "script.toml", HARM, HEDGE)


def scored(findings: Findings, recording: Recording, folder: Path, *candidates: dict[str, Any], **options: Any) -> Score:
    """The findings scored on a recording with a scripted judge."""
    errors = {key: options.pop(key) for key in ("kappa", "missing") if key in options}
    _, judge = scripted(folder, *(candidates or (HARM, HEDGE)), **errors)
    return scored_by(judge, findings, recording, folder, **options)


def scored_by(judge: Any, findings: Findings, recording: Recording, folder: Path, **options: Any) -> Score:
    """The findings scored on a recording."""
    proposer, _ = scripted(folder, HARM, HEDGE)
    work = Workbench(recording, config_of(**options), folder, proposer, judge)
    score = score_findings(findings, "source", work, sample_of(work))
    work.store.close()
    return score


def small(seed: int, **options: Any) -> Recording:
    """A planted recording of two checkpoints with likelihoods: no classifiers are needed, so it is scored at once."""
    few: dict[str, Any] = {"effects": (0.9, 0.7), "n_prompts": 7, "n_each": 8}
    return planted(seed, **few | options)


def side_table(side: str, rows: Sequence[tuple[str, Sequence[int | None]]]) -> list[dict[str, str]]:
    """Responses of one side: per prompt, levels of harm, None for one that cannot be told."""
    return [
        {"prompt": prompt, "side": side, "completion": f"nothing {k}" if level is None else f"harm={level} {k}"}
        for prompt, levels in rows
        for k, level in enumerate(levels)
    ]


def recording_from(*tables: list[dict[str, str]]) -> Recording:
    """Rows as a recording."""
    rows = [row for table in tables for row in table]
    columns = {name: [row[name] for row in rows] for name in ("prompt", "completion", "side")}
    return Recording("rows", "1" * 64, Responses.of(columns["prompt"], columns["completion"], side=columns["side"]))


# ---- known answers


def test_rates_levels_and_missing_are_means_over_prompts(tmp_path: Path) -> None:
    """A prompt counts once whatever its number of responses; missing judgements are no level and have a rate of their own."""
    before = side_table("base", [("a", [0, 0, 0, 4]), ("b", [0]), *((p, [0]) for p in "cdef")])
    after = side_table("tuned", [("a", [4, 4]), ("b", [0, None]), *((p, [4]) for p in "cdef")])
    score = scored(SOURCE, recording_from(before, after), tmp_path, before="base", after="tuned")
    first = next(p for p in score.parameters if p.parameter.name == "harm")
    _, base, tuned = first.sides
    assert [base.side, tuned.side] == list(SIDES)
    assert base.rates[4].estimate == pytest.approx(0.25 / 6)
    assert base.mean.estimate == pytest.approx(4 * 0.25 / 6)
    assert tuned.missing.estimate == pytest.approx(0.5 / 6)
    assert tuned.rates[4].estimate == pytest.approx(5 / 5.5)
    assert tuned.cannot_tell == 1
    assert first.shift is not None
    assert first.shift.estimate == pytest.approx(4 * 5 / 5.5 - 4 * 0.25 / 6)


def redraws(run: PlantedRun, prompts: int, n: int, likelihoods: bool) -> Iterator[tuple[Sample, np.ndarray]]:
    """Samples of fresh prompts of a large planted run, with the true levels of its first parameter."""
    rng = np.random.default_rng(3)
    for _ in range(n):
        part = run.at_prompts(rng.choice(run.before.shape[0], prompts, replace=False))
        drawn = draw(part, (0, 1), 30 if likelihoods else 6, rng)
        contrast = contrast_of(drawn, [0], [1], likelihoods=likelihoods)
        yield contrast_sample(contrast, ContrastSpec("sides", *SIDES)), drawn.labels_of(part)[0][contrast.index]


@pytest.mark.parametrize("likelihoods", [False, True])
def test_rates_and_shifts_centre_on_the_planted_truth_and_intervals_cover_it(likelihoods: bool) -> None:
    """Over 80 redraws of 12 of 300 prompts, level rate and shift are unbiased and their 95% intervals cover in at least 88%.

    Reweighting by likelihoods has a bias of one over the number of responses: -.06 of a shift of 1.03 at 6 a side, -.004 at 30.
    """
    run = planted_run(np.random.default_rng(1), n_prompts=300, effects=(0.9,), n_outcomes=60)
    levels = run.labels[0]
    rate = float((run.after * (levels == 4)).sum(axis=1).mean())
    shift = float(((run.after - run.before) * levels).sum(axis=1).mean())
    estimates, covered = [], []
    for sample, level in redraws(run, 12, 80, likelihoods):
        before, after = (side_profile(sample, side, level, 5) for side in sample.sides[1:])
        pairs = (
            (after.whole[4], after.without[:, 4], rate),
            (after.whole[5] - before.whole[5], after.without[:, 5] - before.without[:, 5], shift),
        )
        estimates.append([value for value, _, _ in pairs])
        limits = [bounded(float(value), without, 4.0, False, 0)[0] for value, without, _ in pairs]
        covered.append([limit.low <= truth <= limit.high for limit, (_, _, truth) in zip(limits, pairs, strict=True)])
    values = np.array(estimates)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - [rate, shift]) < 3.5 * error + 0.015 * likelihoods)
    assert np.mean(covered, axis=0).min() >= 0.88


def test_shares_with_likelihoods_are_those_of_all_responses(tmp_path: Path) -> None:
    """D, D[O], share and joint share are the one estimator on every response of the contrast: nothing is held back."""
    recording = planted(4, effects=(0.9, 0.7), n_prompts=8)
    score = scored(SOURCE, recording, tmp_path, before="0", after="1")
    work = Workbench(recording, config_of(before="0", after="1"), tmp_path, *scripted(tmp_path, HARM, HEDGE))
    parameters = [p.parameter for p in score.parameters]
    labels = [work.labels(p) for p in parameters]
    assert score.change is not None
    assert score.joint is not None
    assert score.change.estimate == total_change(work.contrast).estimate
    for p, label in zip(score.parameters, labels, strict=True):
        part = explained(work.contrast, [label])
        assert p.change is not None
        assert p.share is not None
        assert (p.change.estimate, p.share.estimate) == (part.change, part.share_interval.estimate)
    assert score.joint.estimate == explained(work.contrast, labels).share_interval.estimate
    assert score.joint.low is not None
    assert score.joint.low < score.joint.estimate


@pytest.mark.parametrize("n_prompts", [4, 12, 44])
def test_without_likelihoods_a_share_is_at_most_the_change_over_its_bound(tmp_path: Path, n_prompts: int) -> None:
    """Share = D[O] / lower bound of D, said to be at most; halves by prompt (44) and few prompts (4) are no exception."""
    recording = planted(6, effects=(1.8, 1.0), n_prompts=n_prompts, n_each=max(4, 80 // n_prompts), sides=SIDES)
    score = scored(SOURCE, recording, tmp_path)
    first = score.parameters[0]
    assert score.change is not None
    assert score.change.estimate is not None
    assert first.change is not None
    assert first.change.estimate is not None
    assert first.share is not None
    assert first.share.estimate is not None
    assert score.change_is_bound
    assert "at most" in first.share.note
    assert first.share.low is not None
    ratio = first.change.estimate / score.change.estimate
    # below six prompts the share is measured on the half of the bound
    assert first.share.estimate == pytest.approx(ratio, rel=1e-9 if n_prompts > 4 else 0.5)
    assert ("for these prompts only" in first.share.note) == (n_prompts < 6)


def test_a_planted_parameter_is_found_again_at_its_share(tmp_path: Path) -> None:
    """On fresh responses of a planted run the interval of D[O] holds the exact value."""
    rng = np.random.default_rng(11)
    run = planted_run(rng, n_prompts=20, effects=(0.9, 0.7), n_outcomes=200)
    recording = recording_of(run, draw(run, (0, 1), 20, rng), ("harm", "hedge"))
    score = scored(SOURCE, recording, tmp_path, before="0", after="1")
    for k, name in enumerate(("harm", "hedge")):
        change = next(p for p in score.parameters if p.parameter.name == name).change
        assert change is not None
        assert change.low is not None
        assert change.high is not None
        assert change.low < exact_change(run, [0], [1], run.labels[k : k + 1]) < change.high


# ---- limits where nothing varies


@pytest.mark.parametrize(("n_prompts", "each"), [(20, 4), (4, 10)])
def test_a_level_never_seen_has_an_exact_upper_limit(tmp_path: Path, n_prompts: int, each: int) -> None:
    """A rate of 0 has the limits 0 and 1 - .025^(1/P) with P prompts (below six prompts: responses), so that `high(...)` can be asked."""
    table = [side_table(side, [(f"p{p}", [0, 1] * (each // 2)) for p in range(n_prompts)]) for side in SIDES]
    score = scored(SOURCE, recording_from(*table), tmp_path, before="base", after="tuned")
    rate = score.parameters[[p.parameter.name for p in score.parameters].index("harm")].sides[2].rates[4]
    trials = n_prompts if n_prompts >= 6 else n_prompts * each
    assert (rate.estimate, rate.low) == (0.0, 0.0)
    assert rate.high == pytest.approx(1 - 0.025 ** (1 / trials))


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5))
def test_the_limit_of_a_level_never_seen_holds_for_any_prompts(rates: list[float], n: int) -> None:
    """Whatever the rates of the prompts, a mean rate beyond the limit shows nothing in all responses with probability .025 at most."""
    _, low, high, *_ = vars(bounded(0.0, np.zeros(len(rates)), 1.0, True, len(rates))[0]).values()
    # prompts drawn at random from this population, each with n responses
    nothing = float(np.mean([(1 - r) ** n for r in rates])) ** len(rates)
    assert low == 0
    assert np.mean(rates) <= high or nothing <= 0.025 + 1e-12


def test_alike_prompts_that_hold_several_levels_have_no_interval(tmp_path: Path) -> None:
    """Half of every prompt at one level: the jackknife sees no spread, and no interval is invented."""
    table = [side_table(side, [(f"p{p}", [0, 1]) for p in range(8)]) for side in SIDES]
    score = scored(SOURCE, recording_from(*table), tmp_path, before="base", after="tuned")
    side = next(p for p in score.parameters if p.parameter.name == "harm").sides[1]
    assert side.rates[1].estimate == 0.5
    assert side.rates[1].low is None
    assert "alike" in side.rates[1].note


@settings(max_examples=40)
@given(st.data())
def test_profiles_are_distributions(data: st.DataObject) -> None:
    """Rows of a level table sum to 1, rates to 1 where anything was read, and the expected level lies on the scale."""
    n = data.draw(st.integers(1, 30))
    level = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n)))
    mass = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n)))
    prompt = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    if not mass.any():
        return
    table = level_table(level, mass, prompt, 4)
    assert np.allclose(table.sum(axis=1), 1)
    *rates, mean, missing = profile(table.mean(axis=0))
    assert 0 <= missing <= 1
    if missing < 1:
        assert sum(rates) == pytest.approx(1)
        assert -1e-9 <= mean <= 3 + 1e-9


# ---- what cannot be judged, compared or trusted


def test_a_parameter_without_a_rule_is_reported_by_the_embedded_judge(tmp_path: Path) -> None:
    """The embedded judge cannot read: such parameters stay in the result with the reason and without a number; others are measured."""
    rule = {"kind": "digits", "thresholds": [1.0, 4.0], "unit": "count"}
    exact = HARM_PARAMETER.model_copy(update={"name": "digits", "levels": ("few", "some", "many"), "rule": rule})
    parameters = (SOURCE.parameters[0].model_copy(update={"parameter": exact, "levels": None}), *SOURCE.parameters[1:])
    score = scored_by(EmbeddedJudge(), SOURCE.model_copy(update={"parameters": parameters}), small(2), tmp_path)
    measured, unjudged = score.parameters
    assert measured.judged
    assert measured.sides[0].mean.estimate is not None
    assert not unjudged.judged
    assert "no rule" in unjudged.reason
    assert {e.estimate for side in unjudged.sides for e in (*side.rates, side.mean, side.missing)} == {None}
    assert any("could not be judged" in caution for caution in score.cautions)
    assert any("could not be judged" in sentence for sentence in score.sentences)


def test_a_judge_that_reads_nothing_gives_no_numbers(tmp_path: Path) -> None:
    """All judgements missing is not a level of 0: the parameter counts as not judged, with the statuses."""
    score = scored(SOURCE, small(2), tmp_path, asks("other"))
    assert [p.judged for p in score.parameters] == [False, False]
    assert "cannot_tell" in score.parameters[0].reason
    assert score.joint is None


def test_sides_that_are_not_put_in_order_have_rates_but_no_shift(tmp_path: Path) -> None:
    """With three sides and no --before/--after every side has its rates; shift, D[O] and shares are not there, and a line says why."""
    rows = [side_table(side, [(f"p{p}", [k, k + 1, None]) for p in range(8)]) for k, side in enumerate("xyz")]
    score = scored(SOURCE, recording_from(*rows), tmp_path)
    first = next(p for p in score.parameters if p.parameter.name == "harm")
    assert [side.side for side in first.sides] == ["all", "x", "y", "z"]
    assert [side.mean.estimate for side in first.sides] == pytest.approx([1.5, 0.5, 1.5, 2.5])
    assert (first.shift, first.change, first.share, score.joint, score.contrast) == (None,) * 5
    assert score.no_contrast


def test_prompts_without_a_partner_still_have_rates(tmp_path: Path) -> None:
    """Sides with no prompt in common cannot be compared within prompts: rates stand alone."""
    rows = [side_table(side, [(f"{side}{p}", [0, 2]) for p in range(7)]) for side in SIDES]
    score = scored(SOURCE, recording_from(*rows), tmp_path)
    assert score.contrast is None
    assert next(p for p in score.parameters if p.parameter.name == "harm").sides[1].mean.estimate == 1.0


def test_one_side_alone_can_be_scored(tmp_path: Path) -> None:
    """A recording of one side has level rates with intervals."""
    score = scored(SOURCE, recording_from(side_table("only", [(f"p{p}", [0, p % 3]) for p in range(9)])), tmp_path)
    mean = next(p for p in score.parameters if p.parameter.name == "harm").sides[1].mean
    assert mean.estimate == pytest.approx(0.5)
    assert mean.low is not None


def test_a_contrast_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    """--before with a side that the file does not have is refused, not scored without a contrast."""
    rows = [side_table(side, [(f"p{p}", [0, 1]) for p in range(7)]) for side in SIDES]
    with pytest.raises(AgentError, match="nowhere"):
        scored(SOURCE, recording_from(*rows), tmp_path, before="nowhere", after="tuned")


def test_scoring_the_own_responses_is_no_test(tmp_path: Path) -> None:
    """The recording that the parameters were found on is recognised, and so is another judge."""
    recording = small(1)
    _, judge = scripted(tmp_path, HARM, HEDGE)
    own = scored(SOURCE.model_copy(update={"run_digest": recording.digest, "judge": judge.id}), recording, tmp_path)
    other = scored(SOURCE, recording, tmp_path)
    assert any("tests nothing new" in caution for caution in own.cautions)
    assert not any("tests nothing new" in caution for caution in other.cautions)
    assert [any("when found: differences" in caution for caution in score.cautions) for score in (own, other)] == [False, True]


def test_missing_judgements_are_counted_and_cautioned(tmp_path: Path) -> None:
    """A judge that fails on a fifth of the responses: the rate is shown with an interval and stands among the cautions."""
    score = scored(SOURCE, small(2), tmp_path, missing=0.2)
    missing = score.parameters[0].sides[0].missing
    assert missing.low is not None
    assert missing.high is not None
    assert missing.low < 0.25
    assert missing.high > 0.15
    assert any("judgements on one side are missing" in caution for caution in score.cautions)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two scores of the same responses are equal to the last bit, whether judgements were stored before or not."""
    recording = small(2)
    first, second = scored(SOURCE, recording, tmp_path), scored(SOURCE, recording, tmp_path)
    assert first.model_dump_json() == second.model_dump_json()
    assert Score.model_validate_json(first.model_dump_json()) == first


def test_judgements_that_are_stored_are_not_asked_for_again(tmp_path: Path) -> None:
    """A second score in the same folder asks the judge nothing."""
    recording = small(2)
    calls = []
    for _ in range(2):
        judge = ScriptedJudge.load(str(write_script(tmp_path / "script.toml", HARM, HEDGE)))
        scored_by(judge, SOURCE, recording, tmp_path)
        calls.append(judge.calls)
    assert calls[0] > 0
    assert calls[1] == 0


# ---- --fail-if


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Score:
    """A score with every number defined."""
    return scored(SOURCE, planted(5, effects=(0.9, 0.7)), tmp_path_factory.mktemp("known"), before="0", after="1", missing=0.1)


def answer(text: str, score: Score) -> bool:
    """Whether a condition is true."""
    return parse(text, [p.parameter for p in score.parameters]).evaluate(score).true


QUANTITIES: dict[str, Callable[[Score], Any]] = {
    'mean("harm")': lambda s: s.parameters[0].sides[0].mean,
    'mean("harm", side="before")': lambda s: s.parameters[0].sides[1].mean,
    'mean("HARM", side="step 1")': lambda s: s.parameters[0].sides[2].mean,
    'rate("harm", 3, side="after")': lambda s: s.parameters[0].sides[2].rates[3],
    'rate("harm", "clearly")': lambda s: s.parameters[0].sides[0].rates[3],
    'missing("hedge", side="all")': lambda s: s.parameters[1].sides[0].missing,
    'shift("hedge")': lambda s: s.parameters[1].shift,
    'shift("hedge", 4)': lambda s: s.parameters[1].rate_shifts[4],
    'change("harm")': lambda s: s.parameters[0].change,
    'share("harm")': lambda s: s.parameters[0].share,
    "joint()": lambda s: s.joint,
    "change()": lambda s: s.change,
}


@pytest.mark.parametrize("text", QUANTITIES)
def test_every_quantity_is_the_number_of_the_score(known: Score, text: str) -> None:
    """Estimate and limits of each quantity are those of score.json."""
    ordered = known.model_copy(update={"parameters": tuple(sorted(known.parameters, key=lambda p: p.parameter.name))})
    estimate = QUANTITIES[text](ordered)
    assert answer(f"{text} == {estimate.estimate!r}", ordered)
    assert answer(f"low({text}) == {estimate.low!r} and high({text}) == {estimate.high!r}", ordered)
    assert not answer(f"{text} < low({text}) or {text} > high({text})", ordered)


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("joint() > 0 and joint() < 1", True),
        ("0 < joint() < 1", True),
        ("1 < joint() < 0", False),
        ("not joint() > 0", False),
        ("joint() < 0 or joint() > 0", True),
        ("joint() < 0 or not (joint() < 0 and joint() > 0)", True),
        ("abs(-joint()) == joint()", True),
        ("2 * joint() - joint() / 1 >= joint() - 1e-9", True),
        ("1 + 2 * 3 == 7 and -1 < +1 and 1 != 2", True),
        ("joint()\n > 2", False),
    ],
)
def test_conditions_mean_what_they_mean_in_python(known: Score, text: str, true: bool) -> None:
    """Arithmetic, comparisons (also chained), and, or, not, parentheses and line breaks."""
    assert answer(text, known) is true


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "condition"),
        ("joint() >", "condition"),
        ("joint()", "condition"),
        ("mean('harm')", "condition"),
        ("True", "condition"),
        ("joint() > True", "number"),
        ("joint() > '1'", "number"),
        ("joint() in (1, 2)", "number"),
        ("joint() is 1", "<"),
        ("share('harms') > 1", "'harm'"),
        ("share(harm) > 1", "quotes"),
        ("share() > 1", "quotes"),
        ("joint('harm') > 1", "fewer"),
        ("share('harm', 2) > 1", "fewer"),
        ("share('harm', side='after') > 1", "side="),
        ("mean('harm', side=after) > 1", "quotes"),
        ("mean('harm', where='after') > 1", "side="),
        ("mean('harm', **{}) > 1", "side="),
        ("rate('harm') > 1", "level"),
        ("rate('harm', 5) > 1", "0 to 4"),
        ("rate('harm', -1) > 1", "0 to 4"),
        ("rate('harm', True) > 1", "0 to 4"),
        ("rate('harm', 'never') > 1", "0 to 4"),
        ("low(1) > 1", "low"),
        ("low(low(joint())) > 1", "low"),
        ("median('harm') > 1", "mean"),
        ("joint > 1", "parentheses"),
        ("joint() > 1e999", "finite"),
        ("9 ** 9 ** 9 > joint()", "number"),
        ("__import__('os').system('true') > 0", "one of"),
        ("(lambda: 1)() > 0", "one of"),
        ("[x for x in (1,)][0] > 0", "number"),
        ("joint().__class__ > 0", "number"),
        ("(y := joint()) > 0", "number"),
        ("f'{joint()}' > 0", "number"),
        ("joint() > 0 if joint() else 1 > 2", "condition"),
        ("joint() > 0; joint() > 0", "condition"),
        ("joint() > 0 " * 400, "characters"),
        ("(" * 900 + "1" + ")" * 900 + " > 0", ""),
        ("joint() > " + "-" * 1900 + "1", ""),
        ("joint() > 0\0", ""),
    ],
)
def test_everything_else_is_refused_in_one_line(known: Score, text: str, named: str) -> None:
    """Unknown names, parameters, levels and sides, and everything that is no condition on numbers: what was expected stands in the line."""
    with pytest.raises(ExpressionError) as refused:
        answer(text, known)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text(alphabet="joint()sharemn'\"lowgh<>=+-*/ .0123456789andotr,[]{}:\\\n", max_size=40))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    """Arbitrary text is either a condition or an `ExpressionError`, never another error."""
    with suppress(ExpressionError):
        parse(text, [HARM_PARAMETER])


def test_an_unknown_number_is_an_error_even_where_it_would_not_decide(known: Score) -> None:
    """`true or unknown` is not answered: an undefined number is never taken for false."""
    lost = known.parameters[0].model_copy(update={"share": Estimate(estimate=None, note="not printed: x")})
    score = known.model_copy(update={"parameters": (lost, *known.parameters[1:])})
    name = lost.parameter.name
    assert answer("joint() > 0", score)
    for text in (f"share({name!r}) > 0", f"joint() > 0 or share({name!r}) > 0", f"joint() < 0 and share({name!r}) > 0"):
        with pytest.raises(ExpressionError, match="not printed: x"):
            answer(text, score)
    with pytest.raises(ExpressionError, match="not a number"):
        answer("1 / (joint() - joint()) > 0", score)


def test_parameters_are_named_by_id_where_names_are_alike(known: Score) -> None:
    """Two parameters of one name: the name alone is refused, the beginning of an id is not."""
    twin = HARM_PARAMETER.model_copy(update={"question": "Something else?"})
    with pytest.raises(ExpressionError, match=twin.id):
        parse("share('harm') > 0", [HARM_PARAMETER, twin])
    assert parse(f"share('{twin.id[:8]}') > 0", [HARM_PARAMETER, twin]).quantities[0].parameter == twin.id


# ---- the command


def call(*arguments: str | Path) -> Result:
    """Run `discover score ...`; what it prints to stdout and stderr is kept apart."""
    return CliRunner().invoke(app, ["score", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Findings in a folder, and other responses in a file."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "findings.json").write_bytes(findings_bytes(SOURCE))
    return folder, write_jsonl(tmp_path / "other.jsonl", small(7))


def test_the_table_shows_both_runs_without_escapes(files: tuple[Path, Path], script: Path) -> None:
    """In a pipe: sentences, shifts and shares beside those found, a table of levels per parameter, cautions; no control characters."""
    other = write_jsonl(files[1], small(7, effects=(1.8, 1.2), sides=SIDES))
    shown = call(files[0], "--on", other, "--judge", f"scripted:{script}")
    assert shown.exit_code == 0, shown.output
    for part in (
        "“harm” moves by +",
        "share of D",
        "found",
        "expected level",
        "missing",
        "4 very much",
        "all together",
        "upper bound",
        "base",
    ):
        assert part in shown.stdout
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 120


@pytest.mark.slow
def test_an_llm_judge_is_estimated_limited_and_accounted_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The estimate comes first; --max-calls ends a score in one line; the same command goes on from what is kept; the ledger has it all."""
    with LlmServer() as server:
        options = (files[0], "--on", files[1], "--judge", server.openai, "--out", tmp_path / "kept")
        short = call(*options, "--max-calls", "30")
        assert isinstance(short.exception, BudgetError)
        assert server.answered.total() == 30
        n = len(set(files[1].read_text(encoding="utf-8").splitlines()))
        whole = call(*options)
        assert whole.exit_code == 0, whole.output
        assert f"estimate: judge {server.openai}: " in whole.stderr
        assert set(server.answered.values()) == {1}
        (line,) = Score.model_validate_json((tmp_path / "kept" / "score.json").read_bytes()).cost
        assert (line.role, line.calls, line.usd) == ("judge", server.answered.total(), None)
        assert line.calls <= 2 * n
        assert f"{line.calls:,} calls" in whole.stdout
        call(*options)
        assert server.answered.total() == line.calls


def test_exit_codes_are_those_of_the_condition(files: tuple[Path, Path], script: Path) -> None:
    """1 when it is true, 0 when it is false, and the numbers it looked at are printed."""
    folder, other = files
    options = (folder / "findings.json", "--on", other, "--judge", f"scripted:{script}", "--quiet")
    true = call(*options, "--fail-if", 'mean("harm", side="step 1") > 0')
    assert true.return_value == 1
    assert "TRUE" in true.stderr
    assert 'mean("harm", side="step 1") = ' in true.stderr
    false = call(*options, "--fail-if", 'mean("harm", side="step 1") > 4')
    assert false.return_value in (0, None)
    assert "false" in false.stdout


def test_json_is_the_kept_file_and_holds_the_condition(files: tuple[Path, Path], script: Path, tmp_path: Path) -> None:
    """--json prints nothing but score.json; --out keeps it with the judgements, and a second run replaces it by the same bytes."""
    folder, other = files
    options = (folder, "--on", other, "--judge", f"scripted:{script}", "--out", tmp_path / "kept", "--json", "--fail-if", "joint() < 0")
    first = call(*options)
    kept = (tmp_path / "kept" / "score.json").read_bytes()
    assert json.loads(first.stdout) == json.loads(kept)
    assert Score.model_validate_json(kept).gate is not None
    assert (tmp_path / "kept" / "judgements.sqlite").exists()
    assert call(*options).stdout == first.stdout
    assert (tmp_path / "kept" / "score.json").read_bytes() == kept


@pytest.mark.slow
def test_a_run_directory_can_be_scored(files: tuple[Path, Path], script: Path, tmp_path: Path) -> None:
    """OTHER may be a run directory with likelihoods: D and shares are then estimates, not bounds."""
    run = write_run(tmp_path / "other", planted(8, effects=(0.9, 0.7), n_prompts=8))
    shown = call(files[0], "--on", run, "--judge", f"scripted:{script}", "--before", "0", "--after", "1", "--json")
    assert shown.exit_code == 0, shown.output
    score = Score.model_validate_json(shown.stdout)
    assert not score.change_is_bound
    assert score.joint is not None
    assert score.joint.estimate is not None
    assert "at most" not in score.joint.note


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--fail-if", "share('harms') > 1"], "expected one of the accepted order parameters"),
        (["--fail-if", "mean('harm', side='nowhere') > 1"], "expected one of the sides all, step 0, step 1"),
        (["--ends", "--split", "3"], "expected one of them"),
        (["--judge", "nobody"], "expected embedded, scripted:FILE"),
        (["--before", "7", "--after", "1"], "step 7 is not recorded"),
    ],
)
def test_mistakes_are_refused_before_anything_is_judged(
    files: tuple[Path, Path], script: Path, tmp_path: Path, options: list[str], line: str
) -> None:
    """A wrong option or condition is an error of the agent, in one line, and no judgement is paid for."""
    folder, other = files
    refused = call(folder, "--on", other, "--judge", f"scripted:{script}", "--out", tmp_path / "kept", *options)
    assert isinstance(refused.exception, AgentError)
    assert refused.exception.exit_code == 2
    assert line in str(refused.exception)
    assert not (tmp_path / "kept" / "judgements.sqlite").exists()


def test_a_condition_on_what_cannot_be_judged_is_an_error(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The embedded judge cannot read `harm`: the table says so, and the condition ends with exit code 2, not with 0."""
    folder, other = files
    refused = call(folder, "--on", other, "--fail-if", 'mean("harm") > 3', "--out", tmp_path / "kept")
    assert isinstance(refused.exception, ExpressionError)
    assert "not judged" in str(refused.exception)
    assert "could not be judged" in refused.stdout
    assert (tmp_path / "kept" / "score.json").exists()


def test_findings_without_accepted_parameters_cannot_be_scored(files: tuple[Path, Path]) -> None:
    """Nothing to score is an error, not an empty table."""
    folder, other = files
    (folder / "findings.json").write_bytes(findings_bytes(SOURCE.model_copy(update={"parameters": ()})))
    refused = call(folder, "--on", other)
    assert "none among 0" in str(refused.exception)


def test_a_foreign_score_is_not_overwritten(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A score.json that is not ours stays."""
    (tmp_path / "score.json").write_text("{}")
    refused = call(files[0], "--on", files[1], "--out", tmp_path)
    assert "not discover's" in str(refused.exception)
    assert (tmp_path / "score.json").read_text() == "{}"


def test_hidden_characters_of_a_name_do_not_reach_the_terminal(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Names are words of others: escapes in them are shown, not obeyed."""
    folder, other = files
    evil = asks("harm\x1b[2J", question="How much harm is in the response?")
    found_one = SOURCE.parameters[0].model_copy(
        update={"parameter": HARM_PARAMETER.model_copy(update={"name": evil["name"], "question": evil["question"]})}
    )
    (folder / "findings.json").write_bytes(findings_bytes(SOURCE.model_copy(update={"parameters": (found_one,)})))
    script = write_script(tmp_path / "script.toml", asks("harm"))
    shown = call(folder, "--on", other, "--judge", f"scripted:{script}")
    assert "\x1b" not in shown.stdout
    assert "U+001B" in shown.stdout


@pytest.mark.slow
def test_the_command_line_shows_no_traceback_and_the_right_exit_code(files: tuple[Path, Path]) -> None:
    """The installed entry point: one line on stderr and exit code 2 for a condition that names nothing."""
    command = [sys.executable, "-m", "agent.cli", "score", str(files[0]), "--on", str(files[1]), "--fail-if", "share('x') > 1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_measurement_and_score_agree_on_who_bounds_the_change(tmp_path: Path) -> None:
    """Without likelihoods the bound of D is the one a discovery on the same responses would print."""
    recording = small(9, effects=(1.8, 1.2), sides=SIDES)
    score = scored(SOURCE, recording, tmp_path)
    work = Workbench(recording, config_of(), tmp_path, *scripted(tmp_path, HARM, HEDGE))
    assert score.change == Measurement(work, [p.parameter for p in score.parameters]).total.change
