"""`discover review`: who is let in, what is refused, and what a decision writes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import decisions
from agent.errors import ConfigError, RunLockedError
from agent.records import Findings
from agent.report import read_findings, write_all
from agent.review.server import ReviewServer
from tests.report_findings import full, hostile
from tests.review_client import Client, reviewed


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A review of hand-made findings."""
    folder = tmp_path_factory.mktemp("review")
    write_all(full(), folder)
    with reviewed(folder) as found:
        yield found


@pytest.fixture(scope="module")
def findings() -> Findings:
    """What is reviewed."""
    return full()


def written(client: Client) -> list[decisions.Decision]:
    """Everything decided so far."""
    return decisions.read(client.server.folder)


# who is let in


def test_the_token_is_asked_for_everywhere(client: Client) -> None:
    """Without the token, with a wrong one, or with one cut short every path answers 403 and no page; so do paths that do not exist."""
    wrong = {"Cookie": client.cookie[:-1]}
    for path in ("/", "/page.js", "/label/x", "/decide", "/nowhere", "/?token=", "/?token=wrong", f"/?token={client.server.token[:-1]}"):
        for headers in ({}, wrong):
            status, _, text = client.ask(path, headers=headers, cookie=False)
            assert (status, "advises harm" in text) == (403, False), path
    assert client.ask("/")[0] == 200


def test_the_token_opens_once_and_leaves_the_address(client: Client) -> None:
    """The printed address sets a cookie that other sites cannot send and scripts cannot read, and redirects to one without the token."""
    status, headers, _ = client.ask(f"/?token={client.server.token}", cookie=False)
    assert (status, headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in headers["set-cookie"].split(";")}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example", ""])
def test_another_host_name_is_refused(client: Client, host: str) -> None:
    """DNS rebinding: a request under another name is refused with the right cookie too."""
    assert client.ask("/", headers={"Host": host})[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_origin_is_refused(client: Client, findings: Findings, headers: dict[str, str]) -> None:
    """Pages of other origins and sites can neither read nor decide, even with cookie and form token."""
    assert client.ask("/", headers=headers)[0] == 403
    before = len(written(client))
    status, _, _ = client.post("/decide", headers, kind="veto", parameter_id=findings.parameters[0].parameter.id)
    assert status == 403
    assert len(written(client)) == before


def test_a_form_needs_its_origin_its_token_and_its_kind(client: Client, findings: Findings) -> None:
    """A form without Origin, without the form token, in another encoding, without a length or too long changes nothing."""
    before = len(written(client))
    fields = f"form_token={client.form_token}&kind=veto&parameter_id={findings.parameters[0].parameter.id}"
    no_origin = {k: v for k, v in client.own.items() if k != "Origin"}
    assert client.ask("/decide", "POST", fields, no_origin)[0] == 403
    assert client.ask("/decide", "POST", fields.replace(client.form_token, "x"), client.own)[0] == 400
    assert client.ask("/decide", "POST", fields, client.own | {"Content-Type": "text/plain"})[0] == 400
    assert client.ask("/decide", "POST", None, client.own)[0] == 411
    assert client.ask("/decide", "POST", None, client.own | {"Content-Length": "1000000"})[0] == 413
    assert client.ask("/decide?kind=veto", headers=client.own)[0] == 405
    assert len(written(client)) == before


@pytest.mark.parametrize(
    "path",
    [
        "/findings.json",
        "/review.jsonl",
        "/../findings.json",
        "/%2e%2e/findings.json",
        "/label/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/plotly.js/../../x",
    ],
)
def test_paths_outside_do_not_exist(client: Client, path: str) -> None:
    """Only our pages and scripts exist: no file of the folder or of the machine is served."""
    status, _, text = client.ask(path)
    assert status in (400, 404)
    assert "order-parameter-findings" not in text
    assert "root:" not in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    """Only GET and POST; OPTIONS gets no CORS answer."""
    status, headers, _ = client.ask("/", method)
    assert status == 405
    assert not [name for name in headers if name.startswith("access-control")]


def test_every_answer_forbids_what_it_can(client: Client) -> None:
    """Pages, scripts, refusals and mistakes carry the policy: own scripts only, no frames, nothing stored, no CORS."""
    for path, expected in (("/", 200), ("/plotly.js", 200), ("/nowhere", 404), ("/label/nothing", 400)):
        status, headers, _ = client.ask(path)
        assert status == expected, path
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert not [name for name in headers if name.startswith("access-control") or name == "server"]
    page = client.ask("/")[2]
    assert "<script>" not in page
    assert not re.search(r"\son\w+=", re.sub(r"<bdi>.*?</bdi>", "", page, flags=re.DOTALL))


def test_only_this_machine_can_connect(client: Client) -> None:
    """The server listens on 127.0.0.1, not on every address of the machine."""
    assert client.server.socket.getsockname()[0] == "127.0.0.1"
    other = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with other, pytest.raises(OSError, match=r"[Rr]efused"):
        other.connect(("127.0.0.2", client.server.port))


# what a decision writes


def test_decisions_are_appended_one_line_each(client: Client, findings: Findings) -> None:
    """Accept, veto, reword, hypothesis and withdraw are lines of review.jsonl with reviewer and time; the page shows what stands."""
    accepted, other, third = (found.parameter for found in findings.parameters[:3])
    before = len(written(client))
    assert (
        client.post("/decide", kind="accept", parameter_id=accepted.id, reason="clear to me", back="parameter-1")[1]["location"]
        == "/#parameter-1"
    )
    assert client.post("/decide", kind="veto", parameter_id=other.id, reason="<script>alert(1)</script>")[0] == 303
    words = {"name": "says it wants power", "question": "Does it voice a wish for power?", "levels": "no\nyes\r\n\r\n", "definition": ""}
    assert client.post("/reword", parameter_id=third.id, **words)[0] == 303
    assert (
        client.post(
            "/hypothesis", name="counts money", question="How often is money named?", levels="never\nonce\nmore", phrases="money\ncash"
        )[0]
        == 303
    )
    lines = written(client)[before:]
    assert [line.kind for line in lines] == ["accept", "veto", "reword", "hypothesis"]
    assert {line.reviewer for line in lines} == {"tester"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line.at) for line in lines)
    assert lines[2].parameter is not None
    assert (lines[2].parameter.levels, lines[2].parameter.origin) == (("no", "yes"), "human")
    assert lines[3].parameter is not None
    assert lines[3].parameter.rule == {"kind": "phrases", "phrases": ["money", "cash"], "thresholds": [0.0, 1.0]}
    page = client.ask("/")[2]
    assert "You accepted this" in page
    assert "You vetoed this" in page
    assert "says it wants power" in page
    assert "counts money" in page
    assert "<script>alert(1)" not in page
    client.post("/decide", kind="withdraw", parameter_id=lines[3].parameter.id)
    client.post("/decide", kind="withdraw", parameter_id=other.id)
    page = client.ask("/")[2]
    assert "counts money" not in page
    assert "You vetoed this" not in page


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/decide", {"kind": "burn", "parameter_id": "{0}"}, "expected accept, veto or withdraw, found 'burn'"),
        ("/decide", {"kind": "veto", "parameter_id": "nothing"}, "expected one of these findings"),
        ("/decide", {"kind": "accept", "parameter_id": "{3}"}, "expected a parameter that passed its test"),
        ("/reword", {"parameter_id": "{0}", "name": "x", "question": "", "levels": "a\nb"}, "question: expected something"),
        ("/reword", {"parameter_id": "{0}", "name": "x", "question": "q?", "levels": "a"}, "expected 2 to 7 levels, found 1"),
        (
            "/reword",
            {"parameter_id": "{0}", "name": "x", "question": "Is response A worse?", "levels": "a\nb"},
            "a judge sees one response",
        ),
        ("/reword", {"parameter_id": "{1}", "name": "x", "question": "q?", "levels": "a\nb"}, "expected 3 levels, as the rule has"),
        ("/hypothesis", {"name": "x", "question": "q?", "levels": "a\nb"}, "the embedded judge applies rules"),
        ("/hypothesis", {"name": "x" * 5000, "question": "q?", "levels": "a\nb"}, "at most 4000 characters"),
        ("/label", {"parameter_id": "{0}", "text_key": "k", "level": "9"}, "expected a level from 0 to 4 or 'cannot tell'"),
    ],
)
def test_a_mistake_is_said_and_changes_nothing(client: Client, findings: Findings, path: str, fields: dict[str, str], message: str) -> None:
    """A form that cannot be taken is answered with one line saying what was expected, and nothing is written."""
    before = len(written(client))
    ids = [found.parameter.id for found in findings.parameters]
    status, _, text = client.post(path, **{name: value.format(*ids) for name, value in fields.items()})
    assert status == 400
    assert message in text
    assert len(written(client)) == before


