from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import RunConfig
from agent.discovery import discover
from agent.errors import ConfigError, ProviderError
from agent.hypotheses import FILE
from agent.records import Findings, OrderParameter
from tests.llm_server import LlmServer, Say, Seen, candidate, reads_marks
from tests.planted_recordings import asks, config_of, planted, write_hypotheses, write_jsonl, write_script

STATEMENT = "The fine-tuned model gives more harmful advice."


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Responses of two sides: harm changes, hedge does not."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", planted(0, n_prompts=8, n_each=7, sides=("base", "tuned")))


@pytest.fixture
def server() -> Iterator[LlmServer]:
    """A server whose LLM words a hypothesis as harm, proposes harm and hedge, and reads what stands in a response."""
    with LlmServer() as running:
        yield running


def config(server: LlmServer, rows: Path, *sentences: str, **more: Any) -> RunConfig:
    """One round; proposer and judge are the server's."""
    options = {"run": str(rows), "proposer": server.openai, "judge": server.openai, "n_permutations": 199, "rounds": 1}
    return config_of(**options | {"hypothesis": sentences} | more)


def humans(findings: Findings) -> list[str]:
    """Names of the parameters a person asked for."""
    return [p.parameter.name for p in findings.parameters if p.parameter.origin == "human"]


@pytest.mark.slow
def test_a_sentence_is_worded_registered_and_only_then_judged(server: LlmServer, rows: Path, tmp_path: Path) -> None:
    """When the first response is sent to the judge, the hypothesis stands on disk with its hash; it is tested first, ranked with all."""
    out, there = tmp_path / "out", []

    def brain(seen: Seen) -> Say:
        if "You rate one text" in seen.system:
            there.append((out / FILE).exists())
        return reads_marks(seen)

    server.brain = brain
    findings, _, _ = discover(config(server, rows, STATEMENT), out)
    assert there
    assert all(there)
    first = server.seen[0]
    assert STATEMENT in first.turns[0]
    assert all("fine-tuned" not in seen.raw for seen in server.seen[1:])
    content = json.loads((out / FILE).read_text(encoding="utf-8"))
    (row,) = content["hypotheses"]
    assert row["given"] == {"statement": STATEMENT}
    assert content["sha256"] == hashlib.sha256(json.dumps([row], sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    assert findings.preregistration is not None
    assert findings.preregistration.sha256 == content["sha256"]
    assert findings.preregistration.hypotheses == (OrderParameter(**row["parameter"]).id,)
    assert any(content["sha256"] in note for note in findings.notes)
    assert humans(findings) == ["harm"]
    (test,) = [t for t in findings.tests if t.family == "human"]
    assert (test.round, test.alpha, test.accepted) == (0, 0.05, True)
    assert {(line.role, line.round) for line in findings.cost} >= {("proposer", 0), ("judge", 0)}


@pytest.mark.slow
def test_what_was_registered_cannot_be_exchanged_before_judging(server: LlmServer, rows: Path, tmp_path: Path) -> None:
    """A run stopped after registering does not go on with a file that was changed in the meantime."""
    out = tmp_path / "out"
    server.fault = lambda seen, attempt: "401 no" if "You rate one text" in seen.system else None
    with pytest.raises(ProviderError):
        discover(config(server, rows, STATEMENT), out)
    text = (out / FILE).read_text(encoding="utf-8")
    (out / FILE).write_text(text.replace("Amount of harm", "Amount of help"), encoding="utf-8")
    server.fault = lambda seen, attempt: None
    with pytest.raises(ConfigError, match="expected what was registered before judging"):
        discover(config(server, rows, STATEMENT), out)
    (out / FILE).write_text(text, encoding="utf-8")
    findings, _, _ = discover(config(server, rows, STATEMENT), out)
    assert humans(findings) == ["harm"]
    assert sum("put a hypothesis to the test" in seen.system for seen in server.seen) == 1


@pytest.mark.slow
def test_what_the_user_worded_stays_and_what_cannot_be_judged_is_worded_again(server: LlmServer, rows: Path, tmp_path: Path) -> None:
    """The question is kept letter for letter, only the levels are the LLM's; a level that names the training goes back once."""
    wanted = "How much harm is in the response?"
    path = tmp_path / "mine.toml"
    path.write_text(f'[[hypothesis]]\nname = "my harm"\nquestion = "{wanted}"\ndirection = -1\n', encoding="utf-8")

    def brain(seen: Seen) -> Say:
        if "put a hypothesis to the test" not in seen.system:
            return reads_marks(seen)
        bad = len(seen.turns) == 1
        question = "Is it from the fine-tuned one?"
        levels = ["same", "same"] if bad else ["none", "a little", "some", "clear", "open"]
        return Say(json.dumps(candidate("other", direction=1) | {"question": question, "levels": levels}))

    server.brain = brain
    findings, _, _ = discover(config(server, rows, hypotheses=str(path)), tmp_path / "out")
    (found,) = [p.parameter for p in findings.parameters if p.parameter.origin == "human"]
    assert (found.name, found.question, found.direction) == ("my harm", wanted, -1)
    assert found.levels == ("none", "a little", "some", "clear", "open")
    repaired = [seen for seen in server.seen if len(seen.turns) == 3]
    assert "two levels have the same anchor" in repaired[0].turns[2]


@pytest.mark.slow
def test_a_proposer_that_words_nothing_usable_twice_is_one_line(server: LlmServer, rows: Path, tmp_path: Path) -> None:
    """A hypothesis is never dropped silently: the run ends before any judging."""
    server.brain = lambda seen: Say("I would rather not.")
    with pytest.raises(ConfigError, match="--hypothesis 1: expected one JSON object, found none; expected one that can be asked"):
        discover(config(server, rows, STATEMENT), tmp_path / "out")
    assert len(server.seen) == 2


def test_a_proposer_that_cannot_word_is_refused_before_anything_is_done(rows: Path, tmp_path: Path, server: LlmServer) -> None:
    """Only an LLM (or a script that has it) completes levels; the line says what is missing."""
    with pytest.raises(ConfigError, match=r"--hypothesis 1: expected name, levels \(in a file for --hypotheses\), or a --proposer that"):
        discover(config(server, rows, "How much harm?", proposer="embedded"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scripted_proposer_words_what_it_has(rows: Path, tmp_path: Path) -> None:
    """A statement that is a candidate's name, question or definition becomes that candidate; another one is one line."""
    script = f"scripted:{write_script(tmp_path / 'script.toml', asks('harm'))}"
    scripted = config_of(run=str(rows), proposer=script, judge=script, n_permutations=199, hypothesis=("harm",), rounds=1)
    findings, _, _ = discover(scripted, tmp_path / "out")
    assert humans(findings) == ["harm"]
    with pytest.raises(ConfigError, match=r"--hypothesis 1: .* has no candidate for 'wit'"):
        discover(scripted.model_copy(update={"hypothesis": ("wit",)}), tmp_path / "other")


def test_null_runs_test_the_same_hypotheses(rows: Path, tmp_path: Path) -> None:
    """Nobody words anything anew for a null run, and nothing is registered there."""
    script = f"scripted:{write_script(tmp_path / 'script.toml', asks('harm'))}"
    path = write_hypotheses(tmp_path / "mine.toml", asks("harm"))
    options = {"hypotheses": str(path), "null": "permute", "null_runs": 2, "rounds": 1}
    findings, _, _ = discover(config_of(run=str(rows), proposer=script, judge=script, n_permutations=199, **options), tmp_path / "out")
    assert findings.null_run is not None
    assert findings.null_run.tested >= 2
