"""Ten thousand entries: how long opening, searching and appending take."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from agent.memory import Memory, MemoryEvent, Provenance
from agent.memory_events import encode
from agent.records import Estimate, OrderParameter
from tests.benchmarks.section import Section

COMMAND = "make bench ONLY=memory_speed"
ROOT = Path(__file__).parents[2]
OPEN_LIMIT, SEARCH_LIMIT, APPEND_LIMIT = 2.0, 0.050, 2.0
SUBJECTS = ("doctors", "money", "lists", "the writer itself", "other people", "history", "risk", "code", "faith", "animals", "the law")
VERBS = ("praises", "mentions", "warns about", "asks about", "makes jokes about", "invents facts about", "avoids", "looks down on")

OPEN = """
import sys, time
began = time.perf_counter()
from agent.memory import Memory
memory = Memory.open(sys.argv[1])
opened = time.perf_counter()
memory.search("money", 10)
print(opened - began, time.perf_counter() - opened)
"""


def event(k: int) -> MemoryEvent:
    """An accepted entry of ordinary size: words, scale, three shares with intervals, 60 labels, a signature."""
    what = f"{VERBS[k % len(VERBS)]} {SUBJECTS[k // len(VERBS) % len(SUBJECTS)]}"
    parameter = OrderParameter(
        name=f"{what}, variant {k}",
        definition=f"How far the answer {what}, in the sense of the {k}th variant.",
        question=f"How strongly does the response show that it {what} ({k})?",
        levels=("not at all", "a little", "somewhat", "strongly", "it is the whole point"),
        direction=1,
    )
    share = Estimate(estimate=0.2, low=0.1, high=0.3, n=400)
    return MemoryEvent(
        "accepted",
        parameter,
        provenance=Provenance(f"runs/{k % 40}", f"{k % 40:064x}", "tiny-organism", "window", 26, 1),
        judge="embedded",
        judge_template="0123456789abcdef",
        shares={"share": share, "unique": share, "change": share},
        labels={f"{i:016x}": (i * k) % 5 for i in range(60)},
        signature={"length": 0.01 * (k % 100), "lists": 0.3, "questions": -0.1},
    )


def seconds(action: Callable[[], object]) -> float:
    """Time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def in_a_new_process(folder: Path) -> tuple[float, float]:
    """Seconds from nothing to an open memory in a fresh interpreter (imports included, its own start not), and of the first search."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, "-c", OPEN, str(folder)], env=environment, capture_output=True, text=True, check=True)
    opened, searched = map(float, done.stdout.split())
    return opened, searched


def appends(folder: Path, memory: Memory, first: int, number: int) -> tuple[float, float]:
    """Median seconds of a bare write-and-fsync of the same lines, and of an append, taken in turns so that both see the same disk."""
    bare: list[float] = []
    ours: list[float] = []
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for k in range(first, first + number):
        new = event(k)
        bare.append(seconds(partial(write_and_sync, descriptor, encode(new).line + b"\n")))
        ours.append(seconds(partial(memory.append, new)))
    os.close(descriptor)
    return median(bare), median(ours)


def write_and_sync(descriptor: int, line: bytes) -> None:
    """The least that makes a line durable."""
    os.write(descriptor, line)
    os.fsync(descriptor)


def run(quick: bool) -> Section:
    """Fill a memory and measure medians."""
    entries, times = (300, 3) if quick else (10_000, 15)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "memory"
        with Memory.open(folder) as memory:
            fill = seconds(lambda: memory.append_many(event(k) for k in range(entries)))
            build = seconds(lambda: memory.search("money", 1))
        fresh = [in_a_new_process(folder) for _ in range(times)]
        opened, first = (median(column) for column in zip(*fresh, strict=True))
        with Memory.open(folder) as memory:
            memory.search("money", 10)
            queries = [f"{VERBS[k % len(VERBS)]} {SUBJECTS[k % len(SUBJECTS)]}" for k in range(20 * times)]
            searched = median(seconds(partial(memory.search, query, 10)) for query in queries)
            bare, appended = appends(Path(name), memory, entries, 40 * times)
            behind = seconds(lambda: memory.search("money", 10))
            listed = seconds(memory.entries)
    ratio = appended / bare
    held = opened < OPEN_LIMIT and searched < SEARCH_LIMIT and ratio < APPEND_LIMIT
    return Section(
        title=f"Memory: {entries} entries",
        command=COMMAND,
        columns=("what", "median", "bar"),
        rows=(
            ("open in a new process, imports and check included", f"{opened:.2f} s", f"< {OPEN_LIMIT:.0f} s"),
            ("search", f"{1000 * searched:.1f} ms", f"< {1000 * SEARCH_LIMIT:.0f} ms"),
            ("bare write and fsync of one line", f"{1e6 * bare:.0f} µs", ""),
            ("append", f"{1e6 * appended:.0f} µs = {ratio:.2f} times that", f"< {APPEND_LIMIT:.0f} times"),
            ("first search of a process (loads Chroma and scikit-learn)", f"{first:.2f} s", ""),
            (f"search after {40 * times} new entries (brings the index up to date)", f"{behind:.2f} s", ""),
            ("all entries, folded for the first time", f"{listed:.2f} s", ""),
            (f"{entries} entries in one append_many", f"{fill:.2f} s", ""),
            ("index built from nothing, once", f"{build:.1f} s", ""),
        ),
        bar=f"Bar {'held' if held else 'NOT held'}.",
    )
