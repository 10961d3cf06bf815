"""What each box of the loop does. A node reads ids and numbers from the state, works on the workbench, returns what changed.

Every node can be run again from its top (a crash, a resume): what it writes is keyed by content, and its random numbers
come from the seed, its purpose and the round.
"""

from __future__ import annotations

import numpy as np

from agent.checks import checks_of, why_unknown
from agent.contrasts import ContrastSpec
from agent.decide import Rule, decide, passed_on, round_level
from agent.errors import ReplyError
from agent.evidence import ProposerView, choose_pairs, shown_pairs
from agent.findings import make_findings
from agent.fingerprints import reference_texts
from agent.hypotheses import completed, read_hypotheses, register, registered
from agent.proposer import refusal_of
from agent.racing import is_raced, race
from agent.records import OrderParameter
from agent.rereading import read_again
from agent.state import JudgeTask, LoopState
from agent.twins import Twins
from agent.workbench import Workbench
from probes.dissimilarity import total_change
from probes.explained_share import explained, residual_of

EVIDENCE, PROPOSE, TEST, HUMAN, REVIEW = 2, 3, 4, 5, 10
"""Purposes of random numbers (1 is the split)."""
ENOUGH_EMPTY_ROUNDS = 2
FIRST_LOOK = 64
"""Responses of the propose half on which what other runs found may be given up, before the confirm half is read."""
SHOWN_TRIED = 40
"""Order parameters tried in vain on other runs that a proposer is shown."""


def load(state: LoopState, work: Workbench) -> LoopState:
    """Start: nothing accepted yet."""
    work.progress("loaded", {"responses": len(work.recording.responses), "steps": len(work.recording.steps)})
    return {"round": 0, "accepted": [], "rejected": [], "candidates": [], "carried": 0.0, "empty_rounds": 0, "stopped": ""}


def detect(state: LoopState, work: Workbench) -> LoopState:
    """Choose the contrast, see whether the responses stand for it, and whether anything changed at all."""
    spec, _ = work.chosen
    why = why_unknown(checks_of(work))
    detectable = not why and (not spec.likelihoods or total_change(work.confirm).low >= work.config.min_change)
    stopped = why or ("" if detectable else "no detectable change")
    work.progress("contrast", {"before": spec.before, "after": spec.after, "detectable": detectable})
    return {"contrast": spec.plain(), "detectable": detectable, "stopped": stopped}


def hypotheses(state: LoopState, work: Workbench) -> LoopState:
    """The user's own hypotheses come first, in a family of their own: worded to the end, registered, and only then judged."""
    given = read_hypotheses(work.config.hypotheses, work.config.hypothesis)
    if not given:
        return {"candidates": []}
    if work.given_hypotheses is not None:
        work.remember(work.given_hypotheses, 0)
        return {"candidates": [p.id for p in work.given_hypotheses]}
    parameters = completed(given, work.proposer)
    record = register(work.folder, given, parameters)
    work.events.append("pre-registered", sha256=record.sha256, hypotheses=list(record.hypotheses))
    work.remember(parameters, 0)
    return {"candidates": list(record.hypotheses), "registered": record.sha256}


def propose(state: LoopState, work: Workbench) -> LoopState:
    """What other runs found comes first; then the proposer is asked about what is unexplained on the propose half."""
    turn = state["round"] + 1
    found = remembered_candidates(state, work) if turn == 1 else []
    source = "memory" if found else work.proposer.id
    if not found:
        try:
            found = work.proposer.propose(proposer_view(state, work, turn), work.rng(PROPOSE, turn))
        except ReplyError as error:  # a proposer that refuses or talks nonsense: a round without candidates, and on record
            work.events.append("not proposed", round=turn, reason=str(error))
    work.remember(found, turn)
    work.progress("proposed", {"round": turn, "candidates": len(found), "source": source})
    return {"round": turn, "candidates": [p.id for p in found], "reviewing": False}


