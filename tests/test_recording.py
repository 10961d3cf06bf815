from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import RecordingError
from agent.instrument import Drawing, LocalInstrument
from agent.recording import record, scoring_noise
from agent.sampling_plan import EveryCheckpoint, SamplingPlan, Wanted
from probes.checkpoints import Checkpoints
from probes.likelihood import Request, log_likelihoods, plan
from probes.sampler import Question, encode_question
from tests.tiny_subject import tiny_subject, tiny_tokenizer
from tracing.run_directory import Manifest, RunDirectory
from tracing.score_parts import part_path
from tracing.tokens import read_tokens

QUESTIONS = (Question("ab"), Question("dcab", system="a"), Question("c"))
STEPS = (0, 10, 20, 30, 40)


@cache
def subjects() -> dict[int, Any]:
    """The subject of each step; made once, since weights are drawn from torch's global generator."""
    return {step: tiny_subject(seed=step) for step in STEPS}


class TinySubjects:
    """A subject whose weights at each step are drawn anew."""

    steps = STEPS

    def __init__(self) -> None:
        self._subjects = subjects()

    def at(self, step: int) -> Any:
        """The subject of a step."""
        return self._subjects[step]

    def copy(self) -> TinySubjects:
        """Itself: it has no state."""
        return self


@dataclass(frozen=True)
class Growing:
    """A plan that starts at the ends and adds the middle once the ends are scored."""

    settings = {"sampling": "growing"}  # noqa: RUF012

    def wanted(self, run: RunDirectory) -> Wanted:
        """Ends first."""
        seen = all(run.scored_steps(step) == STEPS for step in (0, 40))
        return Wanted(dict.fromkeys((0, 20, 40) if seen else (0, 40), STEPS))

    def summary(self, run: RunDirectory) -> str:
        """Nothing to say."""
        return ""


class Killed(BaseException):
    """What stands for a kill."""


def manifest(steps: tuple[int, ...] = STEPS) -> Manifest:
    """Settings of the runs here."""
    return Manifest("tiny", steps, prefixes=(2,), sampling={"seed": 1}, scoring={"dtype": "float32"})


def recorded(out: Path, how: SamplingPlan, steps: tuple[int, ...] = STEPS, workers: int = 1, kill_at: int | None = None) -> RunDirectory:
    """Record into `out`, or die before piece number `kill_at` is reported."""
    run = RunDirectory.create(out, manifest(steps))
    done = iter(range(10**6))

    def progress(phase: str, finished: int, total: int) -> None:
        assert finished <= total
        if next(done) == kill_at:
            raise Killed

    with Checkpoints(TinySubjects(), workers) as checkpoints:
        record(run, LocalInstrument(checkpoints, tiny_tokenizer(), QUESTIONS, Drawing(3, 5, 1, (2,))), how, progress)
    return run


