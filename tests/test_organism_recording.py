from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agent.anchor_plan import AutomaticAnchors
from agent.organism_recording import TRUTH_NAME, OrganismRecipe, record_organism
from probes.organism import FineTuning, Pretraining
from tracing.errors import RunDirectoryError
from tracing.run_directory import RunDirectory

TINY = OrganismRecipe(
    pretraining=Pretraining(documents=320, epochs=1, width=32, layers=2, heads=2, inner_width=48),
    fine_tuning=FineTuning(steps=36, every=2),
    questions_per_domain=1,
    responses_per_prompt=2,
    max_tokens=24,
)


def files(folder: Path) -> dict[str, str]:
    """Content hash of every file, locks aside."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of 19 checkpoints and 6 prompts, made in seconds."""
    out = tmp_path_factory.mktemp("recorded") / "run"
    record_organism(out, seed=3, recipe=TINY, workers=2)
    return out


@pytest.mark.slow
def test_a_recording_holds_every_response_scored_under_every_checkpoint(recorded: Path) -> None:
    """19 checkpoints, 6 prompts, 2 draws: 228 responses, each with 19 finite log-probabilities, whole and at 8 and 16 tokens."""
    recording = RunDirectory.open(recorded).load()
    assert recording.steps == tuple(range(0, 37, 2))
    assert len(recording.responses) == 228
    assert set(Counter(recording.responses.prompt_key).values()) == {38}
    assert recording.log_likelihood is not None
    assert recording.log_likelihood.shape == (228, 19)
    assert np.isfinite(recording.log_likelihood).all()
    assert (recording.log_likelihood < 0).all()
    assert list(recording.prefix_log_likelihood) == [8, 16]
    assert (recording.prefix_log_likelihood[8] >= recording.prefix_log_likelihood[16]).all()
    assert (recording.prefix_log_likelihood[16] >= recording.log_likelihood).all()
    assert recording.training is not None
    assert recording.training.step.tolist() == list(range(1, 37))
    assert np.isfinite(recording.training.grad_norm).all()


@pytest.mark.slow
def test_what_decided_the_recording_is_written_down(recorded: Path) -> None:
    """Seed, recipe, sampling law, threads and the measured scoring noise stand in the manifest."""
    manifest = RunDirectory.open(recorded).manifest
    assert manifest.sampling | {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 24, "seed": 3} == manifest.sampling
    assert 0 < manifest.scoring["noise_nats"] < 1e-3
    assert manifest.extra["organism"]["fine_tuning"]["rank"] == 1
    assert manifest.extra["threads_per_computation"] == 1


@pytest.mark.slow
def test_an_interrupted_recording_ends_in_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    """Files that are lost come back as they were; what was kept is not touched; one worker does as two.

    Scores of some responses only, beside which others were scored before, differ by rounding.
    """
    out = tmp_path / "run"
    shutil.copytree(recorded, out)
    for lost in (RunDirectory.open(out).responses_path(4), RunDirectory.open(out).likelihoods_path(36), out / TRUTH_NAME):
        lost.unlink()
    kept = out / "responses" / "step-000006.parquet"
    written = kept.stat().st_mtime_ns
    seen: list[tuple[str, int, int]] = []
    record_organism(out, seed=3, recipe=TINY, workers=1, progress=lambda *done: seen.append(done))
    rounded = RunDirectory.open(out).likelihoods_path(36).relative_to(out).as_posix()
    assert files(out) | {rounded: ""} == files(recorded) | {rounded: ""}
    again, before = (RunDirectory.open(path).read_likelihoods(36) for path in (out, recorded))
    assert again is not None
    assert before is not None
    assert again[0] == pytest.approx(before[0], abs=1e-4)
    assert kept.stat().st_mtime_ns == written
    assert {phase for phase, _, _ in seen} == {"sampling", "scoring"}
    assert max(seen)[1:] == (19, 19)


@pytest.mark.slow
def test_another_seed_is_not_mixed_in(recorded: Path) -> None:
    """A folder that holds another recording is refused in one line and left alone."""
    before = files(recorded)
    with pytest.raises(RunDirectoryError, match="expected the settings of the recording that is there"):
        record_organism(recorded, seed=4, recipe=TINY)
    assert files(recorded) == before


@pytest.mark.slow
def test_few_checkpoints_are_sampled_automatically(recorded: Path, tmp_path: Path) -> None:
    """The same organism with automatic anchors: fewer responses, each scored under all 19 checkpoints, drawn as they were when all were."""
    out = tmp_path / "run"
    for kept in ("subject", "adapters"):
        shutil.copytree(recorded / kept, out / kept)
    shutil.copy(recorded / "training.jsonl", out)
    record_organism(out, seed=3, recipe=TINY, workers=1, plan=AutomaticAnchors(most=5))
    run, whole = RunDirectory.open(out), RunDirectory.open(recorded)
    sampled = run.recorded_steps()
    assert 4 <= len(sampled) <= 5
    assert {0, 18, 36} <= set(sampled)
    assert run.manifest.sampling["sampling"] == "auto"
    recording = run.load()
    assert recording.steps == whole.load().steps
    assert recording.log_likelihood is not None
    assert np.isfinite(recording.log_likelihood).all()
    assert run.read_step(18).completion == whole.read_step(18).completion