def remembered_candidates(state: LoopState, work: Workbench) -> list[OrderParameter]:
    """Parameters accepted on other runs and not decided here, as many as a round has candidates."""
    decided = {*state["accepted"], *state["rejected"]}
    return [known.parameter for known in work.remembered.promising if known.parameter.id not in decided][: work.config.candidates]


def proposer_view(state: LoopState, work: Workbench, turn: int) -> ProposerView:
    """Select evidence: the propose half with its residual, and blinded pairs for proposers that read."""
    rows, contrast = work.propose_rows, work.propose
    accepted, rejected = work.get(state["accepted"]), work.get(state["rejected"])
    labels = [work.labels(p)[rows] for p in accepted]
    residual = residual_of(contrast, [work.length_label[rows], *labels])
    texts = work.recording.responses
    index = contrast.index
    systems, prompts, completions = ([column[i] for i in index] for column in (texts.system, texts.prompt, texts.completion))
    rng = work.rng(EVIDENCE, turn)
    pairs = choose_pairs(residual, contrast.s, contrast.prompt, work.config.evidence_pairs, rng)
    reasons = {t["parameter_id"]: t["reason"] for t in state.get("tests", [])} | _review_reasons(state, work)
    decided = {*state["accepted"], *state["rejected"]}
    tried = [known for known in work.remembered.tried if known.parameter.id not in decided][:SHOWN_TRIED]
    return ProposerView(
        round=turn,
        n=work.config.candidates,
        systems=systems,
        prompts=prompts,
        completions=completions,
        residual=residual,
        s=contrast.s,
        weight=contrast.weight,
        prompt=contrast.prompt,
        length_bin=work.length_label[rows],
        accepted=accepted,
        accepted_labels=np.stack(labels, axis=1) if labels else np.empty((rows.size, 0), dtype=np.int64),
        rejected=[*rejected, *(known.parameter for known in tried)],
        pairs=shown_pairs(pairs, systems, prompts, completions, rng),
        reasons=[*(reasons.get(p.id, "") for p in rejected), *(known.why for known in tried)],
    )


def screen(state: LoopState, work: Workbench) -> LoopState:
    """Drop what was decided before, here or (with a memory) elsewhere, and what cannot be judged from one response; say why."""
    decided = {*state["accepted"], *state["rejected"]}
    twins = known_twins(state, work)
    kept: list[str] = []
    dropped = []
    for parameter in work.get(state["candidates"]):
        reason = "was decided before" if parameter.id in decided else refusal_of(parameter)
        if twins is not None and not reason:
            reason = twins.twin_of(parameter)
        if reason:
            work.events.append("screened", round=state["round"], parameter_id=parameter.id, reason=reason)
            dropped.append({"round": state["round"], "parameter_id": parameter.id, "name": parameter.name, "reason": reason})
        elif parameter.id not in kept:
            kept.append(parameter.id)
            if twins is not None:
                twins.add([parameter], "which comes before it in this round")
    return {"candidates": kept, "screened": dropped}


def known_twins(state: LoopState, work: Workbench) -> Twins | None:
    """What this round's candidates must not repeat; None without a memory, and for what the user or a reviewer wrote down."""
    if work.config.memory == "off" or state["round"] == 0 or state.get("reviewing"):
        return None
    twins = Twins(work)
    twins.add(work.get(state["accepted"]), "accepted in this run")
    twins.add(work.get(state["rejected"]), "rejected in this run")
    if any(p.origin == "agent" for p in work.get(state["candidates"])):  # what is remembered as accepted is tried whatever it resembles
        twins.add_known(work.remembered.tried)
    return twins


