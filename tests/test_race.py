from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from agent.graph import run_loop
from agent.llm.embedded import EmbeddedJudge, EmbeddedProposer
from agent.racing import BATCH, is_raced
from agent.records import Findings, ParameterFinding
from agent.report import write_all
from agent.workbench import Workbench
from probes.dissimilarity import Contrast
from probes.race import Futility, findable, reading_order
from probes.synthetic import contrast_of, draw, exact_change, planted_run
from tests.planted_recordings import accepted, asks, config_of, found, planted, scripted, workbench, write_hypotheses

NOTHING = [
    asks(f"nothing{k}", question=f"What is {k} about it?", pattern=r"reply \d*(\d):", levels=[str(i) for i in range(7)]) for k in range(2)
]
"""Candidates whose level is the last digit of a reply's number: it has nothing to do with the change (and 7 to 9 are missing)."""


def contrast(seed: int = 0, *, likelihoods: bool = True, effect: float = 0.6) -> tuple[Contrast, np.ndarray, float]:
    """A planted contrast, the label of its parameter, and that label's exact D[O]."""
    rng = np.random.default_rng([7, seed])
    run = planted_run(rng, n_prompts=10, effects=[effect], hidden=0.5)
    sample = draw(run, [0, 1], 20, rng)
    made = contrast_of(sample, [0], [1], likelihoods=likelihoods)
    return made, sample.labels_of(run)[0][made.index], exact_change(run, [0], [1], run.labels)


