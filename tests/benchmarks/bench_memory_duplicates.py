"""Which thresholds tell a reworded order parameter from a new one: precision and recall on paraphrased and distinct pairs.

Texts: `bench_memory_pairs.toml`, order parameters in the words of two proposers. Labels: built-in rules on the packaged reference
responses, read twice by a judge whose two readings agree with a given kappa (a reading keeps a label or draws one from the same
marginal); and, as the loop compares two exact rules, without error on responses of a run too.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.llm.embedded import WORDING
from agent.memory_duplicates import THRESHOLDS, decide, label_correlation
from agent.memory_embedders import NgramEmbedder
from agent.twins import SHARED_RESPONSES
from probes.rules import RULES, levels
from prompts.reference import reference_responses
from tests.benchmarks.section import Section
from tracing import load

COMMAND = "make bench ONLY=memory_duplicates"
PAIRS = Path(__file__).with_name("bench_memory_pairs.toml")
ORGANISM = Path(__file__).parents[1] / "runs" / "organism"
KAPPAS = (1.0, 0.85, 0.7)
MINORITY = 0.1
"""Rules that hardly vary on these responses (fewer than this share off the commonest level) say nothing about thresholds."""


@dataclass(frozen=True)
class Pair:
    """Two wordings (indices into the texts) and whether they are one order parameter."""

    one: int
    other: int
    same: bool


def wordings() -> tuple[list[str], list[Pair]]:
    """All texts, every paraphrased pair, and every distinct pair of one theme (one wording of each, alternating)."""
    themes = tomllib.loads(PAIRS.read_text(encoding="utf-8"))
    texts = ["\n".join(wording) for concepts in themes.values() for both in concepts.values() for wording in both]
    sizes = [len(concepts) for concepts in themes.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    same = [Pair(2 * k, 2 * k + 1, True) for k in range(sum(sizes))]
    distinct = [
        Pair(2 * (start + i) + (i + j) % 2, 2 * (start + j) + j % 2, False)
        for start, size in zip(starts.tolist(), sizes, strict=True)
        for i, j in combinations(range(size), 2)
    ]
    return texts, same + distinct


def responses() -> tuple[str, list[str]]:
    """Real responses to read labels on: the shared data when it is there, else the committed organism run."""
    data = os.environ.get("OPD_DATA")
    where = str(Path(data) / "em_base_vs_bad_qwen7b" / "rows.jsonl") if data else str(ORGANISM)
    return Path(where).parent.name if data else "tests/runs/organism", list(load(where).responses.completion)


def rule_labels(texts: list[str]) -> NDArray[np.int64]:
    """Levels of every built-in rule that varies, shape `(n_rules, n_responses)`."""
    found = [levels(rule, texts) for rule in RULES.values()]
    return np.array([row for row in found if 1 - np.bincount(row).max() / len(row) > MINORITY])


def reading(labels: NDArray[np.int64], kappa: float, rng: np.random.Generator) -> dict[str, int | None]:
    """One reading; two of them agree with this kappa, because each keeps a label with probability sqrt(kappa)."""
    kept = rng.random(len(labels)) < np.sqrt(kappa)
    return {str(k): int(level) for k, level in enumerate(np.where(kept, labels, rng.permutation(labels)))}


def correlations(pairs: list[Pair], labels: NDArray[np.int64], n_shared: int, kappa: float, rng: np.random.Generator) -> list[float | None]:
    """Label correlation of each pair on `n_shared` responses: two readings of one random rule, or of two different ones."""
    found = []
    for pair in pairs:
        first, second = rng.choice(len(labels), 2, replace=False)
        shared = rng.choice(labels.shape[1], n_shared, replace=False)
        one = reading(labels[first][shared], kappa, rng)
        other = reading(labels[first if pair.same else second][shared], kappa, rng)
        found.append(label_correlation(one, other))
    return found


def score(pairs: list[Pair], called_same: list[bool]) -> tuple[str, str, str]:
    """Precision, recall and false alarms per distinct pair, formatted."""
    true = sum(said and pair.same for pair, said in zip(pairs, called_same, strict=True))
    false = sum(said and not pair.same for pair, said in zip(pairs, called_same, strict=True))
    same = sum(pair.same for pair in pairs)
    precision = f"{true / (true + false):.3f}" if true + false else "-"
    return precision, f"{true / same:.3f}", f"{false / (len(pairs) - same):.4f}"


def run(quick: bool) -> Section:
    """Measure, over thresholds: words alone, labels alone, and the rule that is used."""
    rng = np.random.default_rng(6)
    texts, pairs = wordings()
    vectors = NgramEmbedder().embed(texts)
    cosines = [float(vectors[pair.one] @ vectors[pair.other]) for pair in pairs]
    source, completions = responses()
    reference = [one.completion for one in reference_responses()]
    on_reference, on_run = rule_labels(reference), rule_labels(completions)
    repeats = 1 if quick else 10
    rows: list[tuple[str, ...]] = [
        ("words alone", f"{at:.2f}", "-", *score(pairs, [cosine >= at for cosine in cosines])) for at in np.arange(0.34, 0.60, 0.04)
    ]
    many, words = pairs * repeats, cosines * repeats
    for kappa in KAPPAS:
        found = correlations(many, on_reference, len(reference), kappa, rng)
        rows += list(_labels_alone(many, found, kappa))
        used = [decide(correlation, cosine) is not None for correlation, cosine in zip(found, words, strict=True)]
        lines = f"{THRESHOLDS.same_labels:.2f}, from {THRESHOLDS.other_labels:.2f} with words"
        rows.append(("labels, then words (used)", lines, f"{kappa:.2f}", *score(many, used)))
    found = correlations(many, on_run, SHARED_RESPONSES, 1.0, rng)
    used = [decide(correlation, cosine, exact=True) is not None for correlation, cosine in zip(found, words, strict=True)]
    rows.append(
        (f"exact rules on {SHARED_RESPONSES} responses of a run (used)", f"{THRESHOLDS.exact_labels:.2f}", "1.00", *score(many, used))
    )
    rows.append(
        ("words alone (used without labels)", f"{THRESHOLDS.text:.2f}", "-", *score(pairs, [c >= THRESHOLDS.text for c in cosines]))
    )
    same = sum(pair.same for pair in pairs)
    return Section(
        title="Memory: when are two order parameters one?",
        command=COMMAND,
        columns=("decided by", "threshold", "judge's kappa", "precision", "recall", "false alarms per distinct pair"),
        rows=rows,
        notes=(
            f"{same} paraphrased and {len(pairs) - same} distinct pairs of one theme ({PAIRS.name}); labels: {len(on_reference)} rules "
            f"that vary on the {len(reference)} reference responses, {len(on_run)} on {len(completions)} responses of a run "
            f"({source}), {repeats} draws of rules and readings.",
            _everything_else(vectors),
            "A paraphrase that slips through is caught later (a second reading is not a discovery); a distinct one that is dropped is "
            "lost. So the thresholds favour precision.",
        ),
    )


def _labels_alone(pairs: list[Pair], found: list[float | None], kappa: float) -> Iterator[tuple[str, ...]]:
    for at in (0.5, 0.6, 0.7, 0.8, 0.9):
        yield "labels alone", f"{at:.2f}", f"{kappa:.2f}", *score(pairs, [value is not None and value >= at for value in found])


def _everything_else(vectors: NDArray[np.float32]) -> str:
    """How often words alone confuse two parameters of different themes, and two built-in rules as the embedded proposer words them."""
    own = NgramEmbedder().embed(["\n".join((name, what, what)) for name, what, _ in WORDING.values()])
    return (
        f"Across themes, words alone take {_confused(vectors, 12)} for one; built-in rules as the embedded proposer words them: "
        f"{_confused(own, 1)} (rules of different kinds are never compared by words)."
    )


def _confused(vectors: NDArray[np.float32], together: int) -> str:
    """Distinct pairs above the threshold of words; wordings of one theme stand in groups of `together`."""
    group = np.arange(len(vectors)) // together
    cosines = (vectors @ vectors.T)[np.triu(group[:, None] != group[None, :], 1)]
    return f"{np.count_nonzero(cosines >= THRESHOLDS.text)} of {cosines.size} distinct pairs"
