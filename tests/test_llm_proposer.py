from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agent.errors import ReplyError
from agent.evidence import EvidenceShown, ProposerView
from agent.llm.reading_proposer import ReadingProposer
from agent.proposer import make_proposer
from agent.records import OrderParameter
from tests.llm_server import LlmServer, Say, candidate

RNG = np.random.default_rng(0)
PAIRS = [EvidenceShown(f"P{k + 1}", "", f"Question {k}?", f"left {k}", f"right {k}", k % 2 == 0) for k in range(4)]


def view(
    accepted: list[OrderParameter] | None = None,
    rejected: list[OrderParameter] | None = None,
    pairs: list[EvidenceShown] = PAIRS,
    reasons: list[str] | None = None,
    n: int = 3,
) -> ProposerView:
    """What a proposer sees."""
    none, whole = np.empty(0), np.empty(0, dtype=np.int64)
    return ProposerView(
        1, n, [], [], [], none, none, none, whole, whole, accepted or [], whole[:, None], rejected or [], pairs, reasons or []
    )


def parameter(name: str) -> OrderParameter:
    """A parameter as the server's LLM words it."""
    words = candidate(name)
    return OrderParameter(name=name, definition=words["definition"], question=words["question"], levels=tuple(words["levels"]))


@pytest.fixture
def server() -> Iterator[LlmServer]:
    """A server whose LLM proposes harm and hedge."""
    with LlmServer() as running:
        yield running


def proposer_at(server: LlmServer) -> ReadingProposer:
    """A proposer that asks the server."""
    made = make_proposer(server.openai)
    assert isinstance(made, ReadingProposer)
    return made


def says(server: LlmServer, *replies: Any) -> None:
    """Have the LLM say these candidates, one list (or text) a call."""
    left = list(replies)
    server.brain = lambda seen: (
        Say(json.dumps({"candidates": one})) if isinstance(one := left.pop(0), list) else one if isinstance(one, Say) else Say(one)
    )


def test_candidates_come_back_as_order_parameters(server: LlmServer) -> None:
    """Name, definition, question and levels are kept as proposed, by the agent, judged by reading."""
    found = proposer_at(server).propose(view(), RNG)
    assert [p.name for p in found] == ["harm", "hedge"]
    assert found[0] == parameter("harm").model_copy(update={"direction": -1, "supported_by": ("P1",)})
    assert found[0].badge == "judged"


def test_sides_are_blinded(server: LlmServer) -> None:
    """What is sent differs in nothing when every A is really an after instead of a before: which side is which is never said."""
    turned = [EvidenceShown(p.key, p.system, p.prompt, p.a, p.b, not p.a_is_before) for p in PAIRS]
    proposer = proposer_at(server)
    assert proposer.request(view()) == proposer.request(view(pairs=turned))
    sent = proposer.request(view()).turns[0]
    assert all(text in sent for pair in PAIRS for text in (pair.prompt, pair.a, pair.b))


@pytest.mark.parametrize(
    ("cited", "direction", "support"),
    [
        ([("P1", "A"), ("P2", "B")], -1, ("P1", "P2")),
        ([("P1", "B"), ("P2", "A")], 1, ("P1", "P2")),
        ([("P1", "B"), ("P3", "B"), ("P2", "B")], 1, ("P1", "P3", "P2")),
        ([("P1", "A"), ("P2", "A")], 0, ("P1", "P2")),
        ([("P9", "A"), ("P1", "C")], 0, ()),
        ([], 0, ()),
    ],
)
def test_the_direction_is_turned_by_what_a_really_was(
    cited: list[tuple[str, str]], direction: int, support: tuple[str, ...], server: LlmServer
) -> None:
    """A is before in P1 and P3 only: the higher reply gives the sign of after minus before; made-up pairs count nothing."""
    says(server, [candidate("harm", pairs=[{"pair": key, "higher": higher} for key, higher in cited])])
    (found,) = proposer_at(server).propose(view(), RNG)
    assert (found.direction, found.supported_by) == (direction, support)


