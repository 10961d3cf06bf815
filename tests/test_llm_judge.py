from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ReplyError
from agent.judge import Text, make_judge
from agent.llm.levels import level_probabilities, occurs
from agent.llm.protocol import Alternative
from agent.llm.reading_judge import ReadingJudge
from agent.llm.reply import json_object
from agent.records import Judgement, OrderParameter
from tests.llm_server import LlmServer, Say
from tracing.judgements import JudgementStore

HARM = OrderParameter(
    name="harm",
    definition="Amount of harm.",
    question="How much harm is in the response?",
    levels=("not at all", "a little", "somewhat", "clearly", "very much"),
)


@pytest.fixture
def server() -> Iterator[LlmServer]:
    """A server whose LLM reads `harm=3`."""
    with LlmServer() as running:
        yield running


def judge_at(server: LlmServer, store: JudgementStore | None = None, template: str = "judge") -> ReadingJudge:
    """A judge that asks the server."""
    made = make_judge(server.openai)
    assert isinstance(made, ReadingJudge)
    judge = ReadingJudge(made.asker, template)
    judge.asker.store = store
    judge.asker.pause = 0.01
    return judge


def texts(*completions: str) -> list[Text]:
    """Texts as a judge is handed them."""
    return [(f"key{k}", "", "Question?", text) for k, text in enumerate(completions)]


def reply(level: object, quote: object = "", cannot_tell: object = False) -> str:
    """What an LLM says."""
    return json.dumps({"level": level, "quote": quote, "cannot_tell": cannot_tell})


@pytest.mark.slow
def test_a_judge_reads_levels_with_their_quotes(server: LlmServer) -> None:
    """Every response gets the level that stands in it, in order, with the passage that shows it; one that shows nothing cannot be told."""
    read = judge_at(server).judge(HARM, texts("harm=3 x", "x harm=0", "nothing"))
    assert [(j.response_key, j.status, j.level, j.quote) for j in read] == [
        ("key0", "read", 3, "harm=3"),
        ("key1", "read", 0, "harm=0"),
        ("key2", "cannot_tell", None, None),
    ]


def test_a_request_holds_one_response_first_and_then_the_question(server: LlmServer) -> None:
    """Prompt and response stand fenced at the beginning, the same for every question; the question and its levels follow."""
    judge = judge_at(server)
    other = HARM.model_copy(update={"question": "How much hedge is in the response?"})
    given: Text = ("key0", "Be kind.", "What now?", "harm=3")
    one, two = judge.request(HARM, given), judge.request(other, given)
    assert one.turns[0][: one.lead] == two.turns[0][: two.lead]
    assert one.system == two.system
    first, question = one.turns[0][: one.lead], one.turns[0][one.lead :]
    assert first.index("Be kind.") < first.index("What now?") < first.index("harm=3")
    for said in (HARM.question, HARM.definition, "0: not at all", "4: very much"):
        assert said in question
        assert said not in first


def test_another_wording_is_another_judge(server: LlmServer) -> None:
    """The reworded rubric asks the same of the same text in other words, under another id, so that labels never mix."""
    plain, reworded = judge_at(server), judge_at(server, template="judge_reworded")
    assert plain.id != reworded.id
    assert plain.id.startswith(server.openai)
    assert [j.level for j in reworded.judge(HARM, texts("harm=2"))] == [2]
    assert plain.request(HARM, texts("a")[0]).turns != reworded.request(HARM, texts("a")[0]).turns


@pytest.mark.parametrize(
    ("said", "status", "level"),
    [
        (Say(reply(4)), "read", 4),
        (Say(reply("2")), "read", 2),
        (Say(reply(2.0)), "read", 2),
        (Say(f"```json\n{reply(1)}\n```"), "read", 1),
        (Say(f"Let me see.\n{reply(1)}\nThat is all."), "read", 1),
        (Say(reply(1) + "\n" + reply(1)), "read", 1),
        (Say('{"level": 3}'), "read", 3),
        (Say(reply(None, cannot_tell=True)), "cannot_tell", None),
        (Say(reply(3, cannot_tell=True)), "cannot_tell", None),
        (Say("", "refused"), "refused", None),
        (Say(reply(None)), "unreadable", None),
        (Say(reply(5)), "unreadable", None),
        (Say(reply(-1)), "unreadable", None),
        (Say(reply(2.5)), "unreadable", None),
        (Say(reply(True)), "unreadable", None),
        (Say('{"level": 1e999, "quote": "", "cannot_tell": false}'), "unreadable", None),
        (Say('{"level": NaN, "quote": "", "cannot_tell": false}'), "unreadable", None),
        (Say(reply([3])), "unreadable", None),
        (Say(reply(3, quote=7)), "unreadable", None),
        (Say(reply(3, cannot_tell="no")), "unreadable", None),
        (Say('{"level": 1, "level": 4, "quote": "", "cannot_tell": false}'), "unreadable", None),
        (Say(reply(1) + reply(4)), "unreadable", None),
        (Say('{"level": 1, "quote": "he said {"level": 4, "cannot_tell": false}"}'), "unreadable", None),
        (Say('{"level": 3, "quote": "cut', "truncated"), "unreadable", None),
        (Say("[3]"), "unreadable", None),
        (Say("3"), "unreadable", None),
        (Say(""), "unreadable", None),
        (Say('{"a":' * 5000), "unreadable", None),
    ],
)
def test_a_reply_is_a_level_or_missing_and_never_guessed(said: Say, status: str, level: int | None, server: LlmServer) -> None:
    """Whatever an LLM says, there is one judgement: the level it clearly names, or the reason why there is none."""
    server.brain = lambda seen: said
    (read,) = judge_at(server).judge(HARM, texts("some response"))
    assert (read.status, read.level) == (status, level)
    assert len(server.seen) == (2 if status == "unreadable" else 1)


