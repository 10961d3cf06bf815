from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.doctor import check, check_all
from tests.llm_server import KEY, LlmServer, Say
from tests.test_batch import asker as batch_asker
from tests.test_batch import openai_row, put, waits, written

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_COMPATIBLE_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    """A server that lists two models to whoever has the key."""
    with LlmServer(models=("tiny", "large")) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.address)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{running.address}/v1")
        yield running


def test_without_keys_every_kind_says_what_it_lacks() -> None:
    """Nothing is asked of anybody; what is missing is named with what to do about it."""
    found = {one.provider: one for one in check_all(0.5, {})}
    assert found["embedded"].works
    assert found["anthropic:NAME"].lacks == ("a key: set ANTHROPIC_API_KEY",)
    assert found["openai:NAME"].lacks == ("a key: set OPENAI_API_KEY",)
    assert found["anthropic:NAME"].uses.startswith("anthropic 2.")
    assert not found["openai:NAME@http://…"].works
    assert found["hf:PATH"].works
    assert found["batch:DIR"].works


@pytest.mark.slow
def test_with_keys_the_models_are_listed(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the provider lists them; a name that is not listed does not work."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for spec in ("anthropic:tiny", "openai:tiny", server.openai):
        found = check(spec, 2.0)
        assert found.works
        assert found.models == ("large", "tiny")
        other = check(spec.replace("tiny", "huge"), 2.0)
        assert not other.works
        assert other.lacks[-1] == "a model of this name: huge is not listed"


def test_a_key_that_is_refused_is_said_without_showing_it(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the text nor the JSON holds a key, whatever the server or the address repeats."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong-0123456789abcdef")
    secret = "openai:tiny@http://me:sk-secret-123456@127.0.0.1:1/v1"
    for words in (["anthropic:tiny", secret], ["anthropic:tiny", secret, "--json"]):
        ended = CliRunner().invoke(app, ["doctor", *words])
        assert ended.exit_code == 1
        assert "a key that is accepted (401" in ended.output
        assert "sk-" not in ended.output


def test_a_server_that_is_not_there_lacks_an_answer() -> None:
    """Within the time that was given."""
    found = check("openai:tiny@http://127.0.0.1:9/v1", 0.5)
    assert not found.works
    assert found.lacks[0].startswith("a server that answers")


def test_servers_on_this_machine_are_found(server: LlmServer) -> None:
    """Where one listens on a usual port, its models are shown."""
    port = int(server.address.rpartition(":")[2])
    (found,) = (one for one in check_all(1.0, {port: "tests"}) if str(port) in one.provider)
    assert found.works
    assert found.models == ("large", "tiny")


def test_asked_it_says_what_it_answered_and_what_it_cannot(server: LlmServer) -> None:
    """One rating: the level, and whether log-probabilities came; an answer that cannot be read is no working provider."""
    rated = '{"level": 2, "quote": "please", "cannot_tell": false}'
    server.brain = lambda seen: Say(rated)
    plain = check(server.openai, 2.0, ask=True)
    assert (plain.works, plain.answered) == (True, "level 2")
    assert plain.lacks == ("log-probabilities: levels are not weighted",)
    server.brain = lambda seen: Say(rated, digits={"2": -0.1, "1": -3.0})
    assert check(server.openai, 2.0, ask=True).lacks == ()
    server.brain = lambda seen: Say("I would rather not say.")
    assert not check(server.openai, 2.0, ask=True).works


def test_a_batch_folder_says_what_is_open(tmp_path: Path) -> None:
    """Requests, answers, what is waited for and the first line that cannot be read."""
    waits(batch_asker(tmp_path), "a", "b", "c")
    put(tmp_path, "out.jsonl", openai_row(written(tmp_path)[0]["custom_id"]), "{broken")
    found = check(f"batch:{tmp_path}", 1.0)
    assert found.uses == "files: 3 requests, 1 answered"
    assert found.lacks == ("2 answers", "out.jsonl:2: expected a JSON object, found something else")


def test_models_in_the_cache_and_in_folders_are_told(tmp_path: Path) -> None:
    """The hub's cache is listed; a folder needs a configuration and safetensors."""
    (tmp_path / "hub" / "models--org--small").mkdir(parents=True)
    assert check("hf:", 1.0).models == ("org/small",)
    assert check("hf:org/small", 1.0).works
    assert "neither a folder" in check("hf:org/other", 1.0).lacks[0]
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "config.json").write_text("{}")
    assert "safetensors" in check(f"hf:{tmp_path / 'pickle'}", 1.0).lacks[0]


def test_json_is_all_there_is(tmp_path: Path) -> None:
    """`--json` prints a list that programs can read; what is no provider is one line in it."""
    ended = CliRunner().invoke(app, ["doctor", "embedded", "mistral:x", "--json"])
    assert ended.exit_code == 1
    embedded, unknown = json.loads(ended.output)
    assert embedded["works"] is True
    assert unknown["works"] is False
    assert "expected embedded" in unknown["lacks"][0]