def test_every_response_has_its_turn_and_those_that_tell_most_come_first() -> None:
    """The order is a permutation; every pair is of one prompt; the first quarter holds more than half of what all hold."""
    c, _, _ = contrast()
    order = reading_order(c, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(c.s.size))
    assert all(c.prompt[a] == c.prompt[b] for a, b in zip(order[0:100:2], order[1:100:2], strict=True))
    squares = (c.weight * c.s) ** 2
    assert squares[order[: order.size // 4]].sum() > 0.5 * squares.sum()


def test_without_likelihoods_the_prompts_take_turns_and_both_sides_are_read() -> None:
    """Where no response tells more than another, a batch has a pair of every prompt before the second of any."""
    c, _, _ = contrast(likelihoods=False)
    first = reading_order(c, np.random.default_rng(0))[: 2 * c.n_prompts]
    assert np.bincount(c.prompt[first]).tolist() == [2] * c.n_prompts
    assert c.s[first].sum() == 0


def test_findable_is_the_size_a_test_finds_with_the_power_asked_for() -> None:
    """The noncentrality gives the noncentral chi-square that power beyond the critical value."""
    for levels, alpha in ((2, 0.05), (5, 0.005)):
        critical = stats.chi2.isf(alpha, levels - 1)
        assert stats.ncx2.sf(critical, levels - 1, findable(alpha, levels, 0.8)) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("likelihoods", [True, False])
def test_a_label_that_says_nothing_looks_like_chi_square_although_the_extremes_were_read(likelihoods: bool) -> None:
    """Labels drawn anew, the same 100 most telling responses: mean and variance of the statistic are those of chi-square."""
    c, _, _ = contrast(likelihoods=likelihoods)
    futility = Futility.of(c, [], 0.0, 0.01, 0.8, c.s.size)
    rows = reading_order(c, np.random.default_rng(1))[:100]
    rng = np.random.default_rng(2)
    looks = [futility.look(rows, rng.integers(0, 3, rows.size)) for _ in range(300)]
    values = np.array([look.statistic for look in looks])
    assert {look.freedom for look in looks} == {2}
    assert abs(values.mean() - 2) < 4 * 2 / np.sqrt(300)
    assert 2.4 < values.var() < 5.8


@pytest.mark.slow
def test_a_gain_of_the_needed_size_is_given_up_about_as_often_as_the_look_says() -> None:
    """Whole halves, a parameter whose exact D[O] is what is needed: probabilities below .05 in about one of twenty, not in one of seven."""
    below = []
    for seed in range(120):
        c, label, change = contrast(seed, effect=0.25)
        futility = Futility.of(c, [], change, 0.5, 0.5001, c.s.size)
        below.append(futility.look(np.arange(c.s.size), label).probability < 0.05)
    assert np.mean(below) < 1 / 7


def test_a_level_not_met_yet_is_no_reason_to_give_up() -> None:
    """A label that is the same on everything read so far may still be rare: few responses leave its probability high."""
    c, _, _ = contrast(likelihoods=False)
    futility = Futility.of(c, [], 0.05, 0.01, 0.8, c.s.size)
    order = reading_order(c, np.random.default_rng(0))
    few, many = (futility.look(order[:n], np.zeros(n, dtype=np.int64)) for n in (16, 400))
    assert few.probability > 0.1
    assert many.probability < few.probability


@pytest.fixture(scope="module")
def whole_and_part(tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Findings]:
    """One planted parameter and two candidates that say nothing, the judge erring, without and with racing."""
    folder, errors = tmp_path_factory.mktemp("race"), {"kappa": 0.8, "seed": 1}
    recording = planted(0, n_prompts=12, n_each=30)
    without, raced = (found(recording, folder, asks("harm"), *NOTHING, errors=errors, race=race) for race in ("off", "on"))
    return without, raced


def finding(findings: Findings, name: str) -> ParameterFinding:
    """The finding of this name."""
    return next(p for p in findings.parameters if p.parameter.name == name)


@pytest.mark.slow
def test_racing_gives_up_what_shows_nothing_and_changes_nothing_about_what_is_accepted(whole_and_part: tuple[Findings, Findings]) -> None:
    """The planted parameter has the same verdict, share and interval; the others were read in part, on the propose half, and say so."""
    whole, part = whole_and_part
    assert accepted(part) == accepted(whole) == ["harm"]
    assert finding(part, "harm").share == finding(whole, "harm").share
    assert finding(part, "harm").course == finding(whole, "harm").course
    for name in ("nothing0", "nothing1"):
        assert finding(whole, name).p_value is not None
        given_up = finding(part, name)
        assert (given_up.verdict, given_up.p_value, given_up.share.estimate) == ("rejected", None, None)
        assert given_up.reason.startswith("given up after ")
        assert given_up.share.n % BATCH == 0 or given_up.share.n == 12 * 30  # after a full batch, or after what was left of the half
        assert given_up.share.n <= 12 * 30
    lines = {t.name: t for t in part.tests}
    assert set(lines) == {t.name for t in whole.tests}
    assert lines["nothing0"].n == finding(part, "nothing0").share.n


@pytest.mark.slow
def test_a_report_shows_what_was_given_up(tmp_path: Path, whole_and_part: tuple[Findings, Findings]) -> None:
    """Reports of a raced discovery are written, with the reason in words."""
    paths = write_all(whole_and_part[1], tmp_path)
    for path in (paths.html, paths.markdown):
        assert "given up after" in path.read_text(encoding="utf-8")


def test_what_is_given_up_is_read_on_the_propose_half_only(tmp_path: Path) -> None:
    """No judgement of a text of the confirm half is made for a candidate that is given up."""
    proposer, judge = scripted(tmp_path, asks("harm"), *NOTHING)
    work, _ = workbench(planted(0, n_prompts=12, n_each=30), tmp_path, config_of(race="on"), proposer, judge)
    run_loop(work)
    confirm = {work.text_keys[i] for i in work.contrast.index[work.confirm_rows]}
    propose = {work.text_keys[i] for i in work.contrast.index[work.propose_rows]}
    read = {p.name: set(work.levels_by_text(p)) for p in work.parameters.values()}
    assert read["harm"] == confirm | propose
    assert read["nothing0"] < propose
    assert read["nothing0"].isdisjoint(confirm - propose)


def test_hypotheses_written_down_beforehand_are_read_to_the_end(tmp_path: Path) -> None:
    """A human hypothesis that shows nothing is tested all the same."""
    path = write_hypotheses(tmp_path / "mine.toml", NOTHING[0])
    findings = found(planted(0, n_prompts=12, n_each=30), tmp_path, *NOTHING, race="on", hypotheses=str(path))
    (test,) = [t for t in findings.tests if t.family == "human"]
    assert test.p_value is not None


def test_by_default_only_what_is_paid_for_is_raced(tmp_path: Path) -> None:
    """Rules cost nothing: the embedded judge reads every candidate to the end unless told otherwise."""
    work = Workbench(planted(0), config_of(), tmp_path, EmbeddedProposer(), EmbeddedJudge())
    rule = {"kind": "questions", "thresholds": [0]}
    parameter = scripted(tmp_path, asks("harm"))[0]._candidates[0].parameter.model_copy(update={"rule": rule})
    assert not is_raced(work, parameter, 1)
    assert is_raced(Workbench(planted(0), config_of(race="on"), tmp_path, EmbeddedProposer(), EmbeddedJudge()), parameter, 1)
