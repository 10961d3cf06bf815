"""The same as `bench_memory_transfer` where words are remembered that fit one organism: the embedded proposer and a judge that errs.

A stand-in for parameters that carry over badly: no user pays for reading a rule, which every judge but the scripted one does for nothing.
"""

from __future__ import annotations

from tests.benchmarks.bench_memory_transfer import COLUMNS, COUNTED, FIRST, READING, SEEDS, SMALL, WORDS, Second, held, row, worlds
from tests.benchmarks.section import Section
from tracing import load

SECONDS = tuple(Second(seed, SMALL) for seed in (1, 2, 3))


def run(quick: bool) -> Section:
    """Judged responses, warm against cold, on small recordings of other organisms."""
    first, rows, found = load(FIRST), [], []
    for race in READING:
        of = worlds(first, SECONDS[: 1 if quick else None], WORDS, race, 1 if quick else SEEDS)
        rows.append(row(WORDS, race, of))
        found.append(f"{READING[race]}: {'met' if held(of) else 'NOT met'}")
    return Section(
        title="Memory: what a second run saves when words are remembered",
        command="python -m tests.benchmarks --only memory_transfer_words",
        columns=COLUMNS,
        rows=rows,
        bar=f"The bar of memory_transfer, for comparison: {'; '.join(found)}.",
        notes=(
            COUNTED,
            "Lists of words of the embedded proposer fit the organism they were found on: another harms in other words. Where the first "
            "warm round ends below 90%, a round of five new candidates is paid for as well, and a better list may be refused as another "
            "reading of the accepted one: with 18 prompts and one response each the confirm half tells them apart in some worlds only.",
        ),
    )
