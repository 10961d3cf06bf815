"""Memory and loop: what other runs found is recalled before the first round, what this one found is remembered after the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from agent.fingerprints import known_fingerprint
from agent.memory import Memory, MemoryEntry
from agent.memory_entries import RunOutcome, nearness
from agent.memory_events import EventKind, MemoryEvent, Provenance
from agent.records import Estimate, Findings, OrderParameter, ParameterFinding, ReviewedRecord
from agent.remembered import FILE, Known, Remembered, write_snapshot
from agent.twins import Twins
from agent.workbench import Workbench
from probes.rules import RULES, Rule, RuleError, measure

MOST_TRIED = 500
"""Parameters tried in vain that a discovery holds its candidates against, those of the nearest changes first."""
SAME_CHANGE = 0.5
"""Cosine of change signatures from which two runs changed alike: what was tried in vain on the one is not tried on the other.
Measured: .93-.98 between organisms of different seeds, .82-.97 between fine-tunings of one kind (shared data), .01-.12 across."""


def recall(work: Workbench) -> None:
    """Write what the memory knows into the run's folder, unless that was done before or the memory is off.

    Parameters known from this very contrast only are left out: a discovery repeated elsewhere finds what it found. So are those that
    this judge cannot judge, and of several that say the same only the first is taken.

    Raises:
        MemoryStoreError: The memory cannot be used.
    """
    if work.config.memory == "off" or (work.folder / FILE).exists():
        return
    with Memory.open(work.config.memory) as memory:
        here = (work.recording.digest, contrast_name(work))
        entries = [e for e in memory.entries() if any(_where(r) != here for r in e.runs)]
        signature = change_signature(work) if entries else {}
        elsewhere = {e.id for e in entries}
        ranked = [e for e in memory.ranked_for(signature) if e.id in elsewhere and _can_judge(work, e)] if entries else []
    promising = _distinct(work, [Known(e.parameter, f"accepted on {_runs(e)}", _labels(e)) for e in ranked])
    write_snapshot(work.folder, work.recording.digest, Remembered(promising, _tried(work, entries, signature)[:MOST_TRIED]))


def _where(run: RunOutcome) -> tuple[str, str]:
    return run.provenance.run_digest, run.provenance.contrast


def _can_judge(work: Workbench, entry: MemoryEntry) -> bool:
    """Whether this discovery's judge can read it; a rule of another version of this program is none."""
    rule = entry.parameter.rule
    if rule is None:
        return work.judge.id != "embedded"
    try:
        Rule.from_dict(rule)
    except RuleError:
        return False
    return True


def _labels(entry: MemoryEntry) -> Mapping[str, Mapping[str, int | None]]:
    return {} if entry.parameter.rule else entry.labels


def _runs(entry: MemoryEntry) -> str:
    n = sum(run.status == "accepted" for run in entry.runs)
    return "another run" if n == 1 else f"{n} other runs"


def _distinct(work: Workbench, ranked: list[Known]) -> tuple[Known, ...]:
    """The first of several that say the same, in the same order."""
    twins = Twins(work)
    kept = []
    for known in ranked:
        if not twins.twin_of_known(known):
            kept.append(known)
            twins.add_known([known])
    return tuple(kept)


def _tried(work: Workbench, entries: list[MemoryEntry], signature: Mapping[str, float]) -> tuple[Known, ...]:
    """What was tried in vain on runs that changed like this one, nearest change first, and whatever a reviewer vetoed.

    In vain is not what showed a share of its own there, only none beyond what was accepted: here it may have one.
    """
    here = (work.recording.digest, contrast_name(work))
    found: list[tuple[float, Known]] = []
    for entry in entries:
        if not _can_judge(work, entry):
            continue
        if entry.status == "vetoed":
            found.append((1.0, Known(entry.parameter, "vetoed by a reviewer", _labels(entry))))
        if entry.status != "rejected":
            continue
        runs = [
            run for run in entry.runs if run.status == "rejected" and _where(run) != here and _least_share(run) <= work.config.min_share
        ]
        near = [(cosine, run) for run in runs if (cosine := nearness(run.signature, signature) or 0.0) >= SAME_CHANGE]
        if near:
            cosine, run = max(near, key=lambda pair: pair[0])
            found.append((cosine, Known(entry.parameter, f"rejected on another run: {run.reason}", _labels(entry))))
    return tuple(known for _, known in sorted(found, key=lambda pair: -pair[0]))


