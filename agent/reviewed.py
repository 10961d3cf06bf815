"""What a reviewer decided, as it stands in findings: verdicts, reasons, and how far the judge agrees with blinded labels."""

from __future__ import annotations

from typing import Any

from agent.labelling import measure_judge
from agent.measure import Measurement
from agent.racing import was_given_up
from agent.records import LabelAgreement, OrderParameter, ParameterFinding, ReviewedRecord, ReviewRecord, TestRecord
from agent.workbench import Workbench


def after_review(
    work: Workbench, measured: Measurement, parameter: OrderParameter, test: TestRecord | None, state: dict[str, Any]
) -> ParameterFinding:
    """Everything about one tested parameter; a vetoed or reworded one keeps its numbers and the test that was made."""
    now = work.reviewed(state.get("reviews", 0))
    out = parameter.id in state.get("vetoed", [])
    if test is not None and out:
        test = test.model_copy(update={"accepted": False})
    found = measured.given_up(parameter, test) if test is not None and was_given_up(test) else measured.finding(parameter, test)
    update: dict[str, Any] = {}
    if out and parameter.id in now.reworded:
        update = {"verdict": "vetoed", "reason": f"reworded by a reviewer as “{now.reworded[parameter.id].name}”"}
    elif out:
        update = {"verdict": "vetoed", "reason": f"vetoed by a reviewer: {now.vetoed.get(parameter.id) or 'no reason given'}"}
    elif parameter.id in now.confirmed:
        why = now.confirmed[parameter.id]
        update = {"reason": "; ".join(x for x in (found.reason, f"confirmed by a reviewer{f': {why}' if why else ''}") if x)}
    agreed = judge_agreement(work, parameter, state)
    if agreed is not None:
        update["reliability"] = found.reliability | {
            "reviewer_labels": float(agreed.n),
            "reviewer_exact_agreement": agreed.exact,
            "reviewer_weighted_kappa": agreed.weighted_kappa,
            "reviewer_krippendorff_alpha": agreed.krippendorff_alpha,
        }
    return found.model_copy(update=update)


def judge_agreement(work: Workbench, parameter: OrderParameter, state: dict[str, Any]) -> LabelAgreement | None:
    """How far the judge agrees with the blinded labels of the reviews taken in; None when there are none."""
    if not state.get("reviews"):
        return None
    judged = {key: row["level"] for key, row in work.store.get(work.judge.id, parameter.id).items()}
    return measure_judge(parameter, work.reviewed(state["reviews"]).labels, judged)


def reviewer_worded(work: Workbench) -> set[str]:
    """Ids of everything a reviewer of this discovery worded."""
    return {d.parameter.id for d in work.decisions if d.parameter is not None and d.discovery == work.discovery}


def review_record(work: Workbench, state: dict[str, Any]) -> ReviewRecord | None:
    """The reviews taken in; None before the first."""
    if not state.get("reviews"):
        return None
    now = work.reviewed(state["reviews"])
    decisions = [
        *(_about(work, "accept", i, reason) for i, reason in now.confirmed.items()),
        *(_about(work, "veto", i, reason) for i, reason in now.vetoed.items()),
        *(_about(work, "reword", i, "", new) for i, new in now.reworded.items()),
        *(ReviewedRecord(kind="hypothesis", successor=p.name, successor_id=p.id) for p in now.added),
    ]
    agreed = [judge_agreement(work, p, state) for p in work.parameters.values()]
    return ReviewRecord(reviews=state["reviews"], decisions=tuple(decisions), agreement=tuple(a for a in agreed if a is not None))


def _about(work: Workbench, kind: Any, parameter_id: str, reason: str, new: OrderParameter | None = None) -> ReviewedRecord:
    known = work.parameters.get(parameter_id)
    return ReviewedRecord(
        kind=kind,
        parameter_id=parameter_id,
        name=known.name if known is not None else "",
        reason=reason,
        successor=new.name if new is not None else "",
        successor_id=new.id if new is not None else "",
    )
