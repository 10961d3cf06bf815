from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.evidence import ProposerView
from agent.graph import build_graph, run_loop
from agent.judge import Judge, Text
from agent.llm.scripted import ScriptedProposer
from agent.records import Findings, Judgement, OrderParameter
from agent.report.findings_file import findings_bytes
from agent.workbench import Workbench
from probes.synthetic import PlantedRun, draw, logistic_course
from tests.planted_recordings import (
    accepted,
    asks,
    config_of,
    found,
    planted,
    recording_of,
    scripted,
    workbench,
    write_hypotheses,
)

RUN_WORDS = ("step", "side", "base", "tuned", "before", "after")


class Reading:
    """A judge that remembers what it was handed."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.seen: list[tuple[OrderParameter, tuple[Text, ...], int]] = []

    @property
    def id(self) -> str:
        """As the judge behind it."""
        return self._judge.id

    @property
    def deterministic(self) -> bool:
        """As the judge behind it."""
        return self._judge.deterministic

    def judge(self, parameter: OrderParameter, texts: Sequence[Text], repeat: int = 0) -> list[Judgement]:
        """What the judge behind it says."""
        self.seen.append((parameter, tuple(texts), repeat))
        return self._judge.judge(parameter, texts, repeat)


class Failing(Reading):
    """A judge that is cut off when asked for the n-th time."""

    def __init__(self, judge: Judge, at: int) -> None:
        super().__init__(judge)
        self._at = at

    def judge(self, parameter: OrderParameter, texts: Sequence[Text], repeat: int = 0) -> list[Judgement]:
        """Says nothing the n-th time."""
        if len(self.seen) + 1 == self._at:
            raise ConnectionError("the line is dead")
        return super().judge(parameter, texts, repeat)


class Watching:
    """A proposer that remembers what it was shown."""

    def __init__(self, proposer: ScriptedProposer) -> None:
        self._proposer = proposer
        self.id = proposer.id
        self.views: list[ProposerView] = []

    def propose(self, view: ProposerView, rng: np.random.Generator) -> list[OrderParameter]:
        """What the proposer behind it says."""
        self.views.append(view)
        return self._proposer.propose(view, rng)


def looped(work: Workbench, published: list[Findings]) -> Findings:
    """The findings of a loop kept on disk."""
    run_loop(work, thread="t")
    return published[-1]


# what is found


@pytest.mark.parametrize("kind", [{}, {"likelihoods": False}, {"sides": ("base", "tuned")}])
@pytest.mark.parametrize("seed", [0, 2])
def test_a_planted_parameter_is_found_and_a_distractor_is_not(kind: dict[str, Any], seed: int, tmp_path: Path) -> None:
    """With likelihoods, with steps alone and with sides alone; tested in the first round, at half the level."""
    findings = found(planted(seed, effects=(0.9, 0.0), **kind), tmp_path, asks("harm"), asks("hedge"))
    assert accepted(findings) == ["harm"]
    assert findings.detectable
    assert [p.parameter.name for p in findings.parameters] == ["harm", "hedge"]
    assert {t.alpha for t in findings.tests} == {0.025}
    assert findings.sentences[-1].startswith("“harm” alone explains ")


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_that_see_length_alone_are_not_accepted(seed: int, tmp_path: Path) -> None:
    """A run in which only length moved: a label that follows length shows much of the change and adds nothing to it."""
    rng = np.random.default_rng([7, seed])
    n_words = np.exp(rng.normal(4, 0.6, (16, 300))).astype(np.int64) + 1
    before = rng.dirichlet(np.full(300, 2.0), size=16)
    after = before * np.exp(-1.5 * np.log(n_words))
    paragraphs = np.digitize(rng.poisson(n_words / 20), [1, 2, 4, 7])
    run = PlantedRun(before, after / after.sum(axis=1, keepdims=True), paragraphs[None], np.array([0.0, 1.0]))
    findings = found(recording_of(run, draw(run, (0, 1), 20, rng), ("size",), n_words=n_words), tmp_path, asks("size"))
    assert accepted(findings) == []
    (size,) = findings.parameters
    assert (size.share.estimate or 0) > 0.3
    assert findings.length is not None
    assert (findings.length.share.estimate or 0) > 0.8
    assert size.beyond_length is not None
    assert abs(size.beyond_length.estimate or 0) < 0.02
    assert "no order parameter beyond length was accepted" in findings.sentences[-1]


def test_a_run_in_which_nothing_changes_says_so(tmp_path: Path) -> None:
    """No share is printed, nothing is asked, nothing is tested; the size that would have been found is named."""
    judges: list[Reading] = []

    def watched(judge: Judge) -> Reading:
        judges.append(Reading(judge))
        return judges[-1]

    findings = found(planted(0, effects=(0.0,), hidden=0.03), tmp_path, asks("harm"), judge=watched)
    assert not findings.detectable
    assert findings.parameters == ()
    assert findings.tests == ()
    assert (findings.joint, findings.residual, findings.length) == (None, None, None)
    assert judges[0].seen == []
    assert findings.stopped == "no detectable change"
    assert findings.sentences[-1].startswith("No change is detectable between step 0 and step 1 (D 0.0")
    assert "or more would have been found at this size" in findings.sentences[-1]


def test_two_equal_ends_change_nothing(tmp_path: Path) -> None:
    """The same law at both ends: D is 0 but for rounding, nothing is divided by it, and the size named is the least that counts."""
    findings = found(planted(0, effects=(0.0,), hidden=0.0), tmp_path, asks("harm"))
    assert not findings.detectable
    assert findings.change.estimate == pytest.approx(0.0, abs=1e-20)
    assert findings.smallest_detectable_share is None
    assert findings.sentences[-1].endswith("A parameter showing a change of 0.010 or more would have been found at this size.")


def test_sides_that_do_not_differ_yield_nothing(tmp_path: Path) -> None:
    """Without likelihoods the loop runs, accepts nothing and prints no share."""
    findings = found(planted(1, effects=(0.0, 0.0), hidden=0.03, sides=("base", "tuned")), tmp_path, asks("harm"), asks("hedge"))
    assert accepted(findings) == []
    assert not findings.detectable
    assert findings.sentences[-1].startswith("No change is detectable between base and tuned")
    assert len(findings.tests) == 2


@pytest.mark.slow
def test_paraphrases_of_what_is_accepted_are_mostly_not_accepted(tmp_path: Path) -> None:
    """A judge with kappa .7 reads four wordings of one parameter with errors of its own: over 3 runs few of the 9 repeats enter."""
    words = [asks("harm", question=f"Wording {k} of harm?") | {"name": f"harm {k}"} for k in range(4)]
    entered = 0
    for seed in range(3):
        (folder := tmp_path / str(seed)).mkdir()
        findings = found(planted(seed, effects=(0.9,), n_prompts=16, n_each=30), folder, *words, errors={"kappa": 0.7, "seed": seed})
        assert accepted(findings)
        entered += len(accepted(findings)) - 1
    assert entered <= 2


def test_a_second_parameter_is_accepted_beside_the_first(tmp_path: Path) -> None:
    """Two planted parameters offered in different rounds are both found; the first round accepts all and passes its level on."""
    findings = found(planted(0, effects=(0.9, 0.7), n_each=30), tmp_path, asks("harm"), asks("hedge", round=2), residual=0.0)
    assert sorted(accepted(findings)) == ["harm", "hedge"]
    by_name = {t.name: t for t in findings.tests}
    assert (by_name["harm"].round, by_name["harm"].alpha) == (1, 0.025)
    assert by_name["hedge"].round == 2
    assert by_name["hedge"].alpha == pytest.approx(0.0125 + 0.025)


def test_hypotheses_are_tested_first_and_in_a_family_of_their_own(tmp_path: Path) -> None:
    """The user's own are decided before the proposer is asked, by Holm; the agent's level is not touched by them."""
    path = write_hypotheses(tmp_path / "mine.toml", asks("harm"), asks("style"))
    recording = planted(0, effects=(0.9, 0.7, 0.0), n_each=30)
    findings = found(recording, tmp_path, asks("harm"), asks("style"), asks("hedge"), hypotheses=str(path), residual=0.0)
    by_name = {t.name: t for t in findings.tests}
    assert {name: t.family for name, t in by_name.items()} == {"harm": "human", "style": "human", "hedge": "agent"}
    assert {name: t.round for name, t in by_name.items()} == {"harm": 0, "style": 0, "hedge": 1}
    assert (by_name["harm"].alpha, by_name["style"].alpha, by_name["hedge"].alpha) == (0.025, 0.05, 0.025)
    assert sorted(accepted(findings)) == ["harm", "hedge"]
    assert {p.parameter.name: p.parameter.origin for p in findings.parameters} == {"harm": "human", "style": "human", "hedge": "agent"}


def test_hypotheses_that_explain_enough_leave_nothing_to_propose(tmp_path: Path) -> None:
    """When what the user expected leaves less than the target the proposer is not asked at all."""
    path = write_hypotheses(tmp_path / "mine.toml", asks("harm"))
    proposer, judge = scripted(tmp_path, asks("harm"), asks("hedge"))
    watching = Watching(proposer)
    config = config_of(hypotheses=str(path), residual=0.5)
    work, published = workbench(planted(0, effects=(0.9, 0.0)), tmp_path, config, watching, judge)
    run_loop(work)
    assert accepted(published[-1]) == ["harm"]
    assert watching.views == []
    assert published[-1].stopped == "the accepted set leaves less than 0.5 unexplained"


@pytest.mark.parametrize(
    ("options", "reason", "rounds"),
    [
        ({"residual": 0.0}, "2 rounds in a row without acceptance", 3),
        ({"residual": 0.5}, "the accepted set leaves less than 0.5 unexplained", 1),
        ({"residual": 0.0, "rounds": 1}, "the one round was used", 1),
        ({"residual": 0.0, "rounds": 2}, "all 2 rounds were used", 2),
    ],
)
def test_the_loop_ends_for_a_reason(options: dict[str, Any], reason: str, rounds: int, tmp_path: Path) -> None:
    """Enough explained, two empty rounds, or no rounds left; the reason stands in the findings."""
    findings = found(planted(0), tmp_path, asks("harm"), asks("hedge"), **options)
    assert (findings.stopped, findings.rounds) == (reason, rounds)


def test_candidates_that_leak_the_answer_are_screened(tmp_path: Path) -> None:
    """A question about where the response comes from is not judged, and the reason is on record."""
    leak = asks("harm", question="Is this from the fine-tuned one?", pattern=r"harm=(\d)") | {"name": "leak"}
    findings = found(planted(0), tmp_path, leak, asks("hedge"))
    assert [p.parameter.name for p in findings.parameters] == ["hedge"]
    events = (tmp_path / "events.jsonl").read_text(encoding="utf-8")
    assert "names 'fine-tuned': a judge sees one response" in events


# what is not decided by chance


@pytest.mark.slow
def test_the_order_of_candidates_decides_nothing(tmp_path: Path) -> None:
    """The same candidates in another order: the same parameters, decisions and numbers."""
    candidates = [asks("harm"), asks("hedge"), asks("style")]
    recording = planted(0, effects=(0.9, 0.5, 0.0))
    plain = []
    for k, order in enumerate((candidates, candidates[::-1])):
        (folder := tmp_path / str(k)).mkdir()
        findings = found(recording, folder, *order)
        plain.append(findings.model_dump(exclude={"proposer", "judge", "cost"}))
    assert plain[0] == plain[1]


@pytest.mark.slow
def test_one_seed_gives_one_result(tmp_path: Path) -> None:
    """The same recording, options and seed give the same bytes; another seed divides otherwise and gives others."""
    results = []
    for k, seed in enumerate((3, 3, 4)):
        (folder := tmp_path / str(k)).mkdir()
        results.append(findings_bytes(found(planted(0), folder, asks("harm"), asks("hedge"), seed=seed)))
    assert results[0] == results[1]
    assert results[0] != results[2]


# who sees what


@pytest.mark.parametrize("kind", [{}, {"sides": ("base", "tuned")}])
def test_the_judge_never_learns_step_or_side(kind: dict[str, Any], tmp_path: Path) -> None:
    """It is handed the question and, per text, a hash, the system text, the prompt and the response: no step, no side, each text once."""
    judges: list[Reading] = []

    def watched(judge: Judge) -> Reading:
        judges.append(Reading(judge))
        return judges[-1]

    recording = planted(0, **kind)
    found(recording, tmp_path, asks("harm"), asks("hedge"), judge=watched)
    known = set(zip(recording.responses.text_key, recording.responses.prompt, recording.responses.completion, strict=True))
    for parameter, texts, repeat in judges[0].seen:
        assert repeat == 0
        assert not any(word in f"{parameter.question} {parameter.definition}".casefold().split() for word in RUN_WORDS)
        assert len({key for key, *_ in texts}) == len(texts)
        assert {(key, prompt, completion) for key, _, prompt, completion in texts} == known
        assert {system for _, system, _, _ in texts} == {""}
    assert [len(texts) for _, texts, _ in judges[0].seen] == [len(known)] * 2


@pytest.mark.parametrize("n_prompts", [12, 40])
def test_the_proposer_sees_the_propose_half_only(n_prompts: int, tmp_path: Path) -> None:
    """In every round exactly the responses of the propose half; from forty prompts on, none of the other half's questions."""
    recording = planted(0, effects=(0.9, 0.0), n_prompts=n_prompts, n_each=6)
    proposer, judge = scripted(tmp_path, asks("harm"), asks("hedge", round=2))
    watching = Watching(proposer)
    work, _ = workbench(recording, tmp_path, config_of(residual=0.0), watching, judge)
    run_loop(work)
    shown = Counter(recording.responses.completion[i] for i in work.propose.index)
    kept = {recording.responses.prompt[i] for i in work.confirm.index}
    assert set(work.propose.index.tolist()).isdisjoint(work.confirm.index.tolist())
    assert len(watching.views) >= 2
    for view in watching.views:
        assert Counter(view.completions) == shown
        assert view.s.size == view.residual.size == len(view.prompts) == view.length_bin.size == work.propose.s.size
        texts = set(zip(view.prompts, view.completions, strict=True))
        assert all({(pair.prompt, pair.a), (pair.prompt, pair.b)} <= texts for pair in view.pairs)
        if n_prompts >= 40:
            assert kept.isdisjoint(view.prompts)