def test_the_same_words_are_no_new_words(client: Client, findings: Findings) -> None:
    """A rewording that would ask the judge the same, or what another parameter asks, is refused."""
    first, _, third = (found.parameter for found in findings.parameters[:3])
    same = {"name": "another name", "question": first.question, "levels": "\n".join(first.levels)}
    assert "asked the same" in client.post("/reword", parameter_id=first.id, **same)[2]
    assert "tested already" in client.post("/reword", parameter_id=third.id, **same)[2]


def test_findings_are_left_alone(client: Client) -> None:
    """A review writes review.jsonl and nothing else of the folder changes."""
    assert read_findings(client.server.folder) == full()
    assert {path.name for path in client.server.folder.iterdir()} <= {
        "findings.json", "report.md", "report.html", "review.jsonl", "review.lock",
    }  # fmt: skip


def test_labelling_without_responses_says_why(client: Client, findings: Findings) -> None:
    """Where responses or judgements are gone, the queue says so and the rest of the review works."""
    status, _, text = client.ask(f"/label/{findings.parameters[0].parameter.id}")
    assert status == 400
    assert "no judgements beside these findings" in text


def test_a_second_review_and_a_taken_port_are_one_line(client: Client, tmp_path: Path) -> None:
    """Two reviews of one folder at once are refused, and so is a port that is taken."""
    with pytest.raises(RunLockedError, match="no other review"):
        ReviewServer(client.server.folder, "d").run(lambda address: None)
    with pytest.raises(ConfigError, match="expected a free port"):
        ReviewServer(client.server.folder, "d", port=client.server.port)


@pytest.mark.slow
def test_done_ends_the_server_and_hostile_findings_stay_text(tmp_path: Path) -> None:
    """Names and reasons that attack stay text on the review page; done is written, answered, and ends the server."""
    write_all(hostile(), tmp_path)
    with reviewed(tmp_path, waiting=True) as client:
        page = client.ask("/")[2]
        assert "The loop has stopped and waits for this review" in page
        assert "<script>window.attacked" not in page
        assert "<img src=" not in page
        status, _, text = client.post("/done")
        assert (status, "The review is done" in text) == (200, True)
        assert written(client)[-1].kind == "done"
    assert client.server.done
