"""Many processes writing at once, and kill -9 at random moments: is everything that was acknowledged there afterwards?"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.memory import Memory
from tests.benchmarks.section import Section

COMMAND = "make bench ONLY=memory_durability"
ROOT = Path(__file__).parents[2]

# Each number is printed only after `append` has returned: what was printed was acknowledged.
WRITER = """
import sys
from agent.memory import Memory, MemoryEvent, Provenance
from agent.records import OrderParameter
folder, first, number, search = sys.argv[1], *map(int, sys.argv[2:])
with Memory.open(folder) as memory:
    print("ready", flush=True)
    for k in range(first, first + number):
        made = OrderParameter(name=f"hedging {k}", definition="How much.", question=f"How much {k}?", levels=("no", "yes"))
        memory.append(MemoryEvent("accepted", made, provenance=Provenance(run="r"), labels={str(i): i % 3 for i in range(50)}))
        print(k, flush=True)
        if search and k % search == 0:
            memory.search("hedging", 1)
"""


def start(folder: Path, first: int, number: int, search: int = 0) -> subprocess.Popen[str]:
    """A process that appends `number` events and searches (which writes the index) after every `search` of them."""
    arguments = [sys.executable, "-c", WRITER, str(folder), str(first), str(number), str(search)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def held(folder: Path) -> tuple[set[int], int, int, list[str]]:
    """Numbers in the ledger, entries in the index after verify, damaged lines, and what opening had to say."""
    notices: list[str] = []
    with Memory.open(folder, on_notice=notices.append) as memory:
        found = memory.verify()
        numbers = {int(entry.parameter.name.split()[-1]) for entry in memory.entries()}
    return numbers, found.indexed, len(found.damaged), notices


def at_once(processes: int, each: int) -> tuple[str, ...]:
    """Several processes write at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        writers = [start(Path(folder), each * k, each) for k in range(processes)]
        for writer in writers:
            writer.communicate()
        seconds = time.perf_counter() - began
        numbers, indexed, damaged, _ = held(Path(folder))
    written = processes * each
    missing = len(set(range(written)) - numbers)
    return (
        f"{processes} processes, {each} entries each, at once",
        str(written),
        str(missing),
        str(indexed),
        str(damaged),
        f"{seconds:.0f} s",
    )


def killed(moments: int, seed: int) -> tuple[str, ...]:
    """One ledger, written by one process after another, each killed at a random moment, every second one while it also indexes."""
    chance = random.Random(seed)
    acknowledged: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for turn in range(moments):
            writer = start(Path(folder), 100_000 * (turn + 1), 100_000, search=5 * (turn % 2))
            if writer.stdout is None or writer.stdout.readline() != "ready\n":
                raise RuntimeError(f"writer {turn} did not start")
            time.sleep(chance.uniform(0.0, 0.5))
            writer.kill()
            said = writer.communicate()[0]
            acknowledged |= {int(line) for line in said[: said.rfind("\n") + 1].split()}
        seconds = time.perf_counter() - began
        numbers, indexed, damaged, _ = held(Path(folder))
    lost = len(acknowledged - numbers)
    name = f"kill -9 at {moments} random moments"
    return name, str(len(acknowledged)), str(lost), f"{indexed} of {len(numbers)}", str(damaged), f"{seconds:.0f} s"


def run(quick: bool) -> Section:
    """Measure both."""
    rows = [at_once(3, 50) if quick else at_once(8, 1000), killed(3 if quick else 50, seed=6)]
    whole = all(row[2] == "0" for row in rows)
    return Section(
        title="Memory: nothing acknowledged is lost",
        command=COMMAND,
        columns=("what", "acknowledged", "lost", "in the index after verify", "damaged lines", "time"),
        rows=rows,
        bar=f"Bar: all 8000 are there, and 50 kills lose no acknowledged entry: {'held' if whole else 'NOT held'}.",
        notes=("A line cut short by a kill was never acknowledged; it is moved to ledger.damaged.jsonl and counts as none of these.",),
    )