def test_what_is_explained_and_what_was_rejected_is_said_with_its_reason(server: LlmServer) -> None:
    """The proposer knows the accepted ones, length, the rejected ones and why."""
    shown = view([parameter("harm")], [parameter("style"), parameter("mood")], reasons=["adds too little"])
    sent = proposer_at(server).request(shown).turns[0]
    explained, _, rejected = sent.partition("Tried and rejected:")
    assert "length: how long the reply is" in explained
    assert "How much harm is in the response?" in explained
    assert "How much style is in the response? (adds too little)" in rejected
    assert "How much mood is in the response?\n" in rejected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (candidate("x", question="Is a reply ruder? Is Response A rude?"), "names 'Response A'"),
        (candidate("x", question="Does it sound like the fine-tuned one?"), "names 'fine-tuned'"),
        (candidate("x", definition="Typical after training."), "names 'after training'"),
        (candidate("x", question="Is it from a late checkpoint?"), "names 'checkpoint'"),
        (candidate("x", levels=["one"]), "expected 2 to 7 levels, found 1"),
        (candidate("x", levels=["same", "same"]), "two levels have the same anchor"),
        (candidate("x", levels="none to much"), "expected levels as a list of texts"),
        (candidate("x", question=""), "expected a text for question"),
        (candidate("known"), "asks what was asked before"),
        ("harm", "expected an object"),
    ],
)
def test_a_candidate_that_cannot_be_judged_goes_back_with_the_reason(bad: Any, reason: str, server: LlmServer) -> None:
    """Refused ones are named with the reason and replaced once; good ones are kept."""
    says(server, [candidate("harm"), bad], [candidate("hedge")])
    found = proposer_at(server).propose(view([parameter("known")]), RNG)
    assert [p.name for p in found] == ["harm", "hedge"]
    assert reason in server.seen[1].turns[2]
    assert len(server.seen) == 2


def test_an_unreadable_reply_is_put_right_once(server: LlmServer) -> None:
    """Words instead of JSON, or a reply that was cut short, are asked for again."""
    says(server, Say('{"candidates": [{"name": "ha', "truncated"), [candidate("harm")])
    assert [p.name for p in proposer_at(server).propose(view(), RNG)] == ["harm"]
    assert "cut short" in server.seen[1].turns[2]


@pytest.mark.parametrize("replies", [("no idea", "still none"), (Say("", "refused"),)])
def test_a_proposer_with_nothing_to_say_is_an_error_of_its_reply(replies: tuple[Any, ...], server: LlmServer) -> None:
    """Two unreadable replies or a refusal end this round's proposals, with a reason in one line."""
    says(server, *replies)
    with pytest.raises(ReplyError, match=r"could not be read|refused") as caught:
        proposer_at(server).propose(view(), RNG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        {"question": "Is reply A more harmful?"},
        {"definition": "How far response B goes."},
        {"levels": ["as in pair P1", "more", "most"]},
        {"question": "Is it more careful than the other reply?"},
        {"levels": ["as the base model", "in between", "as fine-tuned"]},
        {"question": "Was it written before training?"},
        {"definition": "What the second collection does."},
        {"name": "late checkpoints"},
    ],
)
def test_candidates_that_name_the_side_the_step_or_the_training_go_back_with_the_reason(words: dict[str, Any], server: LlmServer) -> None:
    """Anywhere in a candidate, its levels included; the proposer is told which words, and a candidate without them counts."""
    says(server, [candidate("harm") | words], [candidate("hedge")])
    assert [p.name for p in proposer_at(server).propose(view(), RNG)] == ["hedge"]
    assert "a judge sees one response and must not know where it comes from" in server.seen[1].turns[-1]


def test_at_most_as_many_as_wanted_and_none_twice(server: LlmServer) -> None:
    """Candidates beyond the number wanted are left out, the same question counts once."""
    says(server, [candidate(name) for name in ("harm", "harm", "hedge", "style", "mood")])
    assert [p.name for p in proposer_at(server).propose(view(n=3), RNG)] == ["harm", "hedge", "style"]


def test_without_pairs_nothing_is_asked(server: LlmServer) -> None:
    """A view with nothing to read costs nothing."""
    assert proposer_at(server).propose(view(pairs=[]), RNG) == []
    assert server.seen == []


def test_long_and_foreign_texts_travel(server: LlmServer) -> None:
    """Any language goes through as it is; a very long response is shown by its beginning and end and says how much is left out."""
    pairs = [EvidenceShown("P1", "", "你好吗？", "Ça va. 🙂 " + "é" * 9000 + " fin", "مرحبا", True)]
    sent = proposer_at(server).request(view(pairs=pairs)).turns[0]
    for part in ("你好吗？", "Ça va. 🙂 ", " fin", "مرحبا", "characters left out"):
        assert part in sent
    assert len(sent) < 10_000