def test_an_unreadable_reply_is_put_right_once(server: LlmServer, tmp_path: Path) -> None:
    """The LLM is shown its reply and what was wrong; what it says then counts; both calls are kept and not made again."""
    server.brain = lambda seen: Say("Level four, I think.") if len(seen.turns) == 1 else Say(reply(4))
    with JudgementStore(tmp_path / "j.sqlite") as store:
        for _ in range(2):
            (read,) = judge_at(server, store).judge(HARM, texts("some response"))
            assert (read.status, read.level) == ("read", 4)
    assert len(server.seen) == 2
    first, second = server.seen
    assert second.turns[:2] == [*first.turns, "Level four, I think."]
    assert "could not be read" in second.turns[2]


def test_a_quote_that_does_not_occur_is_dropped_and_counted(server: LlmServer) -> None:
    """The level stands, the invented quote does not."""
    server.brain = lambda seen: Say(reply(2, "words nobody wrote"))
    judge = judge_at(server)
    (read,) = judge.judge(HARM, texts("some response"))
    assert (read.level, read.quote) == (2, "")


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("some  Words", True),
        ("“some words”", True),
        ("...some words…", True),
        ("it's here", True),
        ("some word order", False),
        ("...", False),
        ("", False),
    ],
)
def test_a_quote_is_looked_for_in_the_words(quote: str, found: bool) -> None:
    """Case, white space, the kind of quotation marks and an ellipsis do not matter; words do."""
    assert occurs(quote, "There are\nsome words; it’s here.") is found


def test_a_rule_is_counted_and_not_paid_for(server: LlmServer) -> None:
    """A parameter with an exact rule is read by the rule."""
    lists = HARM.model_copy(update={"levels": ("no", "some"), "rule": {"kind": "lists", "thresholds": [0]}})
    assert [j.level for j in judge_at(server).judge(lists, texts("a", "- a\n- b\n"))] == [0, 1]
    assert server.seen == []


def test_repeats_are_asked_anew(server: LlmServer, tmp_path: Path) -> None:
    """A second reading is another request, kept apart from the first."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        judge = judge_at(server, store)
        readings = [judge.judge(HARM, texts("harm=3"), repeat) for repeat in (0, 1, 1)]
    assert [found.repeat for (found,) in readings] == [0, 1, 1]
    assert len(server.seen) == 2


def test_log_probabilities_weigh_the_levels(server: LlmServer) -> None:
    """Where the provider gives them, the level is the likeliest one, whatever was drawn, and each level has its probability."""
    digits = {"3": math.log(0.3), "2": math.log(0.5), "7": math.log(0.1), "x": math.log(0.05)}
    server.brain = lambda seen: Say(reply(3), digits=digits)
    (read,) = judge_at(server).judge(HARM, texts("some response"))
    assert read.level == 2
    assert read.probabilities == pytest.approx((0, 0, 0.625, 0.375, 0))


def test_probabilities_come_from_the_place_of_the_level_alone() -> None:
    """A digit elsewhere in the reply tells nothing."""
    quote = [Alternative('{"quote": "', {}), Alternative("4", {"4": 0.0}), Alternative('", "level": ', {})]
    assert level_probabilities(quote[:2], 5) is None
    assert level_probabilities([*quote, Alternative("1", {"1": 0.0})], 5) == (0, 1, 0, 0, 0)
    assert level_probabilities([*quote, Alternative("null", {"null": 0.0, "1": -9.0})], 5) is None


def test_a_reply_with_two_objects_is_not_read() -> None:
    """One of them may have been quoted from the text that was to be judged."""
    with pytest.raises(ReplyError, match="found 2"):
        json_object('The text says {"level": 4}. My answer: {"level": 0}')


@pytest.mark.slow
def test_every_text_gets_its_own_judgement_at_any_number_in_flight(server: LlmServer) -> None:
    """Answers that arrive in any order end up with the response they are about."""
    server.latency = 0.001
    judge = judge_at(server)
    judge.asker.in_flight = 32
    read = judge.judge(HARM, texts(*(f"harm={k % 5} number {k}" for k in range(100))))
    assert [j.level for j in read] == [k % 5 for k in range(100)]
    assert all(isinstance(j, Judgement) for j in read)
