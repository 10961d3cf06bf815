from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from agent.anchor_plan import AutomaticAnchors
from agent.config import make_config
from agent.contrasts import detect
from agent.recording import record
from probes.anchors import FLOOR, MAX_FRESH_WEIGHT, coverage, first_anchors, fresh_weight, to_refine
from probes.errors import SampleError
from probes.likelihood import Request
from probes.sampler import Draw, Question
from probes.synthetic import PlantedRun, draw, exact_course, logistic_course, planted_run
from probes.trajectory import course, step_weights
from tracing import Manifest, RunDirectory

N_STEPS = 41
STEPS = tuple(range(0, 3 * N_STEPS, 3))


class PlantedInstrument:
    """Draws and scores by the tables of a planted run: a response is one token, its outcome."""

    def __init__(self, run: PlantedRun, n_each: int) -> None:
        self.run, self.n_each = run, n_each
        self.questions = tuple(Question(f"Question {p}?") for p in range(run.before.shape[0]))
        self.encoded = tuple((p,) for p in range(len(self.questions)))

    def draw(self, steps: Sequence[int]) -> Iterator[list[Draw]]:
        """`n_each` outcomes of every prompt."""
        for step in steps:
            sample = draw(self.run, [STEPS.index(step)], self.n_each, np.random.default_rng(step))
            pairs = zip(sample.prompt.tolist(), sample.outcome.tolist(), strict=True)
            yield [Draw(p, (o,), f"reply {o}", 0.0, False) for p, o in pairs]

    def score(self, steps: Sequence[int], requests: Sequence[Request]) -> Iterator[npt.NDArray[np.float64]]:
        """Their exact log-probabilities."""
        prompt, outcome = np.array([(request.prompt[0], request.response[0]) for request in requests]).T
        for step in steps:
            yield np.log(self.run.table(STEPS.index(step))[prompt, outcome])[:, None]


def _changing(effect: float = 1.5, width: float = 1.5) -> PlantedRun:
    rng = np.random.default_rng(7)
    return planted_run(rng, n_prompts=12, effects=[effect], n_outcomes=120, course=logistic_course(N_STEPS, 26, width))


def _appearing() -> PlantedRun:
    """Later answers are none of the earlier ones."""
    rng = np.random.default_rng(8)
    gap = np.repeat([[1e-9, 1.0]], 60, axis=0).T.reshape(-1)
    tables = [rng.dirichlet(np.ones(120), size=12) * part for part in (gap[::-1], gap)]
    before, after = (table / table.sum(axis=1, keepdims=True) for table in tables)
    return PlantedRun(before, after, np.zeros((1, 12, 120), dtype=int), logistic_course(N_STEPS, 26, 0.5))


def _recorded(folder: Path, run: PlantedRun, plan: AutomaticAnchors, n_each: int = 4) -> RunDirectory:
    directory = RunDirectory.create(folder, Manifest("planted", STEPS, sampling=plan.settings))
    record(directory, PlantedInstrument(run, n_each), plan)
    return directory


def test_it_begins_with_both_ends_and_the_middle() -> None:
    """First anchors are spread evenly; of fewer checkpoints there are no more than all."""
    assert first_anchors(61) == (0, 30, 60)
    assert first_anchors(2) == (0, 1)
    assert first_anchors(1) == (0,)
    with pytest.raises(SampleError, match="expected checkpoints to sample, found 0"):
        first_anchors(0)


@pytest.mark.slow
@pytest.mark.parametrize("n_each", [3, 8])
def test_it_stops_by_itself_with_few_anchors(n_each: int, tmp_path: Path) -> None:
    """Along one transition of 41 checkpoints 4 to 10 are sampled, the floor holds everywhere and fresh responses confirmed it."""
    plan = AutomaticAnchors()
    run = _recorded(tmp_path / "run", _changing(), plan, n_each)
    sampled = run.recorded_steps()
    assert 4 <= len(sampled) <= 10
    assert {0, STEPS[-1]} < set(sampled)
    recording = run.load()
    assert recording.log_likelihood is not None
    assert np.isfinite(recording.log_likelihood).all()
    state = plan._replayed(run)
    assert sorted(STEPS[c] for c in state.chosen) == list(sampled)
    found = state.found
    assert found is not None
    assert found.enough
    assert found.ess.min() >= FLOOR
    assert found.fresh_weight <= MAX_FRESH_WEIGHT
    assert plan.summary(run).startswith(f"sampled {len(sampled)} of 41 checkpoints (steps 0, ")