def judge(task: JudgeTask, work: Workbench) -> LoopState:
    """One branch of the fan-out: have every response of the contrast judged on one candidate, unless it is given up on the way."""
    parameter = work.parameters[task["parameter_id"]]
    confirm_first = is_confirmed_first(work, parameter)
    texts = work.texts_at(work.confirm_rows) if confirm_first else work.texts
    if work.config.memory != "off" and parameter.rule is None:
        texts = [*texts, *reference_texts()]
    raced = is_raced(work, parameter, task["round"])
    given_up = race(work, parameter, task, FIRST_LOOK if confirm_first else None) if raced else None
    asked = 0 if given_up else work.judge_texts(parameter, texts)
    work.progress("given up" if given_up else "judged", {"parameter": parameter.name, "responses": given_up.n if given_up else asked})
    return {"judged": [parameter.id], "given_up": [given_up.model_dump(mode="json")] if given_up else []}


def is_confirmed_first(work: Workbench, parameter: OrderParameter) -> bool:
    """Whether only the confirm half is read until a candidate is accepted.

    So it is with what is remembered from other runs: it was not chosen by looking at this run, so the propose half has no say in it.
    What is counted for nothing is read whole.
    """
    free = parameter.rule is not None and (work.judge.deterministic or bool(work.askers))
    at_once = all(asker.at_once for asker in work.askers)
    return parameter.origin == "memory" and at_once and not free


def measure_and_decide(state: LoopState, work: Workbench) -> LoopState:
    """Test the candidates on the confirm half and accept those that add to length and the accepted set."""
    turn = state["round"]
    registered(work.folder, state.get("registered"))  # what was changed after it was registered is not tested
    rows = work.confirm_rows
    offered = work.get(state["candidates"])
    given_up = [t for t in state.get("given_up", []) if t["parameter_id"] in state["candidates"]]
    candidates = {p.id: p for p in offered if p.id not in {t["parameter_id"] for t in given_up}}
    rule, rng = _family(state, work)
    accepted_before = work.get(state["accepted"])
    base = [work.length_label[rows], *(work.labels(p)[rows] for p in accepted_before)]
    again = None if work.judge.deterministic else lambda new: second_readings(work, [*accepted_before, *(candidates[i] for i in new)])
    labels = {i: work.labels_at(p, rows) for i, p in candidates.items()}
    names = {i: p.name for i, p in candidates.items()}
    accepted, tests = decide(work.confirm, base, labels, names, rule, turn, rng, again)
    work.progress("decided", {"round": turn, "accepted": [names[i] for i in accepted], "tested": len(tests)})
    for i in accepted:
        work.judge_all(candidates[i])
    all_accepted = [*state["accepted"], *accepted]
    # only rounds that somebody proposed for tell whether there is more to propose
    proposed = any(p.origin == "agent" for p in offered)
    empty_rounds = 0 if accepted else state["empty_rounds"] + proposed
    return {
        "accepted": all_accepted,
        "rejected": [*state["rejected"], *(i for i in sorted(state["candidates"]) if i not in accepted)],
        "tests": sorted([*(t.model_dump(mode="json") for t in tests), *given_up], key=lambda t: str(t["parameter_id"])),
        "carried": passed_on(rule.alpha, tests) if rule.family == "agent" else state["carried"],
        "empty_rounds": empty_rounds,
        "stopped": why_stop(work, turn, all_accepted, empty_rounds),
    }


def _family(state: LoopState, work: Workbench) -> tuple[Rule, np.random.Generator]:
    """The family these candidates are tested in, and its random numbers.

    The user's hypotheses of round 0 share one level; what a reviewer worded after seeing findings gets alpha/2^review, a level of its own.
    """
    config, turn, reviews = work.config, state["round"], state.get("reviews", 0)
    if state.get("reviewing"):
        return Rule("human", config.alpha / 2**reviews, config.min_share, config.n_permutations), work.rng(REVIEW, reviews)
    if turn == 0:
        return Rule("human", config.alpha, config.min_share, config.n_permutations), work.rng(HUMAN, turn)
    level = round_level(config.alpha, turn, state["carried"])
    return Rule("agent", level, config.min_share, config.n_permutations), work.rng(TEST, turn)


