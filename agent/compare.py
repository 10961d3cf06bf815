"""The same order parameters of several runs side by side: seeds, datasets, ranks (`discover compare`).

What is the same is decided by the question first, then by the words as the memory compares them (`agent.memory_duplicates`). Two exact
rules are one when they measure the same thing: the same kind of rule, with at least half of all their phrases in common. (Their
descriptions are no guide: on real runs, two lists of words that share 15 of 133 have a cosine of .62.) A parameter is in at most one row,
and a row has at most one parameter of each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from agent.memory_duplicates import THRESHOLDS, both_exact
from agent.memory_embedders import NgramEmbedder
from agent.memory_entries import search_text
from agent.records import ContrastRecord, Estimate, Findings, OrderParameter, ParameterFinding, Record, Verdict

COMPARISON_FORMAT = "order-parameter-comparison"
COMPARISON_VERSION = 1

COMMON_PHRASES = 0.5
"""Part of all phrases of two rules, each with its sign, that both must have."""

Match = Literal["same question", "same words", "one run"]


class ComparedRun(Record):
    """One run.

    Attributes:
        label: A short name, different for every run.
        source: The path as given.
        transition: Where the behaviour changed, None when no transition stands out or none was looked for.
        other_transitions: Further ones.
        accepted, tested: How many order parameters were accepted, of how many tested.
        length: Share that length alone explains.
    """

    label: str
    source: str
    run: str
    run_digest: str
    seed: int
    proposer: str
    judge: str
    contrast: ContrastRecord
    change: Estimate
    change_is_bound: bool
    transition: Estimate | None
    other_transitions: tuple[Estimate, ...]
    joint: Estimate | None
    residual: Estimate | None
    length: Estimate | None
    accepted: int
    tested: int


class ComparedFinding(Record):
    """What one run says about a parameter; shares are of that run's own D. `similarity` (to the row's first one) lies in [0, 1]."""

    parameter_id: str
    name: str
    verdict: Verdict
    reason: str
    share: Estimate
    change: Estimate
    unique: Estimate | None
    onset: Estimate | None
    similarity: float


class ComparedParameter(Record):
    """One row: a parameter and what every run says about it, None where a run did not test it (which is not a share of 0).

    Attributes:
        name: Its name in the first run that accepted it.
        match: How the runs' parameters were recognised as one.
        accepted_in, tested_in: Runs that accepted it, of those that tested it.
    """

    name: str
    match: Match
    accepted_in: int
    tested_in: int
    findings: tuple[ComparedFinding | None, ...]


class Comparison(Record):
    """Several runs side by side; `cautions` say what makes their numbers incomparable."""

    format: Literal["order-parameter-comparison"] = "order-parameter-comparison"
    version: int = COMPARISON_VERSION
    runs: tuple[ComparedRun, ...]
    parameters: tuple[ComparedParameter, ...]
    cautions: tuple[str, ...]


def compare(runs: Sequence[tuple[str, Findings]]) -> Comparison:
    """Put runs side by side.

    Args:
        runs: Path as given and findings of each run, at least two.

    Returns:
        Every parameter that any run tested: those accepted in most runs first, then by their largest share.
    """
    columns = tuple(_run(label, source, f) for label, (source, f) in zip(labels_of([s for s, _ in runs]), runs, strict=True))
    rows = [_row(group, len(runs)) for group in matched([f for _, f in runs])]
    rows.sort(key=lambda row: (-row.accepted_in, -row.tested_in, -_largest(row), row.name))
    return Comparison(runs=columns, parameters=tuple(rows), cautions=tuple(_cautions(columns)))


def labels_of(sources: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a path that stands twice is counted."""
    parts = [(p.parent if p.suffix == ".json" else p).parts or (source,) for source, p in ((s, Path(s)) for s in sources)]
    for length in range(1, max(len(part) for part in parts) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{source} #{k + 1}" for k, source in enumerate(sources)]


def _run(label: str, source: str, findings: Findings) -> ComparedRun:
    transition = findings.transition
    return ComparedRun(
        label=label,
        source=source,
        run=findings.run,
        run_digest=findings.run_digest,
        seed=findings.seed,
        proposer=findings.proposer,
        judge=findings.judge,
        contrast=findings.contrast,
        change=findings.change,
        change_is_bound=findings.change_is_bound,
        transition=transition.peak if transition is not None and transition.found else None,
        other_transitions=findings.other_transitions,
        joint=findings.joint,
        residual=findings.residual,
        length=None if findings.length is None else findings.length.share,
        accepted=sum(p.verdict == "accepted" for p in findings.parameters),
        tested=len(findings.parameters),
    )


# ---- which parameters are one


@dataclass
class Group:
    """Parameters taken for one: at most one of each run, by the run's place. `vectors` are the places of their words."""

    members: dict[int, ParameterFinding]
    vectors: list[int]
    match: Match = "one run"
    similarity: dict[int, float] = field(default_factory=dict)


def matched(runs: Sequence[Findings]) -> list[Group]:
    """Groups of parameters that are one: equal ids first, then the nearest words as long as every pair of a group is near enough."""
    by_id: dict[str, dict[int, ParameterFinding]] = {}
    for k, findings in enumerate(runs):
        for found in findings.parameters:
            by_id.setdefault(found.parameter.id, {}).setdefault(k, found)
    groups = [
        Group(members, [v], "same question" if len(members) > 1 else "one run", dict.fromkeys(members, 1.0))
        for v, members in enumerate(by_id.values())
    ]
    words = [next(iter(group.members.values())).parameter for group in groups]
    if len(words) < 2:
        return groups
    near = _near(words)
    where = list(range(len(groups)))
    for one, other in sorted(near, key=lambda pair: (-near[pair], pair)):
        a, b = groups[where[one]], groups[where[other]]
        if a is b or a.members.keys() & b.members.keys() or not all((min(i, j), max(i, j)) in near for i in a.vectors for j in b.vectors):
            continue
        first = a.vectors[0]
        for v in b.vectors:
            for k in b.members:
                a.similarity[k] = near[min(first, v), max(first, v)]
            where[v] = where[one]
        a.members |= b.members
        a.vectors += b.vectors
        a.match = "same words"
    return [groups[k] for k in sorted(set(where))]


def _near(words: Sequence[OrderParameter]) -> dict[tuple[int, int], float]:
    """Pairs that are one by their words, with their similarity."""
    vectors = NgramEmbedder().embed([search_text(p) for p in words])
    cosines = vectors @ vectors.T
    out = {}
    for i, j in combinations(range(len(words)), 2):
        exact = both_exact(words[i], words[j])
        similarity = rule_similarity(words[i], words[j]) if exact else float(cosines[i, j])
        if similarity >= (COMMON_PHRASES if exact else THRESHOLDS.text):
            out[i, j] = min(similarity, 1.0)
    return out


def rule_similarity(one: OrderParameter, other: OrderParameter) -> float:
    """How far two exact rules measure the same: 0 for different kinds, else the part of all signed phrases that both have (1 without any).

    A rule turned round (its phrases the other's `against`) measures the same.
    """
    first, second = one.rule or {}, other.rule or {}
    if (first.get("kind"), first.get("unit")) != (second.get("kind"), second.get("unit")):
        return 0.0
    ours, theirs = _signed(first, 1), (_signed(second, 1), _signed(second, -1))
    every = [len(ours | other) for other in theirs]
    return max(len(ours & other) / n if n else 1.0 for other, n in zip(theirs, every, strict=True))


def _signed(rule: Mapping[str, object], sign: int) -> set[tuple[int, str]]:
    poles = ((sign, rule.get("phrases")), (-sign, rule.get("against")))
    return {(s, str(phrase)) for s, phrases in poles if isinstance(phrases, Sequence) for phrase in phrases}


def _row(group: Group, n_runs: int) -> ComparedParameter:
    members = dict(sorted(group.members.items()))
    accepted = [found for found in members.values() if found.verdict == "accepted"]
    return ComparedParameter(
        name=(accepted or list(members.values()))[0].parameter.name,
        match=group.match,
        accepted_in=len(accepted),
        tested_in=len(members),
        findings=tuple(_finding(members[k], group.similarity[k]) if k in members else None for k in range(n_runs)),
    )


def _finding(found: ParameterFinding, similarity: float) -> ComparedFinding:
    return ComparedFinding(
        parameter_id=found.parameter.id,
        name=found.parameter.name,
        verdict=found.verdict,
        reason=found.reason,
        share=found.share,
        change=found.change,
        unique=found.unique,
        onset=found.onset,
        similarity=similarity,
    )


def _largest(row: ComparedParameter) -> float:
    return max((f.change.estimate for f in row.findings if f is not None and f.change.estimate is not None), default=0.0)


def _cautions(runs: Sequence[ComparedRun]) -> list[str]:
    out = ["Every share is of its own run's D: the same share of a larger D is a larger change."]
    if len({run.change_is_bound for run in runs}) > 1:
        out.append("D is only bounded below in some runs: there shares are upper bounds; compare D[O].")
    if len({run.contrast.kind for run in runs}) > 1:
        kinds = ", ".join(f"{run.label}: {run.contrast.kind}" for run in runs)
        out.append(f"The runs compare different things ({kinds}).")
    for what, values in (("judge", {run.judge for run in runs}), ("proposer", {run.proposer for run in runs})):
        if len(values) > 1:
            out.append(f"The runs have different {what}s ({', '.join(sorted(values))}).")
    digests: dict[str, list[str]] = {}
    for run in runs:
        digests.setdefault(run.run_digest, []).append(run.label)
    out += [
        f"{', '.join(labels)} are about the same responses: their agreement is no replication."
        for labels in digests.values()
        if len(labels) > 1
    ]
    return out
