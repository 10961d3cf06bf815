"""Are the shares unbiased, and do their intervals cover, at the sizes people have? 20 prompts, 10 and 50 responses a side."""

from __future__ import annotations

from tests.benchmarks.bench_intervals import COLUMNS, table
from tests.benchmarks.section import Section

LARGEST_BIAS, LEAST_COVERAGE = 0.015, 0.925


def run(quick: bool) -> Section:
    """Bias and coverage of single, joint and unique shares over 400 planted runs (|bias| at most .015, coverage at least 92.5%)."""
    n_runs = 40 if quick else 400
    rows, checks = table([(20, 10), (20, 50)], n_runs, seed=2)
    wanted = [(name, bias, coverage) for _, name, bias, coverage in checks if name in ("single", "joint", "unique")]
    bias = max(abs(b) for _, b, _ in wanted)
    coverage = min(c for _, _, c in wanted)
    met = bias <= LARGEST_BIAS and coverage >= LEAST_COVERAGE
    return Section(
        title="Shares are unbiased",
        command="python -m tests.benchmarks --only estimator",
        columns=COLUMNS,
        rows=rows,
        bar=(
            f"Bar: absolute bias of single, joint and unique at most {LARGEST_BIAS} (largest {bias:.4f}), "
            f"coverage at least {100 * LEAST_COVERAGE:.1f}% "
            f"(least {100 * coverage:.1f}%): {'met' if met else 'NOT met'}."
        ),
        notes=[f"{n_runs} planted runs a cell; without likelihoods the quantity is D[O]."],
    )
