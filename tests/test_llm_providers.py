from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError, ProviderError
from agent.llm.asker import Asker
from agent.llm.openai_provider import OPENAI_WAYS, OpenAIProvider
from agent.llm.protocol import Answer, Request
from agent.llm.providers import make_provider
from tests.llm_server import FAULTS, KEY, LlmServer, Say, Seen
from tracing.judgements import JudgementStore

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
KINDS = ("anthropic", "openai", "openai itself")


def echo(seen: Seen) -> Say:
    """Says the last words it was sent."""
    return Say(json.dumps({"said": seen.turns[-1][-20:]}))


def request(text: str = "hello", repeat: int = 0) -> Request:
    """A small request."""
    return Request("be brief", (text,), "number", SCHEMA, 100, repeat=repeat)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    """A server that echoes, with the key it accepts in the environment."""
    with LlmServer(brain=echo) as running:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{running.address}/v1")
        yield running


def asker(kind: str, server: LlmServer, timeout: float = 5.0, **more: Any) -> Asker:
    """A way to the server."""
    specs = {"anthropic": "anthropic:tiny", "openai": server.openai, "openai itself": "openai:tiny"}
    provider = make_provider(specs[kind], "--judge")
    provider.timeout = timeout
    return Asker(provider, "judge", pause=0.01, **more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_arrives_whole_and_its_answer_comes_back(kind: str, server: LlmServer) -> None:
    """System text, turns, schema and length are sent as given; the text, why it ended and the tokens come back as counted."""
    sent = Request("be brief", ("ab" * 9, "first", "again"), "number", SCHEMA, 77, lead=4)
    (answer,) = asker(kind, server).ask([sent])
    (seen,) = server.seen
    assert (seen.system, seen.turns) == ("be brief", ["ab" * 9, "first", "again"])
    assert seen.body["model"] == "tiny"
    form: Any
    if kind == "anthropic":
        length, form = seen.body["max_tokens"], seen.body["output_config"]["format"]
    elif kind == "openai":
        length, form = seen.body["max_tokens"], seen.body["response_format"]["json_schema"]
    else:
        length, form = seen.body["max_output_tokens"], seen.body["text"]["format"]
        assert seen.path == "/v1/responses"
        assert seen.body["store"] is False
    assert length == 77
    assert form["schema"] == SCHEMA
    assert answer == Answer('{"said": "again"}', "end", len(seen.raw) // 4 + 1, 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stop", "text"), [("truncated", '{"n": '), ("refused", "")])
def test_truncation_and_refusal_are_told_apart_from_an_end(kind: str, stop: str, text: str, server: LlmServer) -> None:
    """An answer that was cut short or declined says so, whatever the provider calls it."""
    server.brain = lambda seen: Say(text, stop)
    (answer,) = asker(kind, server).ask([request()])
    assert answer is not None
    assert (answer.stop, answer.text) == (stop, text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_once_is_answered_once(kind: str, fault: str, server: LlmServer, tmp_path: Path) -> None:
    """Whatever goes wrong at first, the request is put again and its one answer kept."""
    server.fault = lambda seen, attempt: fault if attempt == 0 else None
    with JudgementStore(tmp_path / "j.sqlite") as store:
        (answer,) = asker(kind, server, timeout=0.3, store=store).ask([request()])
    assert answer is not None
    assert answer.text == '{"said": "hello"}'
    assert [seen.fault for seen in server.seen] == [fault, None]
    assert list(server.answered.values()) == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_answered_is_never_asked_again(kind: str, server: LlmServer, tmp_path: Path) -> None:
    """Equal requests are put once; a new process finds the answers in the store; another repeat or text is another request."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        first = asker(kind, server, store=store).ask([request("a"), request("b"), request("a")])
        assert len(server.seen) == 2
    with JudgementStore(tmp_path / "j.sqlite") as store:
        again = asker(kind, server, store=store)
        assert again.ask([request("a"), request("b"), request("a")]) == first
        assert len(server.seen) == 2
        again.ask([request("a", repeat=1), request("c")])
        assert len(server.seen) == 4
        usages = store.usages()
    assert [usage["role"] for usage in usages] == ["judge"] * 4
    assert all(usage["input_tokens"] > 0 for usage in usages)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_provider_that_fails_stops_in_one_line_and_what_was_answered_stays(kind: str, server: LlmServer, tmp_path: Path) -> None:
    """After some answers every request fails: one line says so and that it can be gone on with; the next attempt asks only for the rest."""
    requests = [request(f"n{k}") for k in range(12)]
    server.fault = lambda seen, attempt: None if seen.turns[0] in ("n0", "n1", "n2") else "overloaded"
    with JudgementStore(tmp_path / "j.sqlite") as store:
        with pytest.raises(ProviderError, match=r"not answered|529.*run the same command to go on") as caught:
            asker(kind, server, store=store, in_flight=4).ask(requests)
        assert "\n" not in str(caught.value)
        assert server.answered.total() == 3
        server.fault = lambda seen, attempt: None
        answers = asker(kind, server, store=store).ask(requests)
    assert [a is not None for a in answers] == [True] * 12
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == 12


@pytest.mark.parametrize(("fault", "line"), [("401 bad key", "401"), ("404 no such model", "404"), ("400 bad request", "400")])
@pytest.mark.parametrize("kind", KINDS)
def test_what_no_repetition_helps_costs_one_call(kind: str, fault: str, line: str, server: LlmServer) -> None:
    """A refused key, an unknown name or a request the provider never understands ends the run before anything else is sent."""
    server.fault = lambda seen, attempt: fault
    with pytest.raises(ProviderError, match=line):
        asker(kind, server).ask([request(f"n{k}") for k in range(50)])
    assert len(server.seen) <= len(OPENAI_WAYS)


@pytest.mark.parametrize("kind", KINDS)
def test_one_request_the_provider_rejects_is_missing_and_the_others_are_not(kind: str, server: LlmServer) -> None:
    """A request that is too long is data: no answer for it, answers for the rest, also when it is the first."""
    server.fault = lambda seen, attempt: "400 prompt is too long" if len(seen.turns[0]) > 100 else None
    answers = asker(kind, server).ask([request("x" * 200), request("a"), request("y" * 200), request("b")])
    assert [a is None for a in answers] == [True, False, True, False]
    assert len(server.seen) == 4


@pytest.mark.parametrize("lacks", [(), ("logprobs",), ("logprobs", "json_schema"), ("logprobs", "json_schema", "json_object")])
def test_a_compatible_server_is_asked_for_what_it_can_do(lacks: tuple[str, ...], server: LlmServer) -> None:
    """What a server rejects is left out from the second request on; the answers are the same."""
    server.lacks = lacks
    way = asker("openai", server)
    answers = way.ask([request(f"n{k}") for k in range(6)])
    assert all(answers)
    assert isinstance(way.provider, OpenAIProvider)
    assert way.provider.way == len(lacks)
    assert len(server.seen) == 6 + len(lacks)


@pytest.mark.parametrize(("lacks", "path"), [(("logprobs",), "responses"), (("responses",), "chat/completions")])
def test_openai_itself_is_asked_by_responses_or_where_there_are_none_by_chat(lacks: tuple[str, ...], path: str, server: LlmServer) -> None:
    """An LLM without log-probabilities is asked without them, a gateway without Responses by chat.completions; one call is lost."""
    server.lacks = lacks
    answers = asker("openai itself", server).ask([request(f"n{k}") for k in range(4)])
    assert all(answers)
    assert [seen.path for seen in server.seen[1:]] == [f"/v1/{path}"] * 4


def test_log_probabilities_come_back_by_responses_too(server: LlmServer) -> None:
    """What could have stood where the level's digit stands, as by chat.completions."""
    server.brain = lambda seen: Say('{"level": 3, "quote": ""}', digits={"3": -0.5, "2": -1.0})
    (chat,), (responses,) = (asker(kind, server).ask([request()]) for kind in ("openai", "openai itself"))
    assert chat is not None
    assert responses is not None
    assert responses.alternatives == chat.alternatives
    assert responses.alternatives[-1].top == {"3": -0.5, "2": -1.0}


def test_connections_share_one_tls_context() -> None:
    """It is made once, whatever the number of batches."""
    from agent.llm.transport import tls

    assert tls() is tls()


def test_no_more_requests_are_in_flight_than_allowed(server: LlmServer) -> None:
    """The limit is reached and not passed."""
    server.latency = 0.05
    asker("openai", server, in_flight=5).ask([request(f"n{k}") for k in range(21)])
    assert server.most_in_flight == 5


def test_the_wait_a_rate_limit_asks_for_is_kept(server: LlmServer) -> None:
    """Retry-After decides how long the SDK waits before the next attempt."""
    server.retry_after_ms = 400
    server.fault = lambda seen, attempt: "rate limit" if attempt == 0 else None
    began = time.perf_counter()
    asker("openai", server).ask([request()])
    assert time.perf_counter() - began >= 0.4  # a wait that was asked for, no speed


def test_stopping_waits_for_what_is_on_its_way(server: LlmServer, tmp_path: Path) -> None:
    """After `stop` nothing more is sent, and everything that was sent is kept."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        way = asker("openai", server, store=store, in_flight=2)

        def stops_at_five(seen: Seen) -> Say:
            if seen.turns[0] == "n5":
                way.stop()
            return echo(seen)

        server.brain = stops_at_five
        with pytest.raises(ProviderError, match="stopped"):
            way.ask([request(f"n{k}") for k in range(40)])
        assert 6 <= len(server.seen) < 10
        assert len(store.usages()) == len(server.seen)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("anthropic:tiny", "ANTHROPIC_API_KEY"),
        ("openai:tiny", "OPENAI_API_KEY"),
        ("anthropic:", "expected anthropic:NAME"),
        ("openai:@http://127.0.0.1:1/v1", "expected openai:NAME"),
        ("openai:tiny@127.0.0.1:8000", "expected an address such as"),
        ("openai:tiny@http://user:sk-secret@127.0.0.1/v1", "without user, key or query"),
        ("openai:tiny@http://127.0.0.1/v1?key=sk-secret", "without user, key or query"),
        ("mistral:tiny", "expected embedded, scripted:FILE"),
    ],
)
def test_a_wrong_provider_is_one_line_without_its_key(spec: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is said before anything is sent, and no key is repeated in it."""
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        make_provider(spec, "--judge")
    assert line in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_key_for_openai_does_not_leave_for_another_server(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server given by its address gets its own key or none."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai-alone")
    asker("openai", server).ask([request("a")])
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "for-this-server")
    asker("openai", server).ask([request("b")])
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer none", "Bearer for-this-server"]
