"""Does the engine's peak memory grow with the number of checkpoints? (issue 4)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
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
EACH = 8
ROWS = (16, 64)
"""Responses drawn at a time."""
SETTLED = 8
"""Batches after which the allocator has what it needs; fewer are shown and not compared."""
GROWTH_BAR = 0.05


def work(folder: Path, n: int, rows: int) -> None:
    """Score 64 responses under the first `n` checkpoints and draw `EACH` at each of them, `rows` at a time."""
    import torch

    torch.set_num_threads(1)
    subject = random_subject(WIDTH, LAYERS, INNER, VOCABULARY, HEADS)
    requests = random_requests(VOCABULARY, 8, 8, 10, 40)
    with AdaptedCheckpoints(subject, {step: folder / str(step) for step in range(n)}) as checkpoints:
        for _ in checkpoints.score(requests, range(n)):
            pass
        for _ in checkpoints.draw(letters_tokenizer(), [Question("abc")], [Wanted(k, EACH, k) for k in range(n)], 24, rows_per_batch=rows):
            pass


def mebibytes(folder: Path, n: int, rows: int) -> float:
    """Peak memory of a fresh process that does it, interpreter and libraries included."""
    code = (
        "import resource, pathlib; from tests.benchmarks.bench_engine_memory import work; "
        f"work(pathlib.Path({str(folder)!r}), {n}, {rows}); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
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
        peaks = {rows: [mebibytes(folder, n, rows) for n in counts] for rows in ROWS}
    growths = [g for rows in ROWS if (g := growth(counts, peaks[rows], rows)) is not None]
    outcome = "met" if max(growths) <= GROWTH_BAR else "NOT met"
    return Section(
        title="Memory of the engine",
        command="python -m tests.benchmarks --only engine_memory",
        columns=("checkpoints", *(f"peak memory, {rows} drawn at a time, MiB" for rows in ROWS), "all adapters, MiB"),
        rows=[[str(n), *(f"{peaks[rows][k]:.0f}" for rows in ROWS), f"{n * size:.0f}"] for k, n in enumerate(counts)],
        bar=f"Bar: no growth with the number of checkpoints (at most {GROWTH_BAR:.0%}) from {SETTLED} batches on; "
        f"found {' and '.join(f'{g:+.1%}' for g in growths)}: {outcome}.",
        notes=[
            f"A fresh process for each, Python and libraries included: 64 responses scored under all checkpoints, {EACH} drawn at each. "
            f"Adapters of rank {RANK} at {len(MODULES)} modules ({size:.1f} MiB each) are read from disk when they are used. In the first "
            "few batches the allocator still grows its heap around blocks of changing size."
        ],
    )


def growth(counts: Sequence[int], peaks: Sequence[float], rows: int) -> float | None:
    """Largest peak over that of the fewest checkpoints that make `SETTLED` batches, less 1; None where fewer than two counts do."""
    settled = [peak for n, peak in zip(counts, peaks, strict=True) if n * EACH >= SETTLED * rows]
    return max(settled) / settled[0] - 1 if len(settled) > 1 else None
