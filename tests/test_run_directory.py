from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tracing import Manifest, Responses, RunDirectory, load
from tracing.errors import EventsError, ImportFileError, LikelihoodsError, LockedError, ResponsesError, RunDirectoryError
from tracing.lock import run_lock

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = Manifest(
    subject="organism",
    steps=(0, 2, 4),
    prefixes=(8, 16),
    sampling={"temperature": 1.0, "max_tokens": 48, "seed": 3},
    scoring={"dtype": "float32", "noise_nats": 2e-5},
)


def responses(step: int, n: int = 4) -> Responses:
    """Responses sampled at `step`."""
    return Responses.of(["Why?", "How?"] * (n // 2), [f"answer {step} {i}" for i in range(n)], step=step, scores={"judge.evil": [0.1] * n})


def likelihoods(rng: np.random.Generator, n: int = 4, steps: int = 3) -> npt.NDArray[np.float32]:
    """Log-probabilities of the whole response and of two prefixes."""
    prefixes = -np.cumsum(rng.exponential(5, size=(n, steps, 3)), axis=2)
    return prefixes[:, :, [2, 0, 1]].astype(np.float32)


def recorded(path: Path, rng: np.random.Generator) -> RunDirectory:
    """A run with all its steps recorded and scored."""
    run = RunDirectory.create(path, MANIFEST)
    for step in MANIFEST.steps:
        run.write_step(step, responses(step), likelihoods(rng))
    return run


def digest_of_all_files(path: Path) -> dict[str, str]:
    """SHA-256 of every file, by its name within `path`."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.rglob("*")) if file.is_file()
    }


def test_what_write_step_wrote_comes_back_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    """Texts, scores and every float32 of the likelihoods come back as they were written, in the order of the steps."""
    run = RunDirectory.create(tmp_path / "run", MANIFEST)
    written = {step: likelihoods(rng) for step in (4, 0)}
    for step, array in written.items():
        run.write_step(step, responses(step), array)
    recording = RunDirectory.open(tmp_path / "run").load()
    assert recording.responses.completion == responses(0).completion + responses(4).completion
    assert recording.responses.step is not None
    assert recording.responses.step.tolist() == [0] * 4 + [4] * 4
    assert recording.responses.scores["judge.evil"].tolist() == [0.1] * 8
    both = np.concatenate([written[0], written[4]])
    assert recording.log_likelihood is not None
    assert recording.log_likelihood.astype(np.float32).tobytes() == both[:, :, 0].tobytes()
    for k, prefix in enumerate(MANIFEST.prefixes, start=1):
        assert recording.prefix_log_likelihood[prefix].astype(np.float32).tobytes() == both[:, :, k].tobytes()
    assert recording.steps == (0, 2, 4)
    assert recording.manifest == MANIFEST


def test_banded_scoring_leaves_nan_where_nothing_was_scored(tmp_path: Path, rng: np.random.Generator) -> None:
    """Responses scored under some checkpoints only are NaN under the others, never 0; steps not scored at all are in a note."""
    run = RunDirectory.create(tmp_path, replace(MANIFEST, steps=(0, 2, 4, 6)))
    run.write_step(0, responses(0), likelihoods(rng, steps=2), (0, 2))
    run.write_step(4, responses(4), likelihoods(rng, steps=2), (2, 4))
    recording = run.load()
    assert recording.log_likelihood is not None
    scored = ~np.isnan(recording.log_likelihood)
    assert scored.tolist() == [[True, True, False]] * 4 + [[False, True, True]] * 4
    assert recording.steps == (0, 2, 4)
    assert recording.notes == ("1 of 4 checkpoints are neither sampled nor scored: step 6",)


def test_responses_can_be_scored_later(tmp_path: Path, rng: np.random.Generator) -> None:
    """Responses without likelihoods are a recording too; scored later, they have them, and nothing else changed."""
    run = RunDirectory.create(tmp_path, MANIFEST)
    run.write_step(0, responses(0))
    run.write_step(2, responses(2))
    assert run.load().log_likelihood is None
    assert (run.has_step(0), run.has_likelihoods(0)) == (True, False)
    array = likelihoods(rng)
    run.write_likelihoods(0, array)
    found = run.load().log_likelihood
    assert found is not None
    assert found[:4].astype(np.float32).tobytes() == array[:, :, 0].tobytes()
    assert np.isnan(found[4:]).all()
    with pytest.raises(RunDirectoryError, match="step 4 to have responses before they are scored"):
        run.write_likelihoods(4, array)


def test_one_response_id_in_two_steps_is_refused(tmp_path: Path) -> None:
    """Names must be unique across the run, not only within a step."""
    run = RunDirectory.create(tmp_path, MANIFEST)
    for step in (0, 2):
        run.write_step(step, Responses.of(["q"], ["a"], response_id=["same"]))
    with pytest.raises(ResponsesError, match="unique response ids, found 'same' twice"):
        run.load()


def test_leftovers_of_a_crash_are_ignored(tmp_path: Path, rng: np.random.Generator) -> None:
    """A temporary file that a killed process left behind is no step, and changes neither the recording nor its digest."""
    run = recorded(tmp_path, rng)
    before = run.load()
    for name in ("responses/.step-000006.parquet.1a2b3c4d.tmp", "likelihoods/.step-000000.npy.1a2b3c4d.tmp", ".manifest.json.1a2b3c4d.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "likelihoods" / "step-000006.npy").write_bytes(b"scored, but its responses were not written any more")
    (tmp_path / "truth.parquet").write_bytes(b"nothing here reads it")
    after = RunDirectory.open(tmp_path).load()
    assert run.recorded_steps() == (0, 2, 4)
    assert not run.has_step(6)
    assert after.digest == before.digest
    assert after.responses.completion == before.responses.completion


KILLED = """
import sys
import numpy as np
from tracing import Manifest, Responses, RunDirectory
run = RunDirectory.create(sys.argv[1], Manifest("organism", tuple(range(2000))))
for step in range(2000):
    if not run.has_step(step):
        run.write_step(step, Responses.of(["q"] * 20, ["a" * 500] * 20), np.full((20, 50, 1), -float(step), dtype=np.float32), range(50))
        print(step, flush=True)
"""


@pytest.mark.slow
def test_a_killed_recording_holds_whole_steps_and_goes_on(tmp_path: Path) -> None:
    """After kill -9 at any moment every recorded step is whole, at most the one being written is lost, and recording goes on from there."""
    recorded_so_far = 0
    for milliseconds in (0, 7, 23):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(3)]
        time.sleep(milliseconds / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        run = RunDirectory.open(tmp_path)
        steps = run.recorded_steps()
        assert written == [recorded_so_far, recorded_so_far + 1, recorded_so_far + 2]
        assert steps == tuple(range(len(steps)))
        assert len(steps) >= recorded_so_far + 3
        recorded_so_far = len(steps)
        for step in steps:
            assert len(run.read_step(step)) == 20
            found = run.read_likelihoods(step)
            assert found is not None
            assert np.all(found[0] == -step)


def test_a_recorded_step_is_not_replaced_by_accident(tmp_path: Path, rng: np.random.Generator) -> None:
    """Writing a step twice is an error, unless replacing it is asked for; a replaced step has no old likelihoods."""
    run = recorded(tmp_path, rng)
    with pytest.raises(RunDirectoryError, match=r"step-000002\.parquet: expected a step that is not recorded yet"):
        run.write_step(2, responses(2), likelihoods(rng))
    run.write_step(2, responses(2, n=6), overwrite=True)
    assert len(run.read_step(2)) == 6
    assert not run.has_likelihoods(2)
    assert run.load().log_likelihood is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"subject": "another"}, "subject 'another' instead of 'organism'"),
        ({"prefixes": (8,)}, r"prefixes \[8\] instead of \[8, 16\]"),
        ({"sampling": {"temperature": 0.7, "max_tokens": 48, "seed": 3}}, "sampling .*0.7.* instead of .*1.0"),
        ({"scoring": {"dtype": "bfloat16"}}, "scoring .*bfloat16.* instead of .*float32"),
    ],
)
def test_settings_are_never_mixed(tmp_path: Path, rng: np.random.Generator, change: dict[str, Any], named: str) -> None:
    """A recording under other settings is refused in the same directory; the message names what differs, and nothing is changed."""
    recorded(tmp_path, rng)
    before = digest_of_all_files(tmp_path)
    other = replace(MANIFEST, **change)
    assert other.digest != MANIFEST.digest
    with pytest.raises(RunDirectoryError, match=named):
        RunDirectory.create(tmp_path, other)
    assert digest_of_all_files(tmp_path) == before


def test_step_copied_from_other_settings_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """A step file copied in from a run with another temperature is named and refused, and so are its likelihoods."""
    run = recorded(tmp_path / "one", rng)
    other = RunDirectory.create(tmp_path / "other", replace(MANIFEST, sampling={"temperature": 0.5}))
    other.write_step(2, responses(2), likelihoods(rng))
    run.responses_path(2).write_bytes(other.responses_path(2).read_bytes())
    with pytest.raises(ResponsesError, match=r"step-000002\.parquet: expected responses recorded under the settings"):
        run.load()
    run.write_step(2, responses(2), likelihoods(rng), overwrite=True)
    name = "step-000002.steps.json"
    (tmp_path / "one" / "likelihoods" / name).write_bytes((tmp_path / "other" / "likelihoods" / name).read_bytes())
    with pytest.raises(LikelihoodsError, match=r"step-000002\.steps\.json: expected likelihoods recorded under the settings"):
        run.load()


def test_more_steps_and_a_measured_noise_are_not_other_settings(tmp_path: Path, rng: np.random.Generator) -> None:
    """A run may grow, and its scoring noise may be measured later: the directory goes on and knows the steps of both."""
    recorded(tmp_path, rng)
    run = RunDirectory.create(tmp_path, replace(MANIFEST, steps=(4, 6), scoring={"dtype": "float32", "noise_nats": 3e-5}))
    assert run.manifest.steps == (0, 2, 4, 6)
    assert RunDirectory.open(tmp_path).manifest.scoring["noise_nats"] == 3e-5
    assert run.load().steps == (0, 2, 4)


def test_creating_again_changes_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    """Creating a directory that is there under the same settings keeps every byte."""
    recorded(tmp_path, rng)
    before = digest_of_all_files(tmp_path)
    RunDirectory.create(tmp_path, MANIFEST)
    assert digest_of_all_files(tmp_path) == before


def test_same_bytes_same_digest(tmp_path: Path) -> None:
    """Two recordings of the same content have one digest wherever they lie; one other float, text or training row gives another."""
    runs = [recorded(tmp_path / name, np.random.default_rng(0)) for name in "abcd"]
    first = runs[0].load().digest
    assert runs[1].load().digest == first
    changed = likelihoods(np.random.default_rng(0))
    changed[0, 0, 0] -= 1e-3
    runs[1].write_likelihoods(0, changed)
    runs[2].write_step(4, responses(4, n=2), overwrite=True)
    runs[3].append_training([{"step": 1, "loss": 2.0}])
    assert len({first, *(run.load().digest for run in runs[1:])}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a JSON object"),
        (b"[]", '"format": "order-parameter-run", found "list"'),
        (b'{"format": "something-else"}', 'found "something-else"'),
        (b'{"format": "order-parameter-run", "version": 2}', "version 1 or older, found 2; update"),
        (b'{"format": "order-parameter-run", "version": "1"}', '"version": 1, found "1"'),
        (b'{"format": "order-parameter-run", "version": 1}', "expected 'subject' as str, found null"),
    ],
)
def test_foreign_newer_and_damaged_manifests_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    """A manifest that this program cannot read is named, with what was expected and what was found."""
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=message) as error:
        RunDirectory.open(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "manifest.json"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", [4, 2], "steps as ascending whole numbers"),
        ("steps", [0, 0], "steps as ascending whole numbers"),
        ("steps", [0, 2.5], "steps as ascending whole numbers"),
        ("steps", [-1, 2], "steps as ascending whole numbers"),
        ("steps", ["0", "2"], "steps as ascending whole numbers"),
        ("prefixes", [True], "prefixes as ascending whole numbers"),
        ("sampling", None, "'sampling' as dict, found null"),
        ("colour", "red", "found also colour"),
    ],
)
def test_manifest_fields_are_checked(tmp_path: Path, field: str, value: object, message: str) -> None:
    """Steps out of order, other types and unknown fields are refused, not repaired."""
    RunDirectory.create(tmp_path, MANIFEST)
    content = json.loads((tmp_path / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(content | {field: value}))
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory.open(tmp_path)


def test_directories_that_are_none_are_one_line(tmp_path: Path) -> None:
    """A missing folder, a folder without manifest, a file in its place and a run without responses each say what was expected."""
    with pytest.raises(RunDirectoryError, match=r"expected a run directory with manifest\.json"):
        RunDirectory.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match="expected a folder to record into, found a file"):
        RunDirectory.create(tmp_path / "file", MANIFEST)
    with pytest.raises(RunDirectoryError, match="expected recorded responses"):
        RunDirectory.create(tmp_path / "run", MANIFEST).load()


def test_steps_are_those_of_the_manifest(tmp_path: Path, rng: np.random.Generator) -> None:
    """A step the manifest does not know is refused when written, when scored and when found on disk."""
    run = recorded(tmp_path, rng)
    with pytest.raises(RunDirectoryError, match=r"expected a step of the manifest \(0, 2, 4\), found 6"):
        run.write_step(6, responses(6))
    with pytest.raises(LikelihoodsError, match=r"expected scored steps of the manifest, found also \[6\]"):
        run.write_likelihoods(0, likelihoods(rng), (0, 2, 6))
    run.responses_path(4).rename(run.responses_path(6))
    with pytest.raises(RunDirectoryError, match="found 6"):
        run.load()


def test_responses_belong_to_their_step(tmp_path: Path, rng: np.random.Generator) -> None:
    """Responses of another step are refused when written and when a file was renamed; responses without a step get it."""
    run = recorded(tmp_path, rng)
    with pytest.raises(RunDirectoryError, match=r"expected responses of step 2, found some of \[0\]"):
        run.write_step(2, responses(0), overwrite=True)
    run.write_step(2, Responses.of(["q"], ["a"], response_id=["x"]), overwrite=True)
    assert run.read_step(2).response_id == ("x",)
    run.write_step(2, Responses.of(["q", "q"], ["a", "b"]), overwrite=True)
    assert run.read_step(2).response_id == ("step-000002/0", "step-000002/1")
    run.responses_path(4).write_bytes(run.responses_path(0).read_bytes())
    with pytest.raises(RunDirectoryError, match="expected responses of step 4 only"):
        run.load()


@pytest.mark.parametrize("name", ["step-2.parquet", "step-0000002.parquet", "step-000002-copy.parquet"])
def test_names_that_would_be_overlooked_are_refused(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    """A file named almost like a step is an error, because skipping it silently would lose data."""
    run = recorded(tmp_path, rng)
    (tmp_path / "responses" / name).write_bytes(run.responses_path(2).read_bytes())
    with pytest.raises(RunDirectoryError, match="expected a name like step-000120"):
        run.load()


def test_likelihoods_must_fit_their_responses(tmp_path: Path, rng: np.random.Generator) -> None:
    """An array of another shape, with impossible values or with steps out of order is refused and nothing is written."""
    run = RunDirectory.create(tmp_path, MANIFEST)
    bad = likelihoods(rng)
    bad[0, 0, 0] = np.inf
    for array, steps, message in (
        (likelihoods(rng, n=2), None, "expected the shape"),
        (likelihoods(rng, steps=2), None, "expected the shape"),
        (bad, None, "expected log-probabilities"),
        (likelihoods(rng), (2, 0, 4), "ascending"),
    ):
        with pytest.raises(LikelihoodsError, match=message):
            run.write_step(0, responses(0), array, steps)
    assert not run.has_step(0)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_pickled_likelihoods_in_a_run_are_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    """A run directory with a pickled array is refused as a whole, naming the file."""
    run = recorded(tmp_path, rng)
    np.save(run.likelihoods_path(2), np.array([[[None]]], dtype=object), allow_pickle=True)
    with pytest.raises(LikelihoodsError, match=r"step-000002\.npy: expected a \.npy array of float32"):
        run.load()


def test_training_log_keeps_what_was_logged(tmp_path: Path) -> None:
    """NaN is written as null and read as missing; steps ascend, and of a step logged twice the later values count."""
    run = RunDirectory.create(tmp_path, MANIFEST)
    assert run.training() is None
    run.append_training([{"step": 2, "loss": 1.5, "grad_norm": float("nan"), "learning_rate": 1e-5, "epoch": 0.5}])
    run.append_training([{"step": 1, "loss": 2.0, "grad_norm": 3.25, "grad_norm_clipped": 1.0}, {"step": 2, "loss": 1.25}])
    assert b"NaN" not in (tmp_path / "training.jsonl").read_bytes()
    trace = run.training()
    assert trace is not None
    assert trace.step.tolist() == [1, 2]
    assert trace.loss.tolist() == [2.0, 1.25]
    assert np.array_equal(trace.grad_norm, [3.25, np.nan], equal_nan=True)
    assert np.array_equal(trace.learning_rate, [np.nan, 1e-5], equal_nan=True)
    assert np.array_equal(trace.epoch, [np.nan, 0.5], equal_nan=True)


def test_half_a_training_line_is_cut_off(tmp_path: Path) -> None:
    """A line that a crash left half-written is ignored, and the next one is not glued to it."""
    run = RunDirectory.create(tmp_path, MANIFEST)
    run.append_training([{"step": 1, "loss": 2.0}])
    with (tmp_path / "training.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo')
    trace = run.training()
    assert trace is not None
    assert trace.step.tolist() == [1]
    run.append_training([{"step": 2, "loss": 1.0}])
    trace = run.training()
    assert trace is not None
    assert trace.loss.tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 1', ":2: expected one JSON object"),
        ("[1]", ":2: expected one JSON object"),
        ('{"loss": 1.0}', ":2: expected a whole number 'step', found None"),
        ('{"step": 1.5}', ":2: expected a whole number 'step', found 1.5"),
        ('{"step": 1, "loss": "low"}', ":2: expected a number 'loss', found 'low'"),
        ('{"step": 1, "loss": true}', ":2: expected a number 'loss', found True"),
    ],
)
def test_damaged_training_log_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    """A damaged line in the middle of the log is named with its number."""
    run = RunDirectory.create(tmp_path, MANIFEST)
    (tmp_path / "training.jsonl").write_text(f'{{"step": 0}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(EventsError, match=message):
        run.training()


def test_load_reads_a_run_directory(tmp_path: Path, rng: np.random.Generator) -> None:
    """`load` knows a run directory by its manifest, and refuses options that only files have."""
    run = recorded(tmp_path, rng)
    assert load(tmp_path).digest == run.load().digest
    with pytest.raises(ImportFileError, match="expected no --select for a run directory"):
        load(tmp_path, select={"run": "x"})
    with pytest.raises(ImportFileError, match="expected no --columns for a run directory"):
        load(tmp_path, columns={"prompt": "question"})


def test_adapters_have_a_place(tmp_path: Path) -> None:
    """Weights of a step lie in a folder named like its responses."""
    assert RunDirectory.create(tmp_path, MANIFEST).adapters_path(120) == tmp_path / "adapters" / "step-000120"


HOLDER = """
import sys
from tracing.lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_works_in_a_run(tmp_path: Path) -> None:
    """While another process holds the lock it is refused by name; killed, that process holds it no longer."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=f"{tmp_path}: expected to be the only process"), run_lock(tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    with run_lock(tmp_path):
        pass
    with run_lock(tmp_path / "elsewhere" / "file.lock"):
        pass
