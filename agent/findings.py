"""From a finished loop to `Findings`: the record everything else (reports, programs, comparisons) is made from."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import prompts
from agent import rereading
from agent.checks import check_cautions, checks_of, why_unknown
from agent.contrasts import ContrastSpec, build_contrast, drawn_columns
from agent.hypotheses import registered
from agent.measure import Measurement
from agent.records import (
    BoundRecord,
    ContrastRecord,
    Estimate,
    Findings,
    OrderParameter,
    OrderRecord,
    ParameterFinding,
    ScreenedRecord,
    TestRecord,
    TransitionRecord,
)
from agent.reviewed import after_review, review_record, reviewer_worded
from agent.spending import cost_lines, price_note
from agent.timing import order_of, other_transitions, places_of, rotation_record, training_record, transition_record
from agent.wording import (
    FEW_PROMPTS,
    SATURATED,
    further_sentence,
    joint_sentence,
    nothing_sentence,
    order_sentence,
    parameter_sentence,
    transition_sentence,
    unknown_sentence,
)
from agent.workbench import Workbench
from probes.dissimilarity import total_change
from probes.explained_share import explained
from probes.transition import windows_to_scan
from tracing import Recording

PACKAGES = ("order-parameter-discovery", "numpy", "scipy", "scikit-learn", "langgraph")
MANY_MISSING = 0.05
PROMPT_SHOWN = 200
"""Characters of a prompt that stand beside its id."""


def make_findings(work: Workbench, spec: ContrastSpec, state: dict[str, Any]) -> Findings:
    """All findings of a finished loop; the same run directory, options and seed give the same record."""
    tests = [TestRecord(**t) for t in state.get("tests", [])]
    last = {t.parameter_id: t for t in tests}
    measured = Measurement(work, work.get(state["accepted"]))
    contrast = contrast_record(work, spec)
    checks = checks_of(work)
    unknown = why_unknown(checks)
    detectable = bool(state["detectable"]) and (measured.total.printable or bool(state["accepted"]))
    tested = work.get([*state["accepted"], *state["rejected"]]) if detectable else []
    parameters = [after_review(work, measured, p, last.get(p.id), state) for p in tested]
    parameters.sort(key=_rank)
    transition = transition_record(work)
    accepted = [p for p in parameters if p.verdict == "accepted"]
    joint = measured.share(measured.joint) if accepted else None
    residual = measured.share(measured.joint.residual()) if accepted and not measured.total.qualifier else None
    smallest = None if unknown else measured.smallest_detectable
    change = Estimate(estimate=None, n=measured.confirm.s.size, note=f"unknown: {unknown}") if unknown else measured.total.change
    total = change.estimate
    known = spec.likelihoods and not unknown
    others = other_transitions(work)
    length = measured.length_finding() if detectable else None
    rotation = rotation_record(work)
    places = places_of(work, measured.onsets, accepted, None if rotation is None else rotation.place)
    order = tuple(order_of(places, work.contrast.n_prompts))
    return Findings(
        run=work.config.run,
        run_digest=work.recording.digest,
        seed=work.config.seed,
        config=work.config.written(),
        versions=versions(),
        proposer=work.proposer.id,
        judge=work.judge.id,
        contrast=contrast,
        sentences=tuple(_sentences(contrast, transition, unknown, detectable, accepted, joint, change, smallest, others, order)),
        detectable=detectable,
        change=change,
        change_is_bound=measured.total.bound is not None,
        jensen_shannon=total_change(measured.confirm, "jensen_shannon").estimate if known else None,
        total_variation=total_change(measured.confirm, "total_variation").estimate if known else None,
        prefix_change=prefix_change(work, spec) if known else {},
        joint=joint,
        residual=residual,
        length=length,
        parameters=tuple(parameters),
        transition=transition,
        checks=checks,
        other_transitions=others,
        order=order,
        events=tuple(place.event for place in places),
        bound=_bound_record(measured),
        training=training_record(work.recording.training),
        tests=tuple(tests),
        screened=tuple(ScreenedRecord(**one) for one in state.get("screened", [])),
        cost=cost_lines(work),
        smallest_detectable_share=smallest / total if detectable and smallest is not None and total else None,
        rounds=state["round"],
        stopped=state["stopped"],
        cautions=(*check_cautions(checks), *_cautions(work, measured, contrast, parameters, transition, smallest, unknown)),
        notes=(
            *work.recording.notes,
            *_registered_note(work),
            *_memory_note(work),
            *_proposer_notes(work),
            *price_note(cost_lines(work)),
            *rereading.notes(work, list(work.parameters.values())),
        ),
        sensitivity=_sensitivity(work, spec, measured),
        preregistration=registered(work.folder),
        rotation=rotation,
        prompts=_prompt_texts(work),
        templates=prompts.hashes() if work.askers else {},
        review=review_record(work, state),
    )


def _prompt_texts(work: Workbench) -> dict[str, str]:
    """Beginning of each prompt of the contrast by its id."""
    r = work.recording.responses
    return {r.prompt_id[i]: r.prompt[i][:PROMPT_SHOWN] for i in sorted(map(int, work.contrast.index))}


def _rank(found: ParameterFinding) -> tuple[bool, float, str]:
    return found.verdict != "accepted", -(found.change.estimate or 0.0), found.parameter.id


def contrast_record(work: Workbench, spec: ContrastSpec) -> ContrastRecord:
    """What is compared, with counts."""
    c = work.contrast
    steps = work.recording.steps
    before, after = c.s > 0, c.s < 0
    if spec.likelihoods:
        # responses drawn elsewhere count too, by their weight; named are those drawn on the two sides
        column = drawn_columns(work.recording)[c.index]
        before, after = np.isin(column, spec.left), np.isin(column, spec.right)
    prompts = {work.recording.responses.prompt_key[i] for i in range(len(work.recording.responses))}
    if spec.kind == "sides":
        side = work.recording.responses.side or ()
        prompts = {key for key, s in zip(work.recording.responses.prompt_key, side, strict=True) if s in (spec.before, spec.after)}
    return ContrastRecord(
        kind=spec.kind,
        before=spec.before,
        after=spec.after,
        before_steps=tuple(steps[k] for k in spec.left),
        after_steps=tuple(steps[k] for k in spec.right),
        window=len(spec.left) if spec.kind in ("window", "ends") else None,
        n_before=int(before.sum()),
        n_after=int(after.sum()),
        n_prompts=c.n_prompts,
        n_prompts_excluded=len(prompts) - c.n_prompts,
        likelihoods=spec.likelihoods,
    )


def _bound_record(measured: Measurement) -> BoundRecord | None:
    bound = measured.total.bound
    if bound is None:
        return None
    return BoundRecord(classifier=bound.classifier, candidates=bound.candidates, calibration=bound.calibration)


def prefix_change(work: Workbench, spec: ContrastSpec) -> dict[str, float]:
    """D of the first k tokens, for every recorded prefix: how much of D is reached early, and how far it saturates with length."""
    if not spec.likelihoods:
        return {}
    # responses are still drawn whole: their prefixes follow the prefix law
    prefixes = sorted(work.recording.prefix_log_likelihood.items())
    parts = {k: build_contrast(replace(work.recording, log_likelihood=table), spec) for k, table in prefixes}
    return {str(k): total_change(part).estimate for k, part in parts.items()}


def _registered_note(work: Workbench) -> list[str]:
    found = registered(work.folder)
    if found is None:
        return []
    n = len(found.hypotheses)
    what = "hypothesis was" if n == 1 else "hypotheses were"
    return [f"{n} {what} registered before any response was judged on them: {found.file}, sha256 {found.sha256}."]


def _memory_note(work: Workbench) -> list[str]:
    n = sum(p.origin == "memory" for p in work.parameters.values())
    out = [f"Tried first: {n} order parameter{'' if n == 1 else 's'} remembered from other runs."] if n else []
    n = len(work.remembered.tried)
    if n:
        noun = "order parameter was" if n == 1 else "order parameters were"
        out.append(f"{n} {noun} tried in vain on runs that changed alike and not tried again; --memory off does without.")
    return out


def _proposer_notes(work: Workbench) -> list[str]:
    """Rounds in which the proposer had nothing to offer because it refused or could not be read."""
    events = {event["round"]: event["reason"] for event in work.events.read() if event["event"] == "not proposed"}
    return [f"Round {turn}: no candidates ({reason})." for turn, reason in sorted(events.items())]


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    out = {}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed as a package"
    return out


def _sentences(
    contrast: ContrastRecord,
    transition: TransitionRecord | None,
    unknown: str,
    detectable: bool,
    accepted: list[ParameterFinding],
    joint: Estimate | None,
    change: Estimate,
    smallest: float | None,
    others: tuple[Estimate, ...],
    order: tuple[OrderRecord, ...],
) -> list[str]:
    out = [] if transition is None else [transition_sentence(transition, contrast)]
    out += [further_sentence(others)] if others else []
    if unknown:
        return [*out, unknown_sentence(contrast, unknown)]
    if not detectable:
        return [*out, nothing_sentence(contrast, change, smallest)]
    if not accepted:
        size = "" if smallest is None else f" One that shows a change of {smallest:.3f} or more would have been found at this size."
        return [*out, f"Something changed (D {change.estimate:.3f}), but no order parameter beyond length was accepted.{size}"]
    if joint is not None and joint.estimate is not None:
        out.append(joint_sentence(len(accepted), joint, contrast))
    named = {"length", *(p.parameter.name for p in accepted)}
    orders = [order_sentence(o) for o in order if o.settled and {o.first, o.second} <= named]
    return [*out, *(parameter_sentence(p) for p in accepted), *orders]


def _sensitivity(work: Workbench, spec: ContrastSpec, measured: Measurement) -> dict[str, Any]:
    """What the joint share becomes without one prompt, with other windows and for the first tokens only."""
    if not measured.accepted or not measured.total.printable:
        return {}
    out: dict[str, Any] = {}
    if measured.confirm.by_prompt:
        loo = measured.joint.change_loo / measured.joint.total_loo
        ids = work.recording.responses.prompt_id
        names = [ids[int(measured.confirm.index[measured.confirm.prompt == p][0])] for p in range(measured.confirm.n_prompts)]
        out["joint_share_without_one_prompt"] = {
            "lowest": float(loo.min()),
            "without_for_lowest": names[int(loo.argmin())],
            "highest": float(loo.max()),
            "without_for_highest": names[int(loo.argmax())],
        }
    if spec.likelihoods and spec.kind == "window":
        at = spec.right[0]
        for window in windows_to_scan(len(work.recording.steps)):
            if at - window >= 0 and at + window <= len(work.recording.steps):
                other = replace(spec, left=tuple(range(at - window, at)), right=tuple(range(at, at + window)))
                out.setdefault("joint_share_by_window", {})[str(window)] = _joint_of(work, work.recording, other, measured.accepted)
    if spec.likelihoods:
        for k, log_likelihood in sorted(work.recording.prefix_log_likelihood.items()):
            part = replace(work.recording, log_likelihood=log_likelihood)
            out.setdefault("joint_share_of_first_tokens", {})[str(k)] = _joint_of(work, part, spec, measured.accepted)
    return out


def _joint_of(work: Workbench, recording: Recording, spec: ContrastSpec, accepted: list[OrderParameter]) -> dict[str, float]:
    """D and the accepted set's joint share on the confirm responses under another contrast or for the first tokens."""
    other = build_contrast(recording, spec)
    confirm = np.isin(other.index, work.confirm.index)
    part = other.take(confirm)
    place = {int(i): k for k, i in enumerate(work.contrast.index)}
    rows = np.array([place[int(i)] for i in part.index])
    joint = explained(part, [work.labels(p)[rows] for p in accepted])
    return {"change": joint.total, "joint_share": joint.change / joint.total}