def test_the_proposer_learns_what_was_decided_and_what_is_left(tmp_path: Path) -> None:
    """Later rounds show what was accepted with its labels, what was rejected and why, and a residual that the accepted set has left."""
    recording = planted(0, effects=(0.9, 0.0), n_each=30)
    proposer, judge = scripted(tmp_path, asks("harm"), asks("hedge"))
    watching = Watching(proposer)
    work, _ = workbench(recording, tmp_path, config_of(residual=0.0), watching, judge)
    run_loop(work)
    first, second = watching.views[:2]
    assert (first.accepted, first.rejected, first.accepted_labels.shape) == ([], [], (first.s.size, 0))
    assert [p.name for p in second.accepted] == ["harm"]
    assert [p.name for p in second.rejected] == ["hedge"]
    assert second.reasons[0]
    levels = [int(text[5]) for text in second.completions]
    assert second.accepted_labels[:, 0].tolist() == levels
    assert np.sum(second.weight * second.residual**2) < 0.5 * np.sum(first.weight * first.residual**2)


# interruptions


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3])
def test_an_interrupted_loop_ends_where_it_would_have(at: int, tmp_path: Path) -> None:
    """Cut off while judging, taken up again: the same findings, and no response is judged twice on one question."""
    recording = planted(0, effects=(0.9, 0.5, 0.0), n_each=10)
    candidates = (asks("harm"), asks("hedge", round=2), asks("style", round=2))
    (straight := tmp_path / "straight").mkdir()
    (broken := tmp_path / "broken").mkdir()
    config = config_of(residual=0.0)
    proposer, judge = scripted(straight, *candidates, kappa=0.9)
    expected = looped(*workbench(recording, straight, config, proposer, judge))
    first = Failing(judge, at)
    work, published = workbench(recording, broken, config, proposer, first)
    with pytest.raises(ConnectionError):
        run_loop(work, thread="t")
    assert published == []
    second = Reading(judge)
    assert findings_bytes(looped(*workbench(recording, broken, config, proposer, second))) == findings_bytes(expected)
    asked = Counter((p.id, key, repeat) for p, texts, repeat in [*first.seen, *second.seen] for key, *_ in texts)
    assert set(asked.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("written", [True, False], ids=["between writes and checkpoint", "before the writes"])
def test_cut_off_after_any_step_it_ends_where_it_would_have(written: bool, tmp_path: Path) -> None:
    """Every place between two steps at which a process can die: the same final state, and the same findings if they were still to come."""
    (whole := tmp_path / "whole").mkdir()
    recording = planted(0, effects=(0.9, 0.5, 0.0), n_each=8)
    config = config_of(residual=0.0, rounds=1)
    proposer, judge = scripted(whole, asks("harm"), asks("hedge"))
    work, published = workbench(recording, whole, config, proposer, judge)
    final, expected = run_loop(work, thread="t"), published[-1]
    with closing(sqlite3.connect(whole / "graph.sqlite")) as connection:
        steps = [row[0] for row in connection.execute("SELECT checkpoint_id FROM checkpoints ORDER BY checkpoint_id")]
    assert len(steps) >= 9
    for cut in steps[:-1]:
        shutil.rmtree(part := tmp_path / "part", ignore_errors=True)
        shutil.copytree(whole, part)
        with closing(sqlite3.connect(part / "graph.sqlite")) as connection, connection:
            connection.execute("DELETE FROM checkpoints WHERE checkpoint_id > ?", (cut,))
            connection.execute(f"DELETE FROM writes WHERE checkpoint_id {'>' if written else '>='} ?", (cut,))
        work, published = workbench(recording, part, config, proposer, judge)
        assert json.dumps(run_loop(work, thread="t")) == json.dumps(final)
        # the last step only asks whether a review is wanted; the one before it reports
        assert published == ([] if cut == steps[-2] or (written and cut == steps[-3]) else [expected])


def test_a_finished_loop_is_not_run_again(tmp_path: Path) -> None:
    """Run again on its own files, nothing is asked and nothing is published twice."""
    proposer, judge = scripted(tmp_path, asks("harm"))
    looped(*workbench(planted(0), tmp_path, config_of(), proposer, judge))
    calls = judge.calls
    work, published = workbench(planted(0), tmp_path, config_of(), proposer, judge)
    state = run_loop(work, thread="t")
    assert judge.calls == calls
    assert published == []
    assert [work.parameters[i].name for i in state["accepted"]] == ["harm"]


def test_the_state_holds_ids_and_numbers_only(tmp_path: Path) -> None:
    """No prompt and no response is kept in `graph.sqlite`: every step would store them all again."""
    recording = planted(0)
    proposer, judge = scripted(tmp_path, asks("harm"), asks("hedge"))
    looped(*workbench(recording, tmp_path, config_of(), proposer, judge))
    with closing(sqlite3.connect(tmp_path / "graph.sqlite")) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        stored = b"".join(repr(row).encode() for table in tables for row in connection.execute(f"SELECT * FROM {table}"))
    assert b"reply " not in stored
    assert b"Question " not in stored
    assert b"harm" in stored  # the ledger names what was tested


def test_progress_tells_what_happens(tmp_path: Path) -> None:
    """Each stage is reported with its numbers, in order."""
    seen: list[tuple[str, dict[str, Any]]] = []
    proposer, judge = scripted(tmp_path, asks("harm"), asks("hedge"))
    work, _ = workbench(planted(0), tmp_path, config_of(rounds=1), proposer, judge)
    work.progress = lambda name, numbers: seen.append((name, numbers))
    run_loop(work)
    assert [name for name, _ in seen] == ["loaded", "contrast", "proposed", "judged", "judged", "decided", "reported"]
    assert dict(seen)["loaded"] == {"responses": 480, "steps": 2}
    assert dict(seen)["decided"] == {"round": 1, "accepted": ["harm"], "tested": 2}


def test_the_loop_can_be_drawn() -> None:
    """The graph compiles without a checkpointer and names the boxes of the design."""
    names = set(build_graph().get_graph().nodes)
    assert {"load", "detect", "propose", "screen", "judge", "measure_and_decide", "report"} <= names


def test_the_onset_lies_where_the_change_was_planted(tmp_path: Path) -> None:
    """Along a run with a sharp change the transition and the accepted parameter's onset lie within two steps of it."""
    course = logistic_course(24, 12.0, 0.7)
    recording = planted(3, effects=(1.0, 0.0), n_prompts=10, n_each=10, course=course, anchors=(0, 8, 11, 13, 16, 23))
    findings = found(recording, tmp_path, asks("harm"), asks("hedge"))
    assert findings.transition is not None
    assert findings.transition.found
    assert findings.transition.peak.estimate == pytest.approx(11.5, abs=1.5)
    assert accepted(findings) == ["harm"]
    onset = findings.parameters[0].onset
    assert onset is not None
    assert onset.estimate == pytest.approx(12.0, abs=2.0)
