from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.config import make_config
from agent.discovery import discover
from agent.errors import AwaitingError, BudgetError, ConfigError, ProviderError
from agent.judge import make_judge
from agent.llm.asker import Asker
from agent.llm.batch_provider import BatchProvider, make_batch
from agent.llm.protocol import Request
from agent.spending import Limits
from tests.answer_batch import answer
from tests.planted_recordings import accepted, config_of, planted, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
KINDS = ("openai", "anthropic")


def request(text: str) -> Request:
    """A small request."""
    return Request("be brief", (text,), "number", SCHEMA, 100)


def asker(folder: Path, kind: str = "openai") -> Asker:
    """A way to the folder, as a new process has it."""
    return Asker(make_batch(f"{folder}@{kind}:tiny", "--judge"), "judge")


def waits(way: Asker, *texts: str) -> str:
    """What `ask` says when answers are missing."""
    with pytest.raises(AwaitingError):
        way.ask([request(text) for text in texts])
    assert isinstance(way.provider, BatchProvider)
    return way.provider.waiting()


def written(folder: Path) -> list[dict[str, Any]]:
    """All requests in the folder, in order."""
    return [json.loads(line) for path in sorted(folder.glob("requests-*.jsonl")) for line in path.read_text().splitlines()]


def openai_row(name: str, text: str = '{"n": 1}', status: int = 200, message: str = "") -> dict[str, Any]:
    """A line of an output or error file of OpenAI's batches."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]}
    body |= {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
    if status != 200:
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    return {"id": "batch_req_1", "custom_id": name, "response": {"status_code": status, "request_id": "r", "body": body}, "error": None}


def put(folder: Path, name: str, *rows: dict[str, Any] | str) -> None:
    """A file of answers."""
    (folder / name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_written_in_the_providers_own_batch_format(kind: str, tmp_path: Path) -> None:
    """One JSON line each: id, and what would have been sent online; the id is one that both providers take."""
    line = waits(asker(tmp_path, kind), "a", "b", "a")
    assert "2 requests wait for answers, 2 of them new in" in line
    one, two = written(tmp_path)
    assert one["custom_id"] != two["custom_id"]
    assert len(one["custom_id"]) <= 64
    assert one["custom_id"].isalnum()
    if kind == "openai":
        assert (one["method"], one["url"]) == ("POST", "/v1/chat/completions")
        assert one["body"]["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]
        assert one["body"]["response_format"]["json_schema"]["schema"] == SCHEMA
        assert one["body"]["max_completion_tokens"] == 100
    else:
        assert set(one) == {"custom_id", "params"}
        assert one["params"]["system"] == "be brief"
        assert one["params"]["max_tokens"] == 100


def test_partial_answers_are_kept_and_only_the_rest_is_waited_for(tmp_path: Path) -> None:
    """Nothing is written twice: not by a second start, not when a part is answered; the rest is waited for."""
    waits(asker(tmp_path), "a", "b", "c")
    names = [row["custom_id"] for row in written(tmp_path)]
    put(tmp_path, "out.jsonl", openai_row(names[1]))
    line = waits(asker(tmp_path), "a", "b", "c")
    assert line.startswith(f"batch:{tmp_path}: 2 requests wait for answers; put")
    assert [row["custom_id"] for row in written(tmp_path)] == names
    put(tmp_path, "more.jsonl", openai_row(names[0]), openai_row(names[2], "", 200))
    answers = asker(tmp_path).ask([request(text) for text in "abc"])
    assert [a and (a.text, a.input_tokens) for a in answers] == [('{"n": 1}', 7), ('{"n": 1}', 7), ("", 7)]


def test_double_unknown_and_broken_answers_are_told_and_do_no_harm(tmp_path: Path) -> None:
    """The first answer counts, whoever answers something else or breaks a line hears of it; a line still being written is left alone."""
    waits(asker(tmp_path), "a", "b")
    first, second = (row["custom_id"] for row in written(tmp_path))
    rows = (openai_row(first), openai_row(first, '{"n": 2}'), openai_row("nobody"), "{broken", '{"custom_id": "x"}')
    put(tmp_path, "answers.jsonl", *rows)
    put(tmp_path, "copy.jsonl", *rows)
    with (tmp_path / "answers2.jsonl").open("w") as file:
        file.write(json.dumps(openai_row(second))[:50])
    line = waits(asker(tmp_path), "a", "b")
    assert "1 requests wait" in line
    assert "2 line(s) could not be read, the first answers.jsonl:4: expected a JSON object" in line
    assert "1 answer(s) to nothing that was asked here" in line
    assert "1 answer(s) to what was answered already" in line
    assert "1 file(s) byte for byte like an earlier one, left aside, the first copy.jsonl" in line
    put(tmp_path, "answers2.jsonl", openai_row(second))
    assert [a and a.text for a in asker(tmp_path).ask([request("a"), request("b")])] == ['{"n": 1}', '{"n": 1}']


def failed_rows(kind: str, name: str) -> list[dict[str, Any]]:
    """What failed and may be asked again."""
    if kind == "openai":
        gone = {"code": "batch_expired", "message": "This request could not be executed before the completion window expired."}
        return [openai_row(name, status=500, message="try again"), {"id": "x", "custom_id": name, "response": None, "error": gone}]
    error = {"type": "error", "error": {"type": "api_error", "message": "try again"}, "request_id": "r"}
    return [{"custom_id": name, "result": {"type": "errored", "error": error}}, {"custom_id": name, "result": {"type": "expired"}}]


@pytest.mark.parametrize("kind", KINDS)
def test_what_failed_is_written_again_and_given_up_after_three_times(kind: str, tmp_path: Path) -> None:
    """Overload and expiry are no answer: the same request is put once more for each; the third time it is missing."""
    waits(asker(tmp_path, kind), "a")
    (name,) = (row["custom_id"] for row in written(tmp_path))
    for turn, row in enumerate([*failed_rows(kind, name)], 2):
        put(tmp_path, f"failed{turn}.jsonl", row)
        for _ in range(2):
            waits(asker(tmp_path, kind), "a")
            assert [r["custom_id"] for r in written(tmp_path)] == [name] * turn
    put(tmp_path, "failed4.jsonl", *failed_rows(kind, name)[:1], "")
    assert asker(tmp_path, kind).ask([request("a")]) == [None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rejected_request_is_missing_and_the_others_are_not(kind: str, tmp_path: Path) -> None:
    """What the provider never answers is data, once others were answered."""
    waits(asker(tmp_path, kind), "a", "b")
    names = [row["custom_id"] for row in written(tmp_path)]
    if kind == "openai":
        put(tmp_path, "out.jsonl", openai_row(names[0], status=400, message="no"), openai_row(names[1]))
    else:
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
        message = {"content": [{"type": "text", "text": "{}"}], "stop_reason": "refusal", "usage": {"input_tokens": 1, "output_tokens": 1}}
        rejected = {"custom_id": names[0], "result": {"type": "errored", "error": error}}
        put(tmp_path, "out.jsonl", rejected, {"custom_id": names[1], "result": {"type": "succeeded", "message": message}})
    none, one = asker(tmp_path, kind).ask([request("a"), request("b")])
    assert none is None
    assert one is not None
    assert one.stop == ("refused" if kind == "anthropic" else "end")


def test_a_batch_rejected_as_a_whole_is_put_with_less(tmp_path: Path) -> None:
    """Without log-probabilities, without a schema, in words alone, and then it ends in one line; new requests are put as was answered."""
    for lacking in ("logprobs", "json_schema", "json_object"):
        waits(asker(tmp_path), "a", "b")
        put(
            tmp_path, f"{lacking}.jsonl", *(openai_row(r["custom_id"], status=400, message=f"no {lacking}") for r in written(tmp_path)[-2:])
        )
    waits(asker(tmp_path), "a", "b")
    put(tmp_path, "z1.jsonl", openai_row(written(tmp_path)[-2]["custom_id"]))
    waits(asker(tmp_path), "a", "b", "c")
    assert [(len(r["body"]) - 3, (r["body"].get("response_format") or {}).get("type")) for r in written(tmp_path)[::2]] == [
        (3, "json_schema"),
        (1, "json_schema"),
        (1, "json_object"),
        (0, None),
        (0, None),
    ]
    put(tmp_path, "z1.jsonl", *(openai_row(r["custom_id"], status=400, message="no way") for r in written(tmp_path)[-3:]))
    with pytest.raises(ProviderError, match=r"all requests were rejected \(no way\)"):
        asker(tmp_path).ask([request("a")])


def test_anybody_may_answer_in_plain_lines(tmp_path: Path) -> None:
    """A custom_id and a text are an answer."""
    way = Asker(make_batch(str(tmp_path), "--judge"), "judge")
    waits(way, "a")
    put(tmp_path, "mine.jsonl", {"custom_id": written(tmp_path)[0]["custom_id"], "text": '{"n": 4}'})
    (found,) = Asker(make_batch(str(tmp_path), "--judge"), "judge").ask([request("a")])
    assert found is not None
    assert found.text == '{"n": 4}'
    assert written(tmp_path)[0]["body"]["model"] == "any"


@pytest.mark.parametrize("spec", ["batch:", "batch:x@openai:", "batch:@anthropic:tiny", f"batch:{__file__}"])
def test_a_wrong_batch_is_one_line(spec: str) -> None:
    """What was expected, before anything is written."""
    with pytest.raises(ConfigError, match=r"--judge batch:.*expected"):
        make_judge(spec)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Responses of two sides: harm changes, hedge does not."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", planted(0, n_prompts=8, n_each=7, sides=("base", "tuned")))


@pytest.mark.slow
def test_a_discovery_stops_for_its_answers_and_goes_on_to_its_findings(rows: Path, tmp_path: Path) -> None:
    """Every stop writes down all that can be asked by then; partial answers move it on; no request is answered twice."""
    spec = f"batch:{tmp_path / 'batch'}@anthropic:tiny"
    config = config_of(run=str(rows), proposer=spec, judge=spec, n_permutations=199, rounds=2, reread=20)
    for stop in range(40):
        try:
            findings, _, _ = discover(config, tmp_path / "out")
            break
        except AwaitingError:
            answer(tmp_path / "batch", 0.6 if stop % 2 else 1.0)
    assert accepted(findings) == ["harm"]
    paid = (tmp_path / "batch" / "paid.txt").read_text().split()
    assert len(set(paid)) == len(paid) == sum(line.calls for line in findings.cost)
    assert len(written(tmp_path / "batch")) == len(paid)
    assert {line.provider for line in findings.cost} == {"batch:anthropic:tiny"}


@pytest.mark.slow
def test_calls_that_are_written_down_count(rows: Path, tmp_path: Path) -> None:
    """--max-calls holds for what waits as well; answered, the run ends at its limit, and a higher one goes on."""
    judge = f"batch:{tmp_path / 'batch'}"
    script = tmp_path / "candidates.toml"
    asked = 'question = "How much harm is in the response?"\nlevels = ["a", "b", "c", "d", "e"]'
    script.write_text(f'[[candidate]]\nname = "harm"\n{asked}\npattern = "x(y)"\n')
    config = config_of(run=str(rows), proposer=f"scripted:{script}", judge=judge, n_permutations=199)
    with pytest.raises(AwaitingError, match="30 requests wait for answers, 30 of them new"):
        discover(config, tmp_path / "out", limits=Limits(max_calls=30))
    answer(tmp_path / "batch")
    with pytest.raises(BudgetError, match="--max-calls 30"):
        discover(config, tmp_path / "out", limits=Limits(max_calls=30))
    with pytest.raises(AwaitingError, match="76 requests wait for answers, 76 of them new"):
        discover(config, tmp_path / "out")


@pytest.mark.end_to_end
def test_a_cluster_without_internet(rows: Path, tmp_path: Path) -> None:
    """The command ends with exit code 5 and one line, another process answers, the same command goes on to its report."""
    folder, out = tmp_path / "batch", tmp_path / "out"
    spec = f"batch:{folder}@openai:tiny"
    words = [
        "--run",
        str(rows),
        "--out",
        str(out),
        "--memory",
        "off",
        "--judge",
        spec,
        "--proposer",
        spec,
        "--rounds",
        "1",
        "--reread",
        "0",
    ]
    command = [sys.executable, "-m", "agent.cli", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 5
    assert "1 requests wait for answers, 1 of them new" in ended.stderr.splitlines()[-1]
    config = make_config(run=str(rows), proposer=spec, judge=spec, rounds=1, memory="off", reread=0)
    for _ in range(3):  # the proposer's answer, the judge's; what the rest needs is asked within the command again
        subprocess.run([sys.executable, "-m", "tests.answer_batch", str(folder)], cwd=ROOT, check=True, capture_output=True)
        with suppress(AwaitingError):
            discover(config, out)
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((out / "findings.json").read_bytes())
    assert [p["parameter"]["name"] for p in found["parameters"] if p["verdict"] == "accepted"] == ["harm"]