def _cautions(
    work: Workbench,
    measured: Measurement,
    contrast: ContrastRecord,
    parameters: list[ParameterFinding],
    transition: TransitionRecord | None,
    smallest: float | None,
    unknown: str,
) -> list[str]:
    if unknown:
        return []
    out = [f"Shares are measured on the confirm half ({measured.confirm.s.size} of {work.contrast.s.size} responses)."]
    total = measured.total
    if total.bound is not None:
        out.append(
            f"There are no likelihoods: D is only bounded below (by a classifier of {total.bound.classifier}), "
            "so every share is an upper bound. D[O] is the headline."
        )
    if not measured.confirm.by_prompt:
        out.append(f"Only {contrast.n_prompts} prompts: the intervals speak for these prompts only.")
    elif contrast.n_prompts < FEW_PROMPTS:
        out.append(f"Only {contrast.n_prompts} prompts: intervals are wide and cover a little less than they say.")
    if contrast.n_prompts_excluded:
        out.append(f"{contrast.n_prompts_excluded} prompts were seen on one side only and are left out.")
    if smallest is None:
        left = f"{100 * max(measured.left_by_length, 0):.0f}%"
        out.append(
            f"Length leaves {left} to explain, and {measured.confirm.s.size} responses are too few for that: "
            "nothing beyond length can be shown here, and nothing can be excluded."
        )
    else:
        out.append(f"A parameter showing a change (D[O]) below {smallest:.3f} beyond length would have been missed at this size.")
    if total.bound is None and total.change.estimate is not None and total.change.estimate > SATURATED:
        out.append(f"D is {total.change.estimate:.2f}: close to 1 it saturates and hides differences; see D of the first tokens.")
    if transition is not None and transition.weight_check_failures:
        out.append(
            f"The weight check failed for {transition.weight_check_failures} of {transition.weight_checks} (prompt, step) pairs: "
            "a step where many fail, or where effective responses are few, is unknown."
        )
    for found in parameters:
        missing = max(found.levels.missing_before, found.levels.missing_after) if found.levels else 0.0
        if found.verdict == "accepted" and missing > MANY_MISSING:
            out.append(f"“{found.parameter.name}”: {100 * missing:.0f}% of the judgements on one side are missing.")
    out += _review_cautions(work, parameters)
    if work.judge.id == "embedded":
        out.append("Judged by exact rules on the text, not by a reader: a rule sees words and form, not meaning.")
    return out


def _review_cautions(work: Workbench, parameters: list[ParameterFinding]) -> list[str]:
    late = [p.parameter.name for p in parameters if p.verdict == "accepted" and p.parameter.id in reviewer_worded(work)]
    if not late:
        return []
    names = ", ".join(f"“{name}”" for name in late)
    return [f"Worded by a reviewer who had seen findings on these responses, so with a p-value that is not pre-registered: {names}."]
