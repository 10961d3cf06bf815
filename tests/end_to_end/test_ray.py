from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.checkpoint_recording import Recorder, record_checkpoints
from agent.checkpoint_source import checkpoints_in
from agent.errors import ConfigError, RecordingError
from agent.instrument import Drawing
from agent.sampling_plan import EveryCheckpoint
from probes.organism_files import adapter_files
from probes.sampler import Question
from tests.optional_part import missing
from tests.tiny_subject import tiny_subject, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ("ab", "dcab", "c")
STEPS = (10, 20, 30, 40, 50)


def checkpoints(folder: Path) -> Path:
    """A base and five adapters as a Trainer would leave them."""
    from probes.organism import FineTuning

    tiny_subject(0).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    rng = np.random.default_rng(0)
    for step in STEPS:
        name = "base_model.model.model.layers.0.mlp.down_proj.lora_{}.default.weight"
        factors = {name.format(part): rng.normal(size=shape).astype(np.float32) for part, shape in (("A", (1, 16)), ("B", (8, 1)))}
        for file, content in adapter_files(factors, FineTuning(), "base").items():
            (folder / "run" / f"checkpoint-{step}").mkdir(parents=True, exist_ok=True)
            (folder / "run" / f"checkpoint-{step}" / file).write_bytes(content)
    (folder / "questions.toml").write_text(f"questions = {json.dumps(QUESTIONS)}\n")
    return folder / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def test_two_machines_one_of_them_killed_record_what_one_process_does(tmp_path: Path) -> None:
    """A real local cluster with two workers, one killed once the first piece has arrived: the files are those of a single process."""
    if importlib.util.find_spec("ray") is None:
        missing("ray", "pip install -c constraints.txt -e '.[ray]'")
    run = checkpoints(tmp_path)
    words = ["--checkpoints", str(run), "--questions", str(tmp_path / "questions.toml"), "--responses", "4", "--max-tokens", "6"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.ray_recording", str(tmp_path / "ray"), *words, "--sampling", "every"],
        # without the guard of the tests: Ray's processes talk over this machine's own address, which is not the loopback's
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout.splitlines()[-1]) == {"code": 0, "lost": True, "alive": 1}
    how = Recorder(Drawing(4, 6), EveryCheckpoint(), device="cpu", workers=1)
    record_checkpoints(checkpoints_in(run), [Question(text) for text in QUESTIONS], tmp_path / "one", how)
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    """An address where nothing listens, and a machine without ray, each end in a line that says what to do."""
    source = checkpoints_in(checkpoints(tmp_path))
    how = Recorder(Drawing(4, 6), EveryCheckpoint(), device="cpu", ray="nonsense")
    found = importlib.util.find_spec("ray") is not None
    error, words = (RecordingError, "--ray nonsense: expected a running Ray cluster") if found else (ConfigError, r"-e '\.\[ray\]'")
    with pytest.raises(error, match=words):
        record_checkpoints(source, [Question("ab")], tmp_path / "out", how)
