from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.config import RunConfig
from agent.discovery import discover
from agent.errors import BudgetError, ConfigError, ProviderError
from agent.records import Findings
from agent.spending import Limits
from tests.llm_server import FAULTS, KEY, LlmServer, Seen
from tests.planted_recordings import accepted, config_of, planted, write_jsonl
from tracing.cost import price_of, summed
from tracing.judgements import JudgementStore

ROOT = Path(__file__).resolve().parents[2]
SHARE_FAILING = 0.3


def thirty_percent(seen: Seen, attempt: int) -> str | None:
    """Three attempts in ten fail, in one of seven ways, the same ones every time."""
    chance = hashlib.sha256(f"{seen.digest} {attempt}".encode()).digest()
    return FAULTS[chance[1] % len(FAULTS)] if chance[0] < 256 * SHARE_FAILING else None


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Responses of two sides: harm changes, hedge does not."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", planted(0, n_prompts=8, n_each=7, sides=("base", "tuned")))


@pytest.fixture(scope="module")
def server() -> Iterator[LlmServer]:
    """A server whose LLM proposes harm and hedge and reads what stands in a response."""
    with LlmServer() as running:
        yield running


@pytest.fixture(scope="module")
def faultless(server: LlmServer, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """The findings when nothing goes wrong."""
    findings, _, _ = discover(config(server, rows), tmp_path_factory.mktemp("faultless"), limits=Limits(in_flight=32))
    return findings


@pytest.fixture(autouse=True)
def _well_again(server: LlmServer, faultless: Findings) -> None:
    """Every test starts with a server that works and has seen nothing."""
    server.fault, server.hold_after = (lambda seen, attempt: None), None
    server.seen.clear()
    server.answered.clear()
    server._attempts.clear()


def config(server: LlmServer, rows: Path) -> RunConfig:
    """Proposer and judge are the server's; a repeat of a request looks the same to it, so nothing is read again."""
    return config_of(run=str(rows), proposer=server.openai, judge=server.openai, n_permutations=199, reread=0)


def same(findings: Findings, expected: Findings) -> bool:
    """Whether everything but the address of the file is the same, cost included."""
    return findings.model_dump() == expected.model_dump()


def test_an_llm_proposes_judges_and_is_paid_by_role_and_round(server: LlmServer, faultless: Findings) -> None:
    """What was planted is found by reading; the ledger holds every answered call with its tokens, and no price where none is known."""
    assert accepted(faultless) == ["harm"]
    assert {(line.role, line.round) for line in faultless.cost} >= {("proposer", 1), ("judge", 1)}
    assert all(line.usd is None and line.input_tokens > 0 and line.provider == server.openai for line in faultless.cost)
    harm = next(p for p in faultless.parameters if p.verdict == "accepted")
    assert any(pair.before_quote and "harm=" in pair.before_quote for pair in harm.evidence)


def test_with_three_in_ten_requests_failing_in_seven_ways_the_findings_are_the_same(
    server: LlmServer, rows: Path, faultless: Findings, tmp_path: Path
) -> None:
    """Every way of failing happens; the run completes, finds what the faultless one found, and no request is answered twice."""
    server.fault = thirty_percent
    findings, _, _ = discover(config(server, rows), tmp_path / "out", limits=Limits(in_flight=64, timeout=0.4))
    happened = [seen.fault for seen in server.seen if seen.fault]
    assert set(happened) == set(FAULTS)
    assert 0.2 < len(happened) / len(server.seen) < 0.4
    assert same(findings, faultless)
    assert set(server.answered.values()) == {1}
    assert server.answered.total() == sum(line.calls for line in findings.cost)


def test_the_other_wire_formats_survive_the_same_failures(
    server: LlmServer, rows: Path, faultless: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic proposes and OpenAI's Responses judge, three requests in ten failing: the same is accepted, nothing is answered twice."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.address}/v1")
    server.fault = thirty_percent
    mixed = config(server, rows).model_copy(update={"proposer": "anthropic:tiny", "judge": "openai:tiny", "rounds": 1})
    findings, _, _ = discover(mixed, tmp_path / "out", limits=Limits(in_flight=64, timeout=0.4))
    assert accepted(findings) == accepted(faultless)
    assert {seen.path for seen in server.seen} == {"/v1/messages", "/v1/responses"}
    assert set(server.answered.values()) == {1}


def test_killed_while_judging_it_goes_on_and_pays_nothing_twice(server: LlmServer, rows: Path, faultless: Findings, tmp_path: Path) -> None:
    """Kill -9 after 40 kept answers while three requests in ten fail, then run on: the same findings, every request answered once."""
    words = ["--run", str(rows), "--out", str(tmp_path / "out"), "--memory", "off", "--proposer", server.openai, "--judge", server.openai]
    command = [sys.executable, "-m", "agent.cli", *words, "--reread", "0", "--request-timeout", "2", "--in-flight", "64"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    server.fault = thirty_percent
    for kept in (40,):
        server.hold_after = kept
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            wait_for_answers(tmp_path / "out" / "judgements.sqlite", kept, child)
            child.send_signal(signal.SIGKILL)
            child.communicate()
        server.hold_after = None
        until_idle(server)
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert set(server.answered.values()) == {1}
    found = json.loads((tmp_path / "out" / "findings.json").read_bytes())
    assert [p["parameter"]["name"] for p in found["parameters"] if p["verdict"] == "accepted"] == accepted(faultless)
    assert sum(line["calls"] for line in found["cost"]) == server.answered.total() == sum(line.calls for line in faultless.cost)


def until_idle(server: LlmServer) -> None:
    """Until the server has let go of what a killed process had asked."""
    until = time.monotonic() + 10
    while server.in_flight and time.monotonic() < until:
        time.sleep(0.01)
    assert server.in_flight == 0


def wait_for_answers(path: Path, n: int, child: subprocess.Popen[str]) -> None:
    """Until n answers are on disk."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        assert child.poll() is None, child.communicate()[1]
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                try:
                    if connection.execute("SELECT count(*) FROM requests").fetchone()[0] >= n:
                        return
                except sqlite3.OperationalError:
                    pass  # not made yet
        time.sleep(0.02)
    raise AssertionError(f"{n} answers were not kept in time")


def test_a_failing_provider_stops_the_run_and_the_same_command_goes_on(
    server: LlmServer, rows: Path, faultless: Findings, tmp_path: Path
) -> None:
    """From the 40th answer on everything fails: one line. When the server is back, the rest is asked and the findings are the same."""
    server.fault = lambda seen, attempt: "overloaded" if server.answered.total() >= 40 else None
    with pytest.raises(ProviderError, match="run the same command to go on"):
        discover(config(server, rows), tmp_path / "out")
    server.fault = lambda seen, attempt: None
    findings, _, _ = discover(config(server, rows), tmp_path / "out")
    assert same(findings, faultless)
    assert set(server.answered.values()) == {1}


def test_calls_end_where_they_were_limited_and_a_higher_limit_goes_on(
    server: LlmServer, rows: Path, faultless: Findings, tmp_path: Path
) -> None:
    """--max-calls holds to the call, over several starts; what it cut short is taken up, and nothing is asked twice."""
    for limit in (30, 30, 70):
        with pytest.raises(BudgetError, match=f"--max-calls {limit}"):
            discover(config(server, rows), tmp_path / "out", limits=Limits(max_calls=limit))
        assert server.answered.total() == limit
    findings, _, _ = discover(config(server, rows), tmp_path / "out")
    assert same(findings, faultless)
    assert set(server.answered.values()) == {1}


def test_a_budget_in_dollars_is_never_overrun(server: LlmServer, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a known price the run ends before the budget would be passed, and the ledger of the stopped run stays below it."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.address)
    name = "anthropic:claude-haiku-4-5-20251001"
    priced = config_of(run=str(rows), proposer=name, judge=name, n_permutations=199)
    with pytest.raises(BudgetError, match=r"--budget-usd 0.08"):
        discover(priced, tmp_path / "out", limits=Limits(budget_usd=0.08))
    with JudgementStore(tmp_path / "out" / "judgements.sqlite") as store:
        (tokens,) = summed(store.usages(), "provider").values()
    price = price_of(name)
    assert price is not None
    assert tokens.calls == server.answered.total() == len(server.seen)
    assert 0.06 < price.usd(tokens) <= 0.08
    assert KEY not in everything_below(tmp_path)


def everything_below(folder: Path) -> str:
    """All bytes of all files."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in sorted(folder.rglob("*")) if path.is_file())


def test_no_key_is_in_any_file(server: LlmServer, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a run with failures, neither database nor report, log or configuration holds the key that every request carried."""
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", KEY)
    server.fault = lambda seen, attempt: "401 wrong key " + KEY if server.answered.total() >= 100 else None
    with pytest.raises(ProviderError) as caught:
        discover(config(server, rows), tmp_path / "out")
    assert KEY not in str(caught.value)
    server.fault = lambda seen, attempt: None
    discover(config(server, rows), tmp_path / "out")
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in server.seen)
    assert KEY not in everything_below(tmp_path)


def test_candidates_that_need_reading_are_refused_with_a_judge_of_rules(server: LlmServer, rows: Path, tmp_path: Path) -> None:
    """An LLM proposer with the embedded judge is one line before anything is written or spent."""
    mixed = config_of(run=str(rows), proposer=server.openai)
    with pytest.raises(ConfigError, match="expected --judge with an LLM"):
        discover(mixed, tmp_path / "out")
    assert server.seen == []
    assert not (tmp_path / "out").exists()


def test_a_proposer_that_refuses_leaves_a_note_and_no_discovery(server: LlmServer, rows: Path, tmp_path: Path) -> None:
    """Two rounds without candidates end the loop; the findings say why there are none."""
    from tests.llm_server import Say

    before: Any = server.brain
    server.brain = lambda seen: Say("", "refused")
    try:
        findings, _, _ = discover(config(server, rows), tmp_path / "out")
    finally:
        server.brain = before
    assert accepted(findings) == []
    assert sum("refused" in note for note in findings.notes) == 2
