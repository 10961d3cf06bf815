"""Memory and loop: what other runs found is recalled before the first round, what this one found is remembered after the last."""

from __future__ import annotations

import numpy as np

from agent.memory import Memory
from agent.memory_events import EventKind, MemoryEvent, Provenance
from agent.records import Estimate, Findings, ParameterFinding
from agent.remembered import FILE, write_snapshot
from agent.workbench import Workbench
from probes.rules import RULES, measure

REFERENCE_RESPONSES = 200
"""Label vectors are kept on this many responses of the run, chosen by the hash of their text."""


MOST_TRIED = 40
"""Rejected parameters shown to a proposer as already tried."""


def recall(work: Workbench) -> None:
    """Write what the memory knows into the run's folder, unless that was done before or the memory is off.

    Parameters known from this very contrast only are left out: a discovery repeated elsewhere finds what it found. So are those that
    this judge cannot judge.

    Raises:
        MemoryStoreError: The memory cannot be used.
    """
    if work.config.memory == "off" or (work.folder / FILE).exists():
        return
    with Memory.open(work.config.memory) as memory:
        entries = memory.entries()
        here = (work.recording.digest, contrast_name(work))
        elsewhere = {e.id for e in entries if any((r.provenance.run_digest, r.provenance.contrast) != here for r in e.runs)}
        ranked = memory.ranked_for(change_signature(work)) if elsewhere else []
    usable = [e for e in ranked if e.id in elsewhere and (e.parameter.rule is not None or work.judge.id != "embedded")]
    tried = [e.parameter for e in entries if e.status in ("rejected", "vetoed") and e.id in elsewhere]
    write_snapshot(work.folder, work.recording.digest, [e.parameter for e in usable], tried[-MOST_TRIED:])


def contrast_name(work: Workbench) -> str:
    """What is compared, in words: `base against sft`."""
    spec, _ = work.chosen
    return f"{spec.before} against {spec.after}"


def remember(findings: Findings, work: Workbench) -> None:
    """Append one event per tested parameter to the memory; nothing when it is off or nothing was tested.

    Raises:
        MemoryStoreError: The memory cannot be used; the findings are written by then.
    """
    if work.config.memory == "off" or not findings.parameters:
        return
    with Memory.open(work.config.memory) as memory:
        memory.append_many(_event(found, findings, work) for found in findings.parameters)


def _event(found: ParameterFinding, findings: Findings, work: Workbench) -> MemoryEvent:
    shares: dict[str, Estimate | None] = {
        "share": found.share,
        "change": found.change,
        "unique": found.unique,
        "beyond_length": found.beyond_length,
    }
    steps = findings.contrast.after_steps
    manifest = work.recording.manifest
    decided = {d.parameter_id: d for d in findings.review.decisions} if findings.review else {}
    by_reviewer = decided.get(found.parameter.id)
    reworded = by_reviewer is not None and by_reviewer.kind == "reword"
    kind: EventKind = "accepted" if found.verdict == "accepted" else "vetoed" if found.verdict == "vetoed" else "rejected"
    return MemoryEvent(
        kind="reworded" if reworded else kind,
        by="agent" if by_reviewer is None else "reviewer",
        successor=work.parameters.get(by_reviewer.successor_id) if by_reviewer is not None and reworded else None,
        parameter=found.parameter,
        provenance=Provenance(
            run=findings.run,
            run_digest=findings.run_digest,
            subject=manifest.subject if manifest is not None else "",
            contrast=contrast_name(work),
            step=steps[0] if steps else None,
            round=found.round,
        ),
        judge=findings.judge,
        proposer=findings.proposer,
        shares={name: e for name, e in shares.items() if e is not None},
        labels=_labels(found, work),
        signature=change_signature(work),
        reason=found.reason,
    )


def _labels(found: ParameterFinding, work: Workbench) -> dict[str, int | None]:
    """Levels on the reference responses of this run, of those that were read: those whose text hashes come first."""
    read = work.levels_by_text(found.parameter)
    return {key: read[key] for key in sorted(key for key, *_ in work.texts)[:REFERENCE_RESPONSES] if key in read}


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
