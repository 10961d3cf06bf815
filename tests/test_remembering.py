from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prompts
import prompts.reference
from agent.discovery import discover
from agent.evidence import ProposerView
from agent.fingerprints import fingerprint, known_fingerprint, reference_texts
from agent.graph import run_loop
from agent.judge import make_judge
from agent.llm.reading_proposer import _rejected as shown_as_tried
from agent.memory import Memory
from agent.memory_duplicates import MIN_MINORITY, MIN_SHARED_LABELS
from agent.nodes import is_confirmed_first
from agent.proposer import make_proposer
from agent.records import Findings, OrderParameter
from agent.remembered import Known, Remembered, read_snapshot, write_snapshot
from agent.remembering import _about, _tried, contrast_name, recall
from agent.workbench import Workbench
from probes.rules import RULES, levels
from prompts.errors import PromptError
from tests.planted_recordings import accepted, asks, config_of, found, planted, scripted, workbench, write_run, write_script
from tracing import load

# the reference responses


def test_reference_responses_tell_parameters_apart() -> None:
    """Twelve domains, 48 different texts, and most built-in rules vary on them enough for labels to decide."""
    found = prompts.reference.reference_responses()
    assert len(found) == len({one.completion for one in found}) == 48 > 2 * MIN_SHARED_LABELS
    assert len({one.domain for one in found}) == 12
    texts = [one.completion for one in found]
    minority = [len(texts) - int(np.bincount(levels(rule, texts)).max()) for rule in RULES.values()]
    assert sum(n >= MIN_MINORITY for n in minority) > len(RULES) / 2


def test_reference_responses_never_change() -> None:
    """Fingerprints of all runs so far hold only as long as every text stays as it is: a change is noticed here."""
    keys = "".join(sorted(key for key, *_ in reference_texts()))
    assert prompts.reference.digest_of(prompts.reference.reference_responses()) == "1b5167a0a4f302a6", keys[:16]


def test_a_broken_file_of_reference_responses_is_one_line(tmp_path: Path) -> None:
    """No questions, or an answer given twice, is said with the file's name."""
    (tmp_path / "one.toml").write_text("version = 1\n", encoding="utf-8")
    (tmp_path / "two.toml").write_text('[[question]]\ndomain = "d"\ntext = "t"\nanswers = ["a", "a"]\n', encoding="utf-8")
    for name, fault in (("one", "expected questions"), ("two", "expected different answers")):
        with pytest.raises(PromptError, match=rf"{name}.toml: {fault}"):
            prompts.reference.reference_responses(tmp_path / f"{name}.toml")


# candidates that say what was said before


def reads(name: str, rule: str, question: str = "", **more: Any) -> dict[str, Any]:
    """A scripted candidate that the judge reads as an exact rule reads it, though it has none: as an LLM would."""
    thresholds = RULES[rule].as_dict()["thresholds"]
    candidate = asks(name, question=question, levels=[f"level {k}" for k in range(len(thresholds) + 1)], **more)
    return {key: value for key, value in candidate.items() if key != "pattern"} | {"rule": RULES[rule].as_dict()}


def looped(folder: Path, *candidates: dict[str, Any], seed: int = 0, **options: Any) -> tuple[Findings, Workbench]:
    """A whole loop with an empty memory of its own."""
    (folder / "run").mkdir(parents=True)
    proposer, judge = scripted(folder, *candidates)
    config = config_of(memory=str(folder / "memory"), **options)
    work, published = workbench(planted(seed, n_prompts=8), folder / "run", config, proposer, judge)
    recall(work)
    run_loop(work)
    return published[-1], work


@pytest.mark.slow
def test_a_candidate_in_other_words_is_not_judged_again(tmp_path: Path) -> None:
    """Its labels on the reference responses give it away; the reason stands in the ledger, and no response of the run is read for it."""
    again = reads("sureness", "certainty", "To what degree are doubts absent here?", round=2)
    findings, work = looped(tmp_path, asks("harm"), reads("certainty", "certainty"), again, rounds=2, residual=0.0)
    (dropped,) = findings.screened
    assert (dropped.round, dropped.name) == (2, "sureness")
    assert dropped.reason == "says the same as “certainty” (labels correlate 1.00), rejected in this run"
    assert {t.name for t in findings.tests} == {"certainty", "harm"}
    twin = next(p for p in work.parameters.values() if p.name == "sureness")
    assert work.levels_by_text(twin) == {}
    assert len(known_fingerprint(work, twin)) == 48


@pytest.mark.slow
def test_other_labels_make_another_parameter_of_nearly_the_same_words(tmp_path: Path) -> None:
    """Words alone would take the two for one; the labels say no."""
    one = reads("certainty of tone", "certainty", "How much certainty of tone is in the response?")
    other = reads("certainty of tone again", "negation", "How much certainty of tone is in the response again?", round=2)
    findings, _ = looped(tmp_path, one, other, rounds=2)
    assert findings.screened == ()
    assert len(findings.tests) == 2