def _review_reasons(state: LoopState, work: Workbench) -> dict[str, str]:
    """Why a reviewer took each vetoed parameter out, for the proposer."""
    now = work.reviewed(state.get("reviews", 0))
    return {i: f"a reviewer vetoed it: {now.vetoed[i]}" if i in now.vetoed else "a reviewer reworded it" for i in state.get("vetoed", [])}


def second_readings(work: Workbench, accepted: list[OrderParameter]) -> list[np.ndarray]:
    """Length and the accepted set on the confirm half, the accepted set judged there once more."""
    rows = work.confirm_rows
    for parameter in accepted:
        work.judge_rows(parameter, rows, repeat=1)
    return [work.length_label[rows], *(work.labels_at(p, rows, repeat=1) for p in accepted)]


def why_stop(work: Workbench, turn: int, accepted: list[str], empty_rounds: int) -> str:
    """Why the loop ends after this round; empty when it goes on."""
    config = work.config
    if accepted and work.confirm.likelihoods:
        rows = work.confirm_rows
        joint = explained(work.confirm, [work.labels(p)[rows] for p in work.get(accepted)])
        if 1 - joint.change / joint.total < config.residual:
            return f"the accepted set leaves less than {config.residual:g} unexplained"
    if empty_rounds >= ENOUGH_EMPTY_ROUNDS:
        return f"{ENOUGH_EMPTY_ROUNDS} rounds in a row without acceptance"
    if turn >= config.rounds:
        return f"all {config.rounds} rounds were used" if config.rounds > 1 else "the one round was used"
    return ""


def nothing_to_judge(state: LoopState, work: Workbench) -> LoopState:
    """A round in which no candidate was left counts as a round without acceptance."""
    if state["round"] == 0:
        return {}
    empty = state["empty_rounds"] + 1
    # a reviewer's round takes nothing of the agent's level and passes none of it on
    carried = state["carried"] if state.get("reviewing") else round_level(work.config.alpha, state["round"], state["carried"])
    return {"carried": carried, "empty_rounds": empty, "stopped": why_stop(work, state["round"], state["accepted"], empty)}


def review(state: LoopState, work: Workbench) -> LoopState:
    """Take in what a reviewer decided: vetoed ones leave the accepted set, new words and hypotheses are judged and tested next."""
    turn = state.get("reviews", 0) + 1
    now = work.reviewed(turn)
    out = {*now.vetoed, *now.reworded}
    before, vetoed_before = {*state["accepted"]}, state.get("vetoed", [])
    was_accepted = {t["parameter_id"] for t in state.get("tests", []) if t["accepted"]}
    back = [i for i in vetoed_before if i not in out and i in was_accepted]
    accepted = [i for i in [*state["accepted"], *back] if i not in out]
    rejected = [*(i for i in state["rejected"] if i not in back), *(i for i in state["accepted"] if i in out)]
    given = (*now.reworded.values(), *now.added) if state["detectable"] else ()
    new = [p for p in given if p.id not in {*accepted, *rejected}]
    work.remember(new, state["round"])
    changed = bool(new) or ({*accepted} != before and state["detectable"])
    work.events.append("reviewed", review=turn, vetoed=sorted(now.vetoed), reworded=sorted(now.reworded), added=[p.id for p in new])
    stopped = why_stop(work, state["round"], accepted, 0) if changed else state["stopped"]
    return {
        "reviews": turn,
        "reviewing": True,
        "accepted": accepted,
        "rejected": rejected,
        "vetoed": [i for i in rejected if i in out],
        "candidates": [p.id for p in new],
        # what is left to explain is another thing now
        "empty_rounds": 0 if changed else state["empty_rounds"],
        "stopped": stopped,
    }


def report(state: LoopState, work: Workbench) -> LoopState:
    """Measure everything once more on the confirm half and hand the findings over."""
    if work.publish is not None:
        read_again(work, work.get(state["accepted"]))
        work.publish(make_findings(work, ContrastSpec.of(state["contrast"]), dict(state)))
    work.progress("reported", {"folder": str(work.folder)})
    return {"stopped": state["stopped"] or "nothing to do"}
