"""How long do the statistics take, and how do they grow? (issue 3: three bars, growth linear in the responses)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.dissimilarity import Contrast
from probes.explained_share import explained, length_bins
from probes.permutation import conditional_permutation
from probes.shapley import shapley
from probes.synthetic import contrast_of, draw, logistic_course, planted_run
from probes.transition import find_transitions, transition_curve, windows_to_scan
from tests.benchmarks.section import Section

N_PROMPTS = 20
N_CHECKPOINTS, CURVE_RESPONSES, SHARE_RESPONSES, N_PARAMETERS = 200, 800, 5000, 10
CURVE_SECONDS, CURVE_MEBIBYTES, TEST_SECONDS, SHAPLEY_SECONDS = 3.0, 1024.0, 0.5, 2.0
GROWTH = 4
"""Growth is measured between the bar's number of responses and a quarter of it."""
LINEAR = 1.4
"""At most this many times more than in proportion counts as linear: a machine that is busy elsewhere adds as much."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one task at a quarter of the responses and at all of them, and processor seconds of the latter."""

    few: float
    many: float
    processor: float

    @property
    def growth(self) -> float:
        """How many times longer for `GROWTH` times as many responses."""
        return self.many / self.few


def curve_task(n_responses: int, seed: int) -> Callable[[], object]:
    """Transition curves of every window that is scanned, with limits and transitions: 200 checkpoints, all responses scored under all."""
    rng = np.random.default_rng(seed)
    run = planted_run(rng, n_prompts=N_PROMPTS, effects=[1.0], course=logistic_course(N_CHECKPOINTS, 90, 5))
    anchors = [0, 66, 133, 199]
    sample = draw(run, anchors, n_responses // (N_PROMPTS * len(anchors)), rng)
    steps = np.arange(N_CHECKPOINTS)

    def task() -> object:
        out = []
        for window in windows_to_scan(N_CHECKPOINTS):
            curve = transition_curve(sample.log_likelihood, sample.drawn_at, sample.prompt, steps, window)
            out.append((curve.limits(), find_transitions(curve)))
        return out

    return task


def share_problem(n_responses: int, seed: int) -> tuple[Contrast, list[np.ndarray], np.ndarray]:
    """A contrast with likelihoods, ten labels of five levels, and words per response."""
    rng = np.random.default_rng(seed)
    run = planted_run(rng, n_prompts=N_PROMPTS, effects=[0.3] * N_PARAMETERS, correlation=0.3, n_outcomes=2000)
    sample = draw(run, [0, 1], n_responses // (2 * N_PROMPTS), rng)
    labels = list(sample.labels_of(run))
    return contrast_of(sample, [0], [1], likelihoods=True), labels, rng.integers(5, 400, labels[0].size)


def test_task(n_responses: int, seed: int) -> Callable[[], object]:
    """One candidate beside length: share with interval, gain, and 2000 conditional permutations."""
    contrast, labels, words = share_problem(n_responses, seed)

    def task() -> object:
        length = length_bins(words)
        alone, base = explained(contrast, labels[:1]), explained(contrast, [length])
        gain = explained(contrast, [length, labels[0]]).minus(base)
        test = conditional_permutation(contrast, [length], labels[:1], np.random.default_rng(seed), 2000)
        return alone.share_interval, gain.share_interval, test

    return task


def shapley_task(n_responses: int, seed: int) -> Callable[[], object]:
    """Exact Shapley parts of ten parameters, each with its jackknife interval over 20 prompts: 1024 sets, 21 fits each."""
    contrast, labels, _ = share_problem(n_responses, seed)
    return lambda: [part.share_interval for part in shapley(contrast, labels)]


def timing(task: Callable[[int, int], Callable[[], object]], n_responses: int, repetitions: int) -> Timing:
    """The fastest of some repetitions, both sizes in turn in one process: what else the machine does moves their ratio least."""
    few, many = task(n_responses // GROWTH, 1), task(n_responses, 1)
    walls: tuple[list[float], list[float]] = ([], [])
    processor = []
    for _ in range(repetitions):
        for wall, run_it in zip(walls, (few, many), strict=True):
            began, busy = time.perf_counter(), time.process_time()
            run_it()
            wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    return Timing(min(walls[0]), min(walls[1]), min(processor))


def curve_mebibytes() -> float:
    """Peak memory of a fresh process that does the curve task once, interpreter and libraries included."""
    code = (
        "import resource; from tests.benchmarks.bench_speed_statistics import CURVE_RESPONSES, curve_task; "
        "curve_task(CURVE_RESPONSES, 1)(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    root = Path(__file__).resolve().parents[2]
    return float(subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout)


def run(quick: bool) -> Section:
    """The three tasks at the sizes of the bars and at a quarter of their responses."""
    repetitions = 2 if quick else 9
    tasks = [
        (f"curves of all windows, {N_CHECKPOINTS} checkpoints, limits and transitions", curve_task, CURVE_RESPONSES, CURVE_SECONDS),
        ("share, gain, intervals and 2000 permutations of a candidate", test_task, SHARE_RESPONSES, TEST_SECONDS),
        (f"exact Shapley parts of {N_PARAMETERS} parameters with intervals", shapley_task, SHARE_RESPONSES, SHAPLEY_SECONDS),
    ]
    rows, misses = [], []
    for name, task, n_responses, bar in tasks:
        found = timing(task, n_responses, repetitions)
        rows.append(
            [
                name,
                str(n_responses // GROWTH),
                f"{found.few:.2f} s",
                str(n_responses),
                f"{found.many:.2f} s",
                f"{found.processor:.2f} s",
                f"{bar:g} s",
                f"{found.growth:.1f}",
            ]
        )
        if found.many > bar:
            misses.append(f"{name}: {found.many:.2f} s")
        if found.growth > LINEAR * GROWTH:
            misses.append(f"{name}: {found.growth:.1f} times longer for {GROWTH} times the responses")
    peak = curve_mebibytes()
    if peak > CURVE_MEBIBYTES:
        misses.append(f"curves: {peak:.0f} MiB")
    outcome = "met" if not misses else "NOT met (" + "; ".join(misses) + ")"
    return Section(
        title="Statistics are fast",
        command="python -m tests.benchmarks --only speed_statistics",
        columns=("task", "responses", "time", "responses", "time", "processor time", "bar", "growth"),
        rows=rows,
        bar=(
            f"Bar: the times above, curves within {CURVE_MEBIBYTES:.0f} MiB (found {peak:.0f}, Python and libraries included), "
            f"growth at most linear, {GROWTH} times the responses in at most {LINEAR * GROWTH:.1f} times the time: {outcome}."
        ),
        notes=[
            f"Fastest of {repetitions} repetitions, small and large in turn; {N_PROMPTS} prompts; labels of five levels; one BLAS thread."
        ],
    )