@pytest.mark.slow
def test_what_it_samples_gives_the_course(tmp_path: Path) -> None:
    """From what it chose to sample the rate along the whole run is known at every checkpoint, within .1 of the exact one (12 prompts)."""
    planted = _changing()
    recording = _recorded(tmp_path / "run", planted, AutomaticAnchors(), 8).load()
    assert recording.log_likelihood is not None
    assert recording.responses.step is not None
    outcome = np.array([int(text.split()[1]) for text in recording.responses.completion])
    prompt = np.array([int(text.split()[1][:-1]) for text in recording.responses.prompt])
    level = (planted.labels[0][prompt, outcome] >= 3).astype(float)
    weights = step_weights(recording.log_likelihood.astype(float), recording.responses.step // 3, prompt)
    found = course(weights, level, np.array(STEPS))
    exact = exact_course(planted, (planted.labels[0] >= 3).astype(float)).mean(axis=0)
    assert np.abs(found.estimate - exact).max() < 0.1


@pytest.mark.slow
def test_where_nothing_changes_four_are_enough(tmp_path: Path) -> None:
    """Equal checkpoints: the ends, the middle, and one more that confirms it."""
    run = planted_run(np.random.default_rng(1), n_prompts=12, effects=[0.0], hidden=0.0, n_outcomes=100, course=np.zeros(N_STEPS))
    assert len(_recorded(tmp_path / "run", run, AutomaticAnchors()).recorded_steps()) == 4


@pytest.mark.slow
def test_the_budget_ends_it_and_is_said(tmp_path: Path) -> None:
    """At most so many anchors, whatever the coverage; the summary names the worst step and what to do."""
    plan = AutomaticAnchors(floor=1000.0, most=5)
    run = _recorded(tmp_path / "run", _changing(), plan)
    assert len(run.recorded_steps()) == 5
    assert "below the floor 1000" in plan.summary(run)
    assert "--sampling every" in plan.summary(run)


@pytest.mark.slow
def test_recorded_again_nothing_more_is_wanted(tmp_path: Path) -> None:
    """The plan is a function of what is recorded: asked again it wants what is there."""
    plan = AutomaticAnchors()
    run = _recorded(tmp_path / "run", _changing(), plan)
    assert tuple(plan.wanted(run).scored) == run.recorded_steps()


@pytest.mark.slow
def test_scoring_coarse_to_fine_leaves_out_what_does_not_change(tmp_path: Path) -> None:
    """Scored under every 3rd checkpoint first, then all around the change: fewer checkpoints, the transition where it is, D at its peak."""
    planted = _changing(width=0.7)
    whole = _recorded(tmp_path / "whole", planted, AutomaticAnchors(), 8).load()
    plan = AutomaticAnchors(score_every=3)
    run = _recorded(tmp_path / "run", planted, plan, 8)
    recording = run.load()
    assert len(recording.steps) < 0.75 * N_STEPS
    assert {3 * column for column in range(22, 31)} <= set(recording.steps)
    assert f"scored under {len(recording.steps)}" in plan.summary(run)
    assert tuple(plan.wanted(run).scored) == run.recorded_steps()
    found = [detect(each, make_config(run="planted", window=4)) for each in (whole, recording)]
    peaks = [each.transition for each in found if each is not None]
    assert all(peak.found for peak in peaks)
    assert peaks[1].step.estimate == pytest.approx(peaks[0].step.estimate, abs=4)
    assert np.nanmax(found[1].curve.curve) == pytest.approx(np.nanmax(found[0].curve.curve), rel=0.15)  # type: ignore[union-attr]


def test_what_changes_and_what_is_unknown_is_refined(rng: np.random.Generator) -> None:
    """Gaps with the largest D, and those beside them; where nothing stands for a gap, that one."""
    run = planted_run(rng, n_prompts=12, effects=[1.5], n_outcomes=120, course=logistic_course(12, 7.5, 0.05))
    sample = draw(run, [0, 7, 8, 11], 8, rng)
    assert to_refine(sample.log_likelihood, sample.drawn_at, sample.prompt).tolist() == [False] * 5 + [True] * 5 + [False]


def test_fresh_responses_tell_what_was_missed(rng: np.random.Generator) -> None:
    """The mean weight of fresh responses is 1 + chi^2: 1 where the proposal is their law, huge where it gives other answers."""
    same = planted_run(rng, n_prompts=8, effects=[0.0], hidden=0.0, n_outcomes=60, course=np.zeros(3))
    sample = draw(same, [0, 1], 6, rng)
    assert fresh_weight(sample.log_likelihood, sample.drawn_at, sample.prompt, 1) == pytest.approx(1)
    other = _appearing()
    sample = draw(other, [0, N_STEPS - 1], 6, rng)
    assert fresh_weight(sample.log_likelihood, sample.drawn_at, sample.prompt, N_STEPS - 1) > 1e6
    found = coverage(sample.log_likelihood, sample.drawn_at, sample.prompt, N_STEPS - 1, floor=1.0)
    assert not found.enough
    with pytest.raises(SampleError, match="expected responses drawn at column 3 and elsewhere, found 0 of"):
        fresh_weight(sample.log_likelihood, sample.drawn_at, sample.prompt, 3)
