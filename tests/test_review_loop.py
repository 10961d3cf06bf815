"""`--review`: the loop stops for a reviewer and goes on with what was decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent import decisions
from agent.config import RunConfig
from agent.decisions import Decision, standing
from agent.discovery import discover
from agent.errors import ConfigError
from agent.labelling import measure_judge, queue
from agent.marker import MARKER, awaits_review
from agent.memory import Memory
from agent.records import Findings, OrderParameter, ParameterFinding
from tests.planted_recordings import LEVELS, accepted, asks, config_of, planted, write_run, write_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which harm and hedge moved, and a script that proposes harm and can read all three."""
    folder = tmp_path_factory.mktemp("files")
    write_run(folder / "run", planted(0, effects=(0.9, 0.6, 0.0), n_prompts=8))
    readable = (asks("hurtfulness", pattern=r"\bharm=(\d)", round=99), asks("hedge", round=99), asks("style", round=99))
    write_script(folder / "script.toml", asks("harm"), *readable)
    return folder


def config(files: Path, **options: Any) -> RunConfig:
    """A discovery that stops for a review."""
    provider = f"scripted:{files / 'script.toml'}"
    return config_of(
        **{"run": str(files / "run"), "proposer": provider, "judge": provider, "n_permutations": 199, "residual": 0.0, "review": True}
        | options
    )


def digest(folder: Path) -> str:
    """The discovery a folder holds."""
    return (folder / MARKER).read_text().split()[0]


def worded(name: str) -> OrderParameter:
    """A parameter in a reviewer's words, which the script can read."""
    return OrderParameter(name=name, definition=f"{name}.", question=f"How much {name} is in the response?", levels=LEVELS, origin="human")


def by_name(findings: Findings) -> dict[str, ParameterFinding]:
    """Findings by the parameter's name."""
    return {found.parameter.name: found for found in findings.parameters}


def test_a_reviewers_session_changes_the_next_findings(files: Path, tmp_path: Path) -> None:
    """The loop stops after measuring; veto, rewording and hypothesis are taken in when the review is done, and nothing before."""
    first, folder, _ = discover(config(files), tmp_path)
    assert accepted(first) == ["harm"]
    assert awaits_review(folder)
    harm = by_name(first)["harm"].parameter
    own = digest(folder)
    decisions.append(folder, Decision(kind="reword", discovery=own, parameter_id=harm.id, parameter=worded("hurtfulness")))
    decisions.append(folder, Decision(kind="hypothesis", discovery=own, parameter_id=worded("hedge").id, parameter=worded("hedge")))
    again, _, _ = discover(config(files), tmp_path)
    assert again == first
    decisions.append(folder, Decision(kind="done", discovery=own))
    final, _, _ = discover(config(files), tmp_path)
    assert not awaits_review(folder)
    found = by_name(final)
    assert found["harm"].verdict == "vetoed"
    assert found["harm"].reason == "reworded by a reviewer as “hurtfulness”"
    assert accepted(final) == ["hurtfulness", "hedge"]
    assert {t.name: t.family for t in final.tests} == {"harm": "agent", "hurtfulness": "human", "hedge": "human"}
    assert [t.alpha for t in final.tests if t.name == "hedge"] <= [0.025]
    assert final.review is not None
    assert [d.kind for d in final.review.decisions] == ["reword", "hypothesis"]
    assert any("not pre-registered" in caution for caution in final.cautions)
    finished, _, before = discover(config(files), tmp_path)
    assert before
    assert finished == final


def test_a_veto_takes_out_and_the_search_goes_on(files: Path, tmp_path: Path) -> None:
    """A vetoed parameter leaves the joint share; a discovery finished without --review takes a review in when asked with it."""
    first, folder, _ = discover(config(files, review=False), tmp_path)
    harm = by_name(first)["harm"].parameter
    decisions.append(folder, Decision(kind="veto", discovery=digest(folder), parameter_id=harm.id, reason="an artefact"))
    decisions.append(folder, Decision(kind="done", discovery=digest(folder)))
    _, _, before = discover(config(files, review=False), tmp_path)
    assert before
    final, _, before = discover(config(files), tmp_path)
    assert not before
    assert by_name(final)["harm"].verdict == "vetoed"
    assert "an artefact" in by_name(final)["harm"].reason
    assert final.joint is None
    assert final.rounds > first.rounds or "rounds" in final.stopped


