from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from agent.anchor_plan import AutomaticAnchors
from agent.checkpoint_recording import Recorder, record_checkpoints
from agent.checkpoint_source import checkpoints_in
from agent.instrument import Drawing
from agent.sampling_plan import SamplingPlan
from probes.sampler import Question
from tests.end_to_end.test_ray import QUESTIONS, checkpoints, contents

N_KILLS = 5


def recording(run: Path, out: Path, plan: SamplingPlan) -> None:
    """Record the checkpoints of `run`."""
    how = Recorder(Drawing(6, 12, prefixes=(4,)), plan, device="cpu", workers=1)
    record_checkpoints(checkpoints_in(run), [Question(text) for text in QUESTIONS], out, how)


def killed(run: Path, out: Path, plan: SamplingPlan, after: float) -> bool:
    """Record in a process of its own that dies by SIGKILL after some seconds; whether it was still at work."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            recording(run, out, plan)
            code = 0
        finally:
            os._exit(code)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_again_and_again_it_ends_in_the_same_files(tmp_path: Path) -> None:
    """Kill -9 at random moments of one recording, each start going on where the last one died: the files are as if undisturbed."""
    run, plan = checkpoints(tmp_path), AutomaticAnchors()
    recording(run, tmp_path / "first", plan)
    began = time.monotonic()
    recording(run, tmp_path / "straight", plan)
    whole = time.monotonic() - began
    moments = random.Random(0)
    at_work = sum(killed(run, tmp_path / "out", plan, moments.uniform(0.15, 0.7) * whole) for _ in range(N_KILLS))
    assert at_work >= 1
    recording(run, tmp_path / "out", plan)
    left = {name: content for name, content in contents(tmp_path / "out").items() if not name.endswith(".tmp")}
    assert left == contents(tmp_path / "straight")
