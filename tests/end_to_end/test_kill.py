from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.memory import Memory
from tests.planted_recordings import asks, planted, write_jsonl, write_script

ROOT = Path(__file__).resolve().parents[2]
N_KILLS = 20
SHOWN = ("findings.json", "report.md", "report.html", "config.toml")
Run = Callable[..., tuple[int, float]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of responses and a script with a judge that errs: three rounds, second readings included."""
    folder = tmp_path_factory.mktemp("files")
    write_jsonl(folder / "rows.jsonl", planted(0, effects=(0.9, 0.6, 0.0), n_prompts=8, n_each=10))
    again = asks("harm", question="How harmful is it, again?") | {"name": "harm again"}
    write_script(folder / "script.toml", asks("harm"), again, asks("hedge", round=2), asks("style", round=2), kappa=0.9, missing=0.02)
    return folder


@pytest.fixture(scope="module")
def run(files: Path) -> Iterator[Run]:
    """`discover` in a process of its own, killed after some seconds or left to end: exit code and seconds."""
    command = [sys.executable, "-m", "tests.end_to_end.forked_discover"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=files, env=environment) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        ask, answer = server.stdin, server.stdout

        def go(
            out: Path, *more: str, kill_after: float | None = None, memory: str = "off", number: int = signal.SIGKILL
        ) -> tuple[int, float]:
            provider = ("--proposer", "scripted:script.toml", "--judge", "scripted:script.toml")
            words = ["--run", "rows.jsonl", "--out", str(out), "--memory", memory, *provider, *more]
            ask.write(json.dumps({"words": words, "kill_after": kill_after}) + "\n")
            ask.flush()
            said = json.loads(answer.readline())
            return said["code"], said["seconds"]

        yield go
        ask.close()


@pytest.fixture(scope="module")
def straight(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted discovery and the seconds it took (the second of two: the first warms the machine)."""
    folder = tmp_path_factory.mktemp("straight")
    run(folder / "first")
    code, seconds = run(folder / "second")
    assert code == 0
    assert json.loads((folder / "second" / "findings.json").read_bytes())["rounds"] >= 2
    return folder / "second", seconds


def assert_same(out: Path, expected: Path) -> None:
    """Everything shown is what the uninterrupted discovery shows, byte for byte."""
    for name in SHOWN:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name


def test_killed_at_twenty_moments_it_ends_where_it_would_have(run: Run, straight: tuple[Path, float], tmp_path: Path) -> None:
    """Kill -9 at twenty random moments spread over its duration, each then run to the end: the findings are those of an uninterrupted one.

    What a killed one left behind is nothing or whole findings, never half of them.
    """
    expected, seconds = straight
    moments = random.Random(20)
    killed = 0
    for k in range(N_KILLS):
        out = tmp_path / str(k)
        code, _ = run(out, kill_after=seconds * (k + moments.random()) / N_KILLS)
        killed += code == -signal.SIGKILL
        if (out / "findings.json").exists():
            assert (out / "findings.json").read_bytes() == (expected / "findings.json").read_bytes()
        assert run(out)[0] == 0
        assert_same(out, expected)
        shutil.rmtree(out)
    assert killed >= N_KILLS - 4, "the machine sped up: too few were still at work when they were to be killed"


def test_killed_again_and_again_it_still_gets_there(run: Run, straight: tuple[Path, float], tmp_path: Path) -> None:
    """Each start gets a little further than the one before was allowed to; what was judged is kept, and the end is the same."""
    expected, seconds = straight
    out, code, starts = tmp_path / "out", -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        starts += 1
        code, _ = run(out, kill_after=seconds * (0.2 + 0.1 * starts))
    assert code == 0
    assert starts >= 2
    assert_same(out, expected)


def test_killed_while_it_remembers_it_remembers_once(run: Run, tmp_path: Path) -> None:
    """With a memory: killed near the end twice, every parameter stands in it once with its verdict."""
    place, out = str(tmp_path / "memory"), tmp_path / "out"
    _, whole = run(tmp_path / "other", memory=str(tmp_path / "other memory"))
    for part in (0.85, 0.97):
        run(out, memory=place, kill_after=whole * part)
    assert run(out, memory=place)[0] == 0
    assert (out / "findings.json").read_bytes() == (tmp_path / "other" / "findings.json").read_bytes()
    with Memory.open(place) as memory, Memory.open(str(tmp_path / "other memory")) as other:
        entries, single = ({e.id: (e.status, len(e.runs)) for e in m.entries()} for m in (memory, other))
    assert entries == single
    assert {n for _, n in entries.values()} == {1}


def test_other_options_after_a_kill_lose_nothing(run: Run, straight: tuple[Path, float], tmp_path: Path) -> None:
    """Killed half-way, asked something else, asked the first again: each ends as if it had been alone."""
    expected, seconds = straight
    out = tmp_path / "out"
    assert run(out, kill_after=seconds / 2)[0] == -signal.SIGKILL
    assert run(out, "--seed", "5")[0] == 0
    assert json.loads((out / "findings.json").read_bytes())["seed"] == 5
    assert run(out)[0] == 0
    assert_same(out, expected)
    assert len(list((out / "earlier").iterdir())) == 2


def _listen_to_interrupt() -> None:
    # tests started in the background of a shell inherit an ignored SIGINT; a user's terminal does not
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_installed_command_survives_kill_and_interrupt(files: Path, straight: tuple[Path, float], tmp_path: Path) -> None:
    """The console script itself: killed at work, then stopped with Ctrl-C (one line, exit code 130), then run to the end."""
    script = Path(sys.executable).with_name("discover")
    provider = ["--proposer", "scripted:script.toml", "--judge", "scripted:script.toml"]
    command = [str(script), "--run", "rows.jsonl", "--out", str(tmp_path / "out"), "--memory", "off", *provider]
    for number, marker, code in ((signal.SIGKILL, "discovery.txt", -signal.SIGKILL), (signal.SIGINT, "candidates.jsonl", 130)):
        with subprocess.Popen(
            command, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_listen_to_interrupt
        ) as process:
            while not (tmp_path / "out" / marker).exists() and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(number)
            _, err = process.communicate()
        assert process.returncode == code, err
        assert "Traceback" not in err
    assert err.splitlines()[-1] == "discover: interrupted; everything done so far is kept, run the same command to go on"
    ended = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert_same(tmp_path / "out", straight[0])