def test_labels_measure_the_judge(files: Path, tmp_path: Path) -> None:
    """Labels equal to the judge's give agreement 1, "cannot tell" is counted apart, and the numbers stand in the findings."""
    first, folder, _ = discover(config(files), tmp_path)
    harm = by_name(first)["harm"].parameter
    from tracing.judgements import JudgementStore

    with JudgementStore(folder / "judgements.sqlite") as store:
        judged = {key: row["level"] for key, row in store.get(first.judge, harm.id).items()}
    keys = queue(harm.id, judged)[:20]
    for key in keys[:-1]:
        decisions.append(folder, Decision(kind="label", discovery="other", parameter_id=harm.id, text_key=key, level=judged[key]))
    decisions.append(folder, Decision(kind="label", discovery="other", parameter_id=harm.id, text_key=keys[-1]))
    decisions.append(folder, Decision(kind="accept", discovery=digest(folder), parameter_id=harm.id, reason="as I read it"))
    decisions.append(folder, Decision(kind="done", discovery=digest(folder)))
    final, _, _ = discover(config(files), tmp_path)
    assert final.review is not None
    (agreed,) = final.review.agreement
    assert (agreed.labels, agreed.cannot_tell, agreed.n, agreed.exact, agreed.weighted_kappa) == (20, 1, 19, 1.0, 1.0)
    found = by_name(final)["harm"]
    assert found.verdict == "accepted"
    assert "confirmed by a reviewer: as I read it" in found.reason
    assert found.reliability["reviewer_exact_agreement"] == 1.0
    assert final.rounds == first.rounds


def test_the_memory_learns_the_reviewers_verdict(files: Path, tmp_path: Path) -> None:
    """A vetoed parameter is remembered as vetoed by a reviewer, and nothing is remembered before the review is taken in."""
    place = str(tmp_path / "memory")
    first, folder, _ = discover(config(files, memory=place), tmp_path / "out")
    with Memory.open(place) as memory:
        assert memory.entries() == []
    harm = by_name(first)["harm"].parameter
    decisions.append(folder, Decision(kind="veto", discovery=digest(folder), parameter_id=harm.id, reason="no"))
    decisions.append(folder, Decision(kind="done", discovery=digest(folder)))
    discover(config(files, memory=place), tmp_path / "out")
    with Memory.open(place) as memory:
        assert {(e.parameter.name, e.status) for e in memory.entries()} >= {("harm", "vetoed")}


def test_the_last_decision_stands_and_can_be_taken_back() -> None:
    """Of several decisions on one parameter the last one stands, withdraw clears, and those of other discoveries do not count."""
    new = worded("x")
    lines = [
        Decision(kind="veto", discovery="d", parameter_id="a"),
        Decision(kind="accept", discovery="d", parameter_id="a", reason="after all"),
        Decision(kind="veto", discovery="other", parameter_id="a"),
        Decision(kind="hypothesis", discovery="d", parameter_id=new.id, parameter=new),
        Decision(kind="done", discovery="d"),
        Decision(kind="withdraw", discovery="d", parameter_id=new.id),
        Decision(kind="veto", discovery="d", parameter_id="b"),
    ]
    first, now = standing(lines, "d", 1), standing(lines, "d")
    assert (first.of("a"), first.vetoed, first.added, first.reviews) == ("accept", {}, (new,), 1)
    assert (now.of("a"), now.of("b"), now.added, now.reviews) == ("accept", "veto", (), 1)
    assert standing(lines, "d", 0) == standing([], "d")


def test_a_broken_review_file_is_one_line(tmp_path: Path) -> None:
    """A line that is no decision is refused with file, line and what was found; a half-written last line is what a crash left."""
    (tmp_path / decisions.FILE).write_text('{"kind": "done", "discovery": "d"}\n{"kind": "burn", "discovery": "d"}\n{"ki')
    with pytest.raises(ConfigError, match=r"review\.jsonl:2: expected a reviewer's decision, found kind"):
        decisions.read(tmp_path)
    (tmp_path / decisions.FILE).write_text('{"kind": "done", "discovery": "d"}\n{"ki')
    decisions.append(tmp_path, Decision(kind="done", discovery="d"))
    assert [d.kind for d in decisions.read(tmp_path)] == ["done", "done"]
    assert all(json.loads(line) for line in (tmp_path / decisions.FILE).read_text().splitlines())


def test_the_queue_is_the_same_in_every_session_and_blind_to_the_judge() -> None:
    """The order depends on parameter and texts only, and differs between parameters; nothing judged in common measures nothing."""
    keys = [f"k{i}" for i in range(50)]
    assert queue("p", keys) == queue("p", reversed(keys)) != queue("q", keys)
    assert measure_judge(worded("x"), {("other", "k1"): 1}, {"k1": 1}) is None
