from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.records import Findings
from agent.report import write_all
from agent.score import sample_of, score_findings
from agent.workbench import Workbench
from probes.synthetic import PlantedRun, draw, logistic_course, planted_run
from tests.handmade_findings import finding, findings, parameter
from tests.planted_recordings import asks, config_of, found, planted, recording_of, scripted
from tracing import Recording

COURSE = logistic_course(16, 8, 1)


def _drawn_with(power: float) -> Recording:
    """A run whose sampler drew from `P^power`."""
    rng = np.random.default_rng(3)
    run = planted_run(rng, n_prompts=24, effects=(1.5,), n_outcomes=100, course=COURSE)
    sharp = [run.table(t) ** power for t in range(COURSE.size)]
    cumulative = np.cumsum([table / table.sum(axis=1, keepdims=True) for table in sharp], axis=2)
    sample = draw(run, (0, 5, 8, 10, 15), 10, rng)
    u = rng.random(sample.prompt.size)
    outcome = np.array([np.searchsorted(cumulative[t, p], x) for t, p, x in zip(sample.drawn_at, sample.prompt, u, strict=True)])
    scored = np.log(np.stack([run.table(t)[sample.prompt, outcome] for t in range(COURSE.size)], axis=1))
    return recording_of(run, replace(sample, outcome=outcome, log_likelihood=scored), ("harm",))


def _found_with(power: float, folder: Path) -> Findings:
    return found(_drawn_with(power), folder, asks("harm"))


@pytest.mark.slow
def test_responses_of_the_scored_law_pass_every_check(tmp_path: Path) -> None:
    """A run sampled by the law it is scored by has numbers, and the box says which checks hold."""
    result = _found_with(1.0, tmp_path)
    assert result.detectable
    assert result.change.estimate is not None
    assert result.checks is not None
    assert result.checks.covered
    assert result.checks.balanced
    assert not result.checks.sampled_otherwise
    assert result.checks.anchors == (0, 5, 8, 10, 15)
    assert result.cautions[0].startswith("Checks that hold: calibration slope of the 5 sampled checkpoints 1.0")


@pytest.mark.slow
def test_a_sampler_of_another_temperature_leaves_no_numbers(tmp_path: Path) -> None:
    """Drawn at temperature .6, scored at 1: total, shares and parameters are not printed; sentence, box and report say why."""
    result = _found_with(1 / 0.6, tmp_path)
    assert not result.detectable
    assert result.change.estimate is None
    assert result.change.note.startswith("unknown: the responses were not drawn by the law they are scored by: the sampler was sharper")
    assert result.parameters == ()
    assert result.joint is None
    assert result.jensen_shannon is None
    assert result.stopped.startswith("the responses were not drawn by the law")
    assert any("is unknown: the responses were not drawn by the law" in sentence for sentence in result.sentences)
    assert result.cautions[-1].startswith("A check failed: the responses were not drawn by the law")
    paths = write_all(result, tmp_path)
    for path in (paths.html, paths.markdown):
        text = path.read_text(encoding="utf-8")
        assert "A check failed" in text
        assert "the sampler was sharper" in text


def test_a_score_of_such_responses_has_no_change_and_no_share(tmp_path: Path) -> None:
    """`discover score` on responses drawn at another temperature: the change is unknown and a caution says why."""
    proposer, judge = scripted(tmp_path, asks("harm"))
    work = Workbench(_drawn_with(1 / 0.6), config_of(), tmp_path, proposer, judge)
    score = score_findings(findings(finding(parameter("harm"), 0.5)), "source", work, sample_of(work))
    work.store.close()
    assert score.change is not None
    assert score.change.estimate is None
    assert score.parameters[0].share is not None
    assert score.parameters[0].share.estimate is None
    assert any("How much changed is unknown: the responses were not drawn by the law" in caution for caution in score.cautions)


def test_sides_that_no_anchor_stands_for_are_unknown(tmp_path: Path) -> None:
    """Sampled at the first checkpoint only, a change to other answers has no number: the anchors do not stand for the later side."""
    rng = np.random.default_rng(4)
    gap = np.repeat([[1e-9, 1.0]], 40, axis=0).T.reshape(-1)
    tables = [rng.dirichlet(np.ones(80), size=12) * part for part in (gap[::-1], gap)]
    before, after = (table / table.sum(axis=1, keepdims=True) for table in tables)
    run = PlantedRun(before, after, rng.integers(0, 5, (1, 12, 80)), COURSE)
    result = found(recording_of(run, draw(run, (0,), 20, rng), ("harm",)), tmp_path, asks("harm"), contrast="ends")
    assert result.change.estimate is None
    assert "the 1 sampled checkpoints do not stand for the two sides" in result.change.note
    assert result.checks is not None
    assert not result.checks.covered
    assert result.checks.calibration.estimate is None
    assert result.checks.unknown_splits > 0


@pytest.mark.slow
def test_without_likelihoods_there_is_nothing_to_check(tmp_path: Path) -> None:
    """Sides are what was sampled: no weights, no checks."""
    result = found(planted(sides=("base", "tuned")), tmp_path, asks("harm"))
    assert result.checks is None
    assert not any("check" in caution.casefold() for caution in result.cautions)


@pytest.mark.parametrize("n_broken", [1, 5])
def test_responses_without_a_score_are_counted(n_broken: int, tmp_path: Path) -> None:
    """A few missing log-probabilities leave these responses out and say so; the numbers stay."""
    recording = planted(n_each=12)
    assert recording.log_likelihood is not None
    table = recording.log_likelihood.copy()
    table[:n_broken, 0] = np.nan
    result = found(replace(recording, log_likelihood=table), tmp_path, asks("harm"))
    assert result.checks is not None
    assert result.checks.n_unscored == n_broken
    assert result.change.estimate is not None
    assert any(f"{n_broken} responses lack a log-probability" in caution for caution in result.cautions)