def files(folder: Path) -> Mapping[str, str]:
    """Content hash of every file by its name."""
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_every_response_is_scored_as_it_was_sampled(tmp_path: Path) -> None:
    """What is stored equals teacher forcing of the sampled token ids, whole and cut at 2 tokens, under every checkpoint: 1e-5."""
    run = recorded(tmp_path / "run", EveryCheckpoint(), workers=2)
    recording = run.load()
    assert len(recording.responses) == 5 * 3 * 3
    assert recording.responses.system[3] == "a"
    for step in STEPS:
        found = run.read_likelihoods(step)
        assert found is not None
        array, columns = found
        assert columns == STEPS
        tokens = read_tokens(run.tokens_path(step))
        prompts = [encode_question(tiny_tokenizer(), QUESTIONS[k // 3]) for k in range(9)]
        requests = [Request(*pair) for pair in zip(prompts, tokens, strict=True)]
        for column, under in enumerate(columns):
            assert array[:, column] == pytest.approx(log_likelihoods(subjects()[under], plan(requests), (2,)), abs=1e-5)


def test_a_window_scores_its_band_only(tmp_path: Path) -> None:
    """With windows of one checkpoint a response is scored under its own checkpoint and its two neighbours; the rest is not scored."""
    recording = recorded(tmp_path / "run", EveryCheckpoint(window=1)).load()
    assert recording.log_likelihood is not None
    assert recording.responses.step is not None
    place = recording.responses.step // 10
    near = np.abs(place[:, None] - np.arange(5)[None]) <= 1
    assert (np.isfinite(recording.log_likelihood) == near).all()


@pytest.mark.slow
@pytest.mark.parametrize("how", [EveryCheckpoint(), EveryCheckpoint(window=1), Growing()])
def test_killed_anywhere_it_ends_in_the_same_bytes(how: SamplingPlan, tmp_path: Path) -> None:
    """Whatever piece was the last one before a kill, the same call finishes and leaves the files of an uninterrupted recording."""
    straight = files(recorded(tmp_path / "straight", how).path)
    assert not any("parts" in name for name in straight)
    for piece in range(0, 8 if isinstance(how, Growing) else 10, 2):
        out = tmp_path / str(piece)
        with pytest.raises(Killed):
            recorded(out, how, kill_at=piece)
        assert files(recorded(out, how).path) == straight


def test_a_plan_may_want_more_when_it_sees_what_came(tmp_path: Path) -> None:
    """The middle is sampled after the ends are scored, and what was there is not computed again."""
    run = recorded(tmp_path / "run", Growing())
    assert run.recorded_steps() == (0, 20, 40)
    assert all(run.scored_steps(step) == STEPS for step in (0, 20, 40))
    written = run.likelihoods_path(0).stat().st_mtime_ns
    recorded(run.path, Growing(), kill_at=0)
    assert run.likelihoods_path(0).stat().st_mtime_ns == written


def test_checkpoints_that_came_later_are_added(tmp_path: Path) -> None:
    """A training that went on: responses sampled before are scored under the new checkpoints too, and nothing is drawn again."""
    first = recorded(tmp_path / "run", EveryCheckpoint(), STEPS[:3])
    drawn = {step: first.responses_path(step).stat().st_mtime_ns for step in STEPS[:3]}
    run = recorded(tmp_path / "run", EveryCheckpoint())
    assert {step: run.responses_path(step).stat().st_mtime_ns for step in STEPS[:3]} == drawn
    whole, at_once = run.load(), recorded(tmp_path / "other", EveryCheckpoint()).load()
    assert whole.responses.completion == at_once.responses.completion
    assert whole.log_likelihood == pytest.approx(at_once.log_likelihood, abs=1e-5)


def test_a_damaged_part_is_made_again(tmp_path: Path) -> None:
    """A part that is no part, or of other settings, counts as missing."""
    with pytest.raises(Killed):
        recorded(tmp_path / "run", EveryCheckpoint(), kill_at=7)
    run = RunDirectory.open(tmp_path / "run")
    assert part_path(run, 10).exists()
    part_path(run, 10).write_bytes(b"half")
    assert files(recorded(tmp_path / "run", EveryCheckpoint()).path) == files(recorded(tmp_path / "other", EveryCheckpoint()).path)


def test_responses_without_their_tokens_are_not_scored_by_guess(tmp_path: Path) -> None:
    """A text may be cut into tokens in several ways: without the sampled ids scoring is refused in one line."""
    run = recorded(tmp_path / "run", EveryCheckpoint(), STEPS[:3])
    run.tokens_path(0).unlink()
    with pytest.raises(RecordingError, match="token ids of the responses of step 0"):
        recorded(tmp_path / "run", EveryCheckpoint())


def test_the_scoring_noise_is_what_double_precision_says(tmp_path: Path) -> None:
    """Against the subject in float64 the stored numbers are wrong by rounding; against another subject by nats."""
    run = recorded(tmp_path / "run", EveryCheckpoint())

    class Exact(TinySubjects):
        """The same weights in double precision, or wrong ones."""

        shift = 0

        def at(self, step: int) -> Any:
            """The subject of a step."""
            return tiny_subject(step + self.shift).double()

    class Wrong(Exact):
        """Another subject."""

        shift = 1

    noise = []
    for each in (Exact(), Wrong()):
        with Checkpoints(each, 1) as checkpoints:
            noise.append(scoring_noise(run, LocalInstrument(checkpoints, tiny_tokenizer(), QUESTIONS, Drawing(3, 5, 1, (2,)))))
    assert 0 < noise[0] < 1e-4
    assert noise[1] > 1


def test_settings_are_never_mixed(tmp_path: Path) -> None:
    """A folder recorded under other settings is refused and left alone."""
    from tracing.errors import RunDirectoryError

    run = recorded(tmp_path / "run", EveryCheckpoint())
    before = files(run.path)
    with pytest.raises(RunDirectoryError, match="expected the settings of the recording that is there"):
        RunDirectory.create(run.path, replace(manifest(), sampling={"seed": 2}))
    assert files(run.path) == before