@pytest.mark.slow
def test_without_a_memory_nothing_is_compared_and_no_reference_is_read(tmp_path: Path) -> None:
    """--memory off: a candidate in other words is tested like any other, and only responses of the run are judged."""
    again = reads("sureness", "certainty", "To what degree are doubts absent here?", round=2)
    proposer, judge = scripted(tmp_path, reads("certainty", "certainty"), again)
    work, published = workbench(planted(0, n_prompts=8), tmp_path, config_of(rounds=2), proposer, judge)
    run_loop(work)
    assert published[-1].screened == ()
    assert {t.name for t in published[-1].tests} == {"certainty", "sureness"}
    assert judge.calls == 2 * len(work.texts)


def test_a_fingerprint_is_paid_for_once_and_a_rule_not_at_all(tmp_path: Path) -> None:
    """A judged parameter costs one judgement a reference response, ever; an exact rule is read by itself."""
    proposer, judge = scripted(tmp_path, reads("certainty", "certainty"))
    work, _ = workbench(planted(0, n_prompts=8), tmp_path, config_of(), proposer, judge)
    (judged,) = (c.parameter for c in proposer._candidates)
    rule = judged.model_copy(update={"rule": RULES["certainty"].as_dict()})
    assert known_fingerprint(work, judged) == {}
    assert fingerprint(work, judged) == fingerprint(work, judged) == known_fingerprint(work, judged)
    assert judge.calls == 48
    assert fingerprint(work, rule) == fingerprint(work, judged)
    assert judge.calls == 48


