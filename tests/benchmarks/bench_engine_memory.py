"""Does the engine's peak memory grow with the number of checkpoints? (issue 4)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from probes.adapted_checkpoints import AdaptedCheckpoints, Wanted
from probes.sampler import Question
from tests.benchmarks.engine_subject import random_requests, random_subject, save_adapters
from tests.benchmarks.section import Section
from tests.small_tokenizer import letters_tokenizer

WIDTH, LAYERS, INNER, VOCABULARY, HEADS = 256, 4, 704, 2048, 4
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, LAYER = 64, 2
COUNTS = (16, 32, 64, 128)
GROWTH_BAR = 0.05


def work(folder: Path, n: int) -> None:
    """Score 64 responses under the first `n` checkpoints and draw 8 at each of them."""
    import torch

    torch.set_num_threads(1)
    subject = random_subject(WIDTH, LAYERS, INNER, VOCABULARY, HEADS)
    requests = random_requests(VOCABULARY, 8, 8, 10, 40)
    with AdaptedCheckpoints(subject, {step: folder / str(step) for step in range(n)}) as checkpoints:
        for _ in checkpoints.score(requests, range(n)):
            pass
        for _ in checkpoints.draw(letters_tokenizer(), [Question("abc")], [Wanted(k, 8, k) for k in range(n)], 24, rows_per_batch=64):
            pass


def mebibytes(folder: Path, n: int) -> float:
    """Peak memory of a fresh process that does it, interpreter and libraries included."""
    code = (
        "import resource, pathlib; from tests.benchmarks.bench_engine_memory import work; "
        f"work(pathlib.Path({str(folder)!r}), {n}); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    root = Path(__file__).resolve().parents[2]
    return float(subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout)


def run(quick: bool) -> Section:
    """Peak memory at 16, 32, 64 and 128 checkpoints."""
    counts = COUNTS[:2] if quick else COUNTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_adapters(random_subject(WIDTH, LAYERS, INNER, VOCABULARY, HEADS), folder, counts[-1], MODULES, LAYER, RANK)
        size = (folder / "0" / "adapter_model.safetensors").stat().st_size / 2**20
        peaks = [mebibytes(folder, n) for n in counts]
    growth = max(peaks) / peaks[0] - 1
    outcome = "met" if growth <= GROWTH_BAR else "NOT met"
    return Section(
        title="Memory of the engine",
        command="python -m tests.benchmarks --only engine_memory",
        columns=("checkpoints", "peak memory, MiB", "all adapters, MiB"),
        rows=[[str(n), f"{peak:.0f}", f"{n * size:.0f}"] for n, peak in zip(counts, peaks, strict=True)],
        bar=f"Bar: no growth with the number of checkpoints (at most {GROWTH_BAR:.0%}); found {growth:+.1%}: {outcome}.",
        notes=[
            "A fresh process for each, Python and libraries included: 64 responses scored under all checkpoints, 8 drawn at each, in "
            "batches of 64. "
            f"Adapters of rank {RANK} at {len(MODULES)} modules ({size:.1f} MiB each) are read from disk when they are used."
        ],
    )
