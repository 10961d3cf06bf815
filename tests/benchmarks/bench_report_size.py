"""How long does the report of a large run take, and how much does it weigh? (issue 7: 20 parameters x 10,000 responses, 5 s, 8 MB)."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent.report import read_findings, write_all
from tests.benchmarks.section import Section
from tests.large_findings import N_PARAMETERS, N_PROMPTS, N_RESPONSES, N_STEPS, large

MOST_SECONDS, MOST_MEGABYTES = 5.0, 8.0
COMMAND = Path(sys.executable).with_name("discover")


def run(quick: bool) -> Section:
    """Time and weight of the three files, within a process and as the command a user types."""
    repetitions = 1 if quick else 5
    with tempfile.TemporaryDirectory() as place:
        paths = write_all(large(), Path(place))
        findings = read_findings(Path(place))
        within = _fastest(lambda: write_all(findings, Path(place)), repetitions)
        typed = _fastest(lambda: subprocess.run([COMMAND, "report", place], check=True, capture_output=True), repetitions)
        weight = {path.name: path.stat().st_size / 1e6 for path in (paths.html, paths.markdown, paths.findings)}
    rows = [
        ["all three files, within a process", f"{within[0]:.2f} s", f"{within[1]:.2f} s", f"{MOST_SECONDS:g} s"],
        ["`discover report RUN`, from the start of the process", f"{typed[0]:.2f} s", f"{typed[1]:.2f} s", f"{MOST_SECONDS:g} s"],
        ["report.html", f"{weight['report.html']:.2f} MB", "", f"{MOST_MEGABYTES:g} MB"],
        ["report.md", f"{weight['report.md']:.2f} MB", "", ""],
        ["findings.json", f"{weight['findings.json']:.2f} MB", "", ""],
    ]
    met = max(within[0], typed[0]) < MOST_SECONDS and weight["report.html"] < MOST_MEGABYTES
    return Section(
        title=f"Report of {N_PARAMETERS} order parameters on {N_RESPONSES:,} responses",
        command="python -m tests.benchmarks --only report_size",
        columns=("what", "measured", "processor time", "bar"),
        rows=rows,
        bar=f"Bar: report.html within {MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB: {'met' if met else 'NOT met'}.",
        notes=[
            f"Fastest of {repetitions}; {N_PROMPTS:,} prompts, {N_STEPS} steps, three pairs of responses of 3,000 characters and more for "
            "each parameter. The plotting library is 4.8 MB of the page; of more than 200 prompts the heat map draws those with the "
            "largest shares."
        ],
    )


def _fastest(task: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Seconds on the clock and of the processor, of this process and its children, the fastest of each."""
    clock, processor = [], []
    for _ in range(repetitions):
        began, used = time.perf_counter(), _processor()
        task()
        clock.append(time.perf_counter() - began)
        processor.append(_processor() - used)
    return min(clock), min(processor)


def _processor() -> float:
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
