"""Which responses a proposer gets to see: the propose half only, the least explained first, sides blinded (DESIGN, the loop)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agent.records import OrderParameter


@dataclass(frozen=True)
class EvidenceShown:
    """One same-prompt pair as a proposer sees it: which side is A and which B is drawn at random for each pair.

    Attributes:
        key: Short name ("P3") the proposer may cite.
        prompt, system: What the subject was asked.
        a, b: The two responses; untrusted text.
        a_is_before: Never shown; turns the proposer's predicted direction into before/after.
    """

    key: str
    system: str
    prompt: str
    a: str
    b: str
    a_is_before: bool


@dataclass(frozen=True)
class ProposerView:
    """Everything a proposer may look at; n responses of the propose half.

    Attributes:
        round: Turn of the loop, from 1.
        n: Candidates wanted.
        systems, prompts, completions: n texts each.
        residual: `(n,)` what is unexplained of s; > 0 more probable before. Round 1: s less what length explains.
        s, weight: `(n,)` as in `probes.dissimilarity.Contrast`.
        prompt: `(n,)` prompt codes.
        length_bin: `(n,)` quantile bin of log words.
        accepted, rejected: Order parameters decided on so far.
        accepted_labels: `(n, n_accepted)` levels, negative where missing.
        pairs: Blinded pairs for proposers that read.
        reasons: Why each rejected one was rejected.
    """

    round: int
    n: int
    systems: list[str]
    prompts: list[str]
    completions: list[str]
    residual: np.ndarray
    s: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    length_bin: np.ndarray
    accepted: list[OrderParameter]
    accepted_labels: np.ndarray
    rejected: list[OrderParameter]
    pairs: list[EvidenceShown]
    reasons: list[str] = field(default_factory=list)


def choose_pairs(
    residual: np.ndarray, s: np.ndarray, prompt: np.ndarray, n_pairs: int, rng: np.random.Generator, random_part: float = 0.25
) -> list[tuple[int, int]]:
    """Same-prompt (before, after) rows: mostly the largest residuals, at most a few per prompt, some at random.

    Args:
        residual: `(n,)` unexplained part of s.
        s: `(n,)`; > 0 more probable before.
        prompt: `(n,)` prompt codes.
        n_pairs: Pairs wanted.
        rng: Source of the random ones.
        random_part: Part of the pairs drawn at random, so that the proposer also sees what is ordinary.

    Returns:
        At most `n_pairs` pairs of rows (more probable before, more probable after), every prompt used once before any is used twice.
    """
    queues: list[list[tuple[float, int, int]]] = []
    for p in np.unique(prompt):
        rows = np.flatnonzero(prompt == p)
        before = rows[s[rows] > 0][np.argsort(-np.abs(residual[rows[s[rows] > 0]]), kind="stable")]
        after = rows[s[rows] < 0][np.argsort(-np.abs(residual[rows[s[rows] < 0]]), kind="stable")]
        k = min(before.size, after.size)
        if k:
            n_random = int(np.ceil(random_part * k))
            strong = [(float(abs(residual[b]) + abs(residual[a])), int(b), int(a)) for b, a in zip(before[:k], after[:k], strict=True)]
            drawn = [(0.0, int(rng.choice(before)), int(rng.choice(after))) for _ in range(n_random)]
            queues.append(strong + drawn)
    queues.sort(key=lambda queue: -queue[0][0])
    n_strong = n_pairs - round(random_part * n_pairs)
    chosen: list[tuple[int, int]] = []
    depth = 0
    while len(chosen) < n_strong and any(depth < len(queue) for queue in queues):
        for queue in queues:
            if depth < len(queue) and len(chosen) < n_strong and (queue[depth][1], queue[depth][2]) not in chosen:
                chosen.append((queue[depth][1], queue[depth][2]))
        depth += 1
    random_pairs = [queue[-1] for queue in queues]
    for at in rng.permutation(len(random_pairs)):
        pair = (random_pairs[at][1], random_pairs[at][2])
        if len(chosen) < n_pairs and pair not in chosen:
            chosen.append(pair)
    return chosen


def shown_pairs(
    pairs: list[tuple[int, int]], systems: list[str], prompts: list[str], completions: list[str], rng: np.random.Generator
) -> list[EvidenceShown]:
    """Pairs of rows as blinded texts: A and B in random assignment."""
    shown = []
    for k, (before, after) in enumerate(pairs):
        a_is_before = bool(rng.random() < 0.5)
        a, b = (before, after) if a_is_before else (after, before)
        shown.append(EvidenceShown(f"P{k + 1}", systems[before], prompts[before], completions[a], completions[b], a_is_before))
    return shown