def _least_share(run: RunOutcome) -> float:
    """Lower limit of the share a run measured; 0 when it measured none."""
    share = run.shares.get("share")
    return (share.low or 0.0) if share is not None else 0.0


def contrast_name(work: Workbench) -> str:
    """What is compared, in words: `base against sft`."""
    spec, _ = work.chosen
    return f"{spec.before} against {spec.after}"


def remember(findings: Findings, work: Workbench) -> None:
    """Append what happened to every order parameter of this discovery to the memory; nothing when it is off or nothing was tested.

    Raises:
        MemoryStoreError: The memory cannot be used; the findings are written by then.
    """
    if work.config.memory == "off" or not findings.parameters:
        return
    with Memory.open(work.config.memory, examples=work.config.memory_examples) as memory:
        memory.append_many(_events(findings, work))


def _events(findings: Findings, work: Workbench) -> Iterator[MemoryEvent]:
    """Proposed or transferred, judged, decided: in this order for each, as they came up."""
    measured = {found.parameter.id: found for found in findings.parameters}
    screened = {one.parameter_id: one for one in findings.screened}
    review = {d.parameter_id: d for d in findings.review.decisions} if findings.review else {}
    rounds = work.round_of
    signature = change_signature(work)
    for parameter in work.parameters.values():
        about = _about(parameter, rounds[parameter.id], findings, work)
        yield replace(about, kind="transferred" if parameter.origin == "memory" else "proposed")
        found = measured.get(parameter.id)
        if found is not None:
            if found.change.estimate is not None:
                yield replace(about, kind="judged", labels=known_fingerprint(work, parameter))
            yield _decided(about, found, signature, work, review)
        elif parameter.id in screened:
            yield replace(about, kind="rejected", reason=screened[parameter.id].reason, signature=signature)


def _about(parameter: OrderParameter, turn: int, findings: Findings, work: Workbench) -> MemoryEvent:
    """What all events about a parameter share."""
    steps = findings.contrast.after_steps
    manifest = work.recording.manifest
    return MemoryEvent(
        kind="proposed",
        parameter=parameter,
        provenance=Provenance(
            run=findings.run,
            run_digest=findings.run_digest,
            subject=manifest.subject if manifest is not None else "",
            contrast=contrast_name(work),
            step=steps[0] if steps else None,
            round=turn,
        ),
        judge=findings.judge,
        proposer=findings.proposer,
        # an exact rule is counted, not read, and a remembered parameter was proposed elsewhere
        judge_template=getattr(work.judge, "template_hash", "") if parameter.rule is None else "",
        proposer_template=getattr(work.proposer, "template_hash", "") if parameter.origin == "agent" else "",
    )


def _decided(
    about: MemoryEvent, found: ParameterFinding, signature: Mapping[str, float], work: Workbench, review: Mapping[str, ReviewedRecord]
) -> MemoryEvent:
    decision = review.get(found.parameter.id)
    successor = work.parameters.get(decision.successor_id) if decision is not None and decision.kind == "reword" else None
    shares: dict[str, Estimate | None] = {
        "share": found.share,
        "change": found.change,
        "unique": found.unique,
        "beyond_length": found.beyond_length,
    }
    kind: EventKind = "accepted" if found.verdict == "accepted" else "vetoed" if found.verdict == "vetoed" else "rejected"
    return replace(
        about,
        kind="reworded" if successor else kind,
        by="reviewer" if decision is not None else "agent",
        successor=successor,
        shares={name: e for name, e in shares.items() if e is not None},
        signature=signature,
        reason=found.reason,
        examples=found.evidence,
    )


def change_signature(work: Workbench) -> dict[str, float]:
    """What changed in measurable form: for each built-in rule, after minus before in standard deviations.

    Runs whose signatures point the same way are likely to share order parameters.
    """
    contrast = work.contrast
    completion = work.recording.responses.completion
    texts = [completion[i] for i in contrast.index]
    out = {}
    for name, values in (("length", np.log1p(work.n_words)), *((name, measure(rule, texts)) for name, rule in RULES.items())):
        spread = float(np.std(values))
        shift = -2 * contrast.mean(contrast.s * (values - values.mean()))
        out[name] = shift / spread if spread > 0 else 0.0
    return out