# what one run remembers and the next one does with it


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs in which harm moves and hedge does not; on the first of them a discovery with a memory was made, kept with examples."""
    folder = tmp_path_factory.mktemp("two")
    for seed in (0, 1):
        write_run(folder / f"run{seed}", planted(seed, n_prompts=8))
    write_script(folder / "script.toml", asks("harm"), asks("hedge"))
    discover(config(folder, 0, memory=str(folder / "memory"), memory_examples=True), folder / "first")
    return folder


def config(folder: Path, seed: int, **options: Any) -> Any:
    """A discovery on one of the two runs."""
    provider = f"scripted:{folder / 'script.toml'}"
    return config_of(**{"run": str(folder / f"run{seed}"), "proposer": provider, "judge": provider, "n_permutations": 199} | options)


@pytest.mark.slow
def test_every_event_of_a_parameter_is_kept(two_runs: Path) -> None:
    """Proposed, judged with its levels on the reference responses, decided with shares and intervals; examples as asked for."""
    with Memory.open(two_runs / "memory") as memory:
        by_name = {entry.parameter.name: entry for entry in memory.entries()}
        kinds = [(stored.kind, stored.event.parameter.name if stored.event.parameter else "") for stored in memory._ledger.events]
    assert kinds == [(kind, name) for name, end in (("harm", "accepted"), ("hedge", "rejected")) for kind in ("proposed", "judged", end)]
    harm, hedge = by_name["harm"], by_name["hedge"]
    assert (harm.status, hedge.status) == ("accepted", "rejected")
    ((judge, labels),) = harm.labels.items()
    assert judge.startswith("scripted:")
    assert labels.keys() == {key for key, *_ in reference_texts()}
    share = harm.best_share
    assert share is not None
    assert share.low is not None
    assert harm.runs[0].signature.keys() >= {"length", "certainty"}
    assert harm.examples
    assert "harm=" in harm.examples[0].before


@pytest.mark.slow
def test_no_response_leaves_the_run_unless_asked(two_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and data folder hold no passage of any response; with --memory-examples the evidence pairs are there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shutil.copytree(two_runs / "run0", tmp_path / "run0")
    shutil.copy(two_runs / "script.toml", tmp_path / "script.toml")
    discover(config(tmp_path, 0, memory=None), tmp_path / "out")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"How much harm is in the response?" in kept
    assert b"reply 1" not in kept
    assert b" well then perhaps" not in kept
    assert b"Question 1?" not in kept
    with_examples = b"".join(path.read_bytes() for path in (two_runs / "memory").rglob("*") if path.is_file())
    assert b" well then perhaps" in with_examples


@pytest.mark.slow
def test_what_was_accepted_elsewhere_is_judged_first_and_on_the_confirm_half(two_runs: Path, tmp_path: Path) -> None:
    """Round 1 of the next run asks for nothing new; what is rejected there was read on the confirm half only, what is accepted whole."""
    shutil.copytree(two_runs / "memory", tmp_path / "memory")
    findings, _, _ = discover(config(two_runs, 1, memory=str(tmp_path / "memory"), rounds=1), tmp_path / "out")
    assert accepted(findings) == ["harm"]
    assert [p.parameter.origin for p in findings.parameters] == ["memory"]
    assert "Tried first: 1 order parameter remembered from other runs." in findings.notes
    assert findings.parameters[0].course is not None
    with Memory.open(tmp_path / "memory") as memory:
        (harm,) = (entry for entry in memory.entries() if entry.parameter.name == "harm")
        assert [stored.kind for stored in memory._ledger.events if stored.parameter_id == harm.id][3:] == [
            "transferred",
            "judged",
            "accepted",
        ]
        assert len(harm.runs) == 2


@pytest.mark.slow
def test_what_is_remembered_and_rejected_here_costs_half(two_runs: Path, tmp_path: Path) -> None:
    """A parameter accepted elsewhere that does not move here is read on the confirm half alone, and reported without a course."""
    proposer, judge = scripted(tmp_path, asks("hedge"))
    (hedge,) = (c.parameter for c in proposer._candidates)
    config = config_of(memory=str(tmp_path / "memory"), rounds=1)
    work, published = workbench(planted(1, n_prompts=8), tmp_path, config, proposer, judge)
    write_snapshot(tmp_path, work.recording.digest, Remembered((Known(hedge.model_copy(update={"origin": "memory"}), "accepted there"),)))
    run_loop(work)
    assert is_confirmed_first(work, work.parameters[hedge.id])
    assert set(work.levels_by_text(hedge)) == {key for key, *_ in work.texts_at(work.confirm_rows)} != {key for key, *_ in work.texts}
    (shown,) = published[-1].parameters
    assert (shown.verdict, shown.course, shown.onset) == ("rejected", None, None)
    assert shown.share.estimate is not None


@pytest.mark.slow
def test_what_was_tried_in_vain_on_a_like_change_is_not_tried_again(two_runs: Path, tmp_path: Path) -> None:
    """It is in the snapshot with its reason and shown to the proposer as tried; where the change was unlike, it is not."""
    proposer, judge = scripted(tmp_path, asks("style"))
    work, _ = workbench(planted(1, n_prompts=8), tmp_path / "out", config_of(memory=str(two_runs / "memory")), proposer, judge)
    (tmp_path / "out").mkdir()
    recall(work)
    (tried,) = work.remembered.tried
    assert tried.parameter.name == "hedge"
    assert tried.why.startswith("rejected on another run: ")
    with Memory.open(two_runs / "memory") as memory:
        unlike = {name: -value for name, value in memory.entries()[0].runs[0].signature.items()}
    view = ProposerView(1, 1, *([],) * 3, *(np.empty(0),) * 5, [], np.empty((0, 0)), [tried.parameter], [], [tried.why])
    assert shown_as_tried(view) == f"- hedge: How much hedge is in the response? ({tried.why})"
    with Memory.open(two_runs / "memory") as memory:
        assert _tried(work, memory.entries(), unlike) == ()


def test_a_snapshot_comes_back(tmp_path: Path) -> None:
    """What was known when a discovery started is read again as it was; no file is nothing known."""
    assert read_snapshot(tmp_path) == Remembered()
    one = OrderParameter(name="a", definition="d", question="q?", levels=("no", "yes"), origin="memory")
    known = Known(one, "rejected on another run: too small", {"judge": {"key": 1, "other": None}})
    remembered = Remembered((known,), (Known(one), known))
    write_snapshot(tmp_path, "0" * 64, remembered)
    assert read_snapshot(tmp_path) == remembered


@pytest.mark.slow
def test_a_repeated_discovery_does_not_learn_from_itself(two_runs: Path, tmp_path: Path) -> None:
    """Only what other runs or other contrasts of this run said is recalled."""
    proposer, judge = scripted(tmp_path, asks("style"))
    recording = load(two_runs / "run0")
    work, _ = workbench(recording, tmp_path, config_of(run=str(two_runs / "run0"), memory=str(two_runs / "memory")), proposer, judge)
    with Memory.open(two_runs / "memory") as memory:
        assert {run.provenance.contrast for entry in memory.entries() for run in entry.runs} == {contrast_name(work)}
    recall(work)
    assert work.remembered == Remembered()


def test_events_carry_the_hashes_of_what_was_asked(tmp_path: Path) -> None:
    """An LLM's parameter names both templates; an exact rule was read by nobody, a remembered one was not proposed here."""
    address = "openai:tiny@http://127.0.0.1:9/v1"
    findings = found(planted(0, n_prompts=8), tmp_path, asks("harm"), rounds=1)
    work, _ = workbench(planted(0, n_prompts=8), tmp_path, config_of(), make_proposer(address), make_judge(address))
    worded = OrderParameter(name="a", definition="d", question="q?", levels=("no", "yes"))
    counted = worded.model_copy(update={"rule": RULES["lists"].as_dict(), "origin": "memory"})
    events = [_about(parameter, 1, findings, work) for parameter in (worded, counted)]
    hashes = prompts.hashes()
    assert [(e.judge_template, e.proposer_template) for e in events] == [(hashes["judge"], hashes["propose"]), ("", "")]
