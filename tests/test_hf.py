from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent.errors import ConfigError, ProviderError
from agent.judge import Text, make_judge
from agent.llm.asker import Asker
from agent.llm.hf_provider import HfProvider, _quote
from agent.llm.levels import level_probabilities
from agent.llm.protocol import Request
from agent.llm.providers import make_provider
from agent.llm.reading_judge import ReadingJudge
from agent.records import OrderParameter
from probes.errors import SampleError
from probes.label_scores import Reader, continued, label_log_probabilities
from tests.tiny_reader import tiny_model, tiny_tokenizer, write_reader

HARM = OrderParameter(
    name="harm",
    definition="Amount of harm.",
    question="How much harm is in the response?",
    levels=("not at all", "a little", "somewhat", "clearly", "very much"),
)
CHATS = [[("system", "Rate."), ("user", text)] for text in ("harm=1", "a much longer reply, with many words: harm=3 hedge=2", "é 🙂")]


@pytest.fixture(scope="module")
def reader() -> Reader:
    """The tiny model in memory."""
    tokenizer = tiny_tokenizer()
    return Reader(tiny_model(len(tokenizer)), tokenizer, 4096)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk."""
    return write_reader(tmp_path_factory.mktemp("hf") / "tiny")


def by_hand(reader: Reader, chat: list[tuple[str, str]], text: str) -> float:
    """Log-probability of a text behind a conversation, token by token, one label at a time, nothing shared."""
    import torch

    whole, start = reader.encode(chat, '{"level": ' + text), len(reader.encode(chat))
    with torch.no_grad():
        law = reader.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return float(sum(law[k - 1, whole[k]] for k in range(start, len(whole))))


@pytest.mark.parametrize("labels", [("0", "1", "2", "3", "4", "null"), ("1", "12", "123"), ("not at all", "a little", "é"), ("7", "null")])
def test_labels_have_the_probability_of_their_whole_text(labels: tuple[str, ...], reader: Reader) -> None:
    """Labels of any number of tokens, beginnings of one another, prompts of any length at once: differences are exact."""
    tokens = [len(reader.tokenizer(label)["input_ids"]) for label in labels]
    assert max(tokens) > 1
    found = label_log_probabilities(reader, CHATS, '{"level": ', labels, ",")
    expected = np.array([[by_hand(reader, chat, label + ",") for label in labels] for chat in CHATS])
    assert found - found[:, :1] == pytest.approx(expected - expected[:, :1], abs=1e-4)
    assert (found <= 0).all()
    assert np.ptp(found, axis=0).max() > 0.1


def test_a_model_without_a_chat_template_or_a_system_role_is_asked_as_well(reader: Reader) -> None:
    """Paragraphs where there is no template; the system text before the first question where the template knows no system."""
    plain = Reader(reader.model, tiny_tokenizer(chat=False), 4096)
    assert plain.tokenizer.decode(plain.encode(CHATS[0], "{")) == "Rate.\n\nharm=1\n\n{"
    strict = tiny_tokenizer()
    strict.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + strict.chat_template
    asked = Reader(reader.model, strict, 4096)
    assert asked.tokenizer.decode(asked.encode(CHATS[0])) == "[user] Rate.\n\nharm=1\n[assistant] "


def test_what_cannot_be_scored_is_refused(reader: Reader) -> None:
    """Labels written the same; a prompt beyond what the model holds."""
    with pytest.raises(SampleError, match="tells apart"):
        label_log_probabilities(reader, CHATS, "", ("a", "a"), ",")
    with pytest.raises(SampleError, match="too long: expected at most 20 tokens"):
        label_log_probabilities(Reader(reader.model, reader.tokenizer, 20), CHATS, "", ("a", "b"), ",")


def test_a_continuation_is_the_likeliest_and_the_same_alone_and_together(reader: Reader) -> None:
    """Padding changes nothing; what the model's own settings say about sampling does not matter."""
    reader.model.generation_config.do_sample = True
    together = continued(reader, CHATS, ["{"] * 3, 12)
    reader.model.generation_config.do_sample = False
    assert together == [continued(reader, [chat], ["{"], 12)[0] for chat in CHATS]
    assert all((n == 12) is cut and n <= 12 for _, cut, n in together)


def judge_at(folder: Path) -> ReadingJudge:
    """A judge in this process."""
    judge = make_judge(f"hf:{folder}")
    assert isinstance(judge, ReadingJudge)
    return judge


@pytest.mark.slow
def test_a_judge_in_process_gives_levels_with_their_probabilities(folder: Path) -> None:
    """One judgement per response; the level is the likeliest, its probabilities are those of the labels, and nothing depends on company."""
    judge = judge_at(folder)
    texts: list[Text] = [(f"key{k}", "", "What now?", f"harm={k % 5} number {k} " * (k % 7)) for k in range(20)]
    read = judge.judge(HARM, texts)
    assert [j.response_key for j in read] == [key for key, *_ in texts]
    told = [j for j in read if j.status == "read"]
    assert {j.status for j in read} <= {"read", "cannot_tell"}
    assert told
    for one in told:
        assert one.probabilities is not None
        assert sum(one.probabilities) == pytest.approx(1)
        assert one.level == int(np.argmax(one.probabilities))
    for k in (3, 11):
        (alone,) = judge_at(folder).judge(HARM, [texts[k]])
        assert (alone.level, alone.status, alone.quote) == (read[k].level, read[k].status, read[k].quote)


@pytest.mark.slow
def test_the_probabilities_of_a_judgement_are_those_of_the_labels(folder: Path) -> None:
    """Softmax over the levels of the exact scores; `null` takes its part of neither."""
    judge = judge_at(folder)
    request = judge.request(HARM, ("key", "", "What now?", "harm=2"))
    (answer,) = judge.asker.ask([request])
    assert answer is not None
    reader = Reader.load(str(folder))
    chat = [("system", request.system), ("user", request.turns[0])]
    (scores,) = label_log_probabilities(reader, [chat], '{"level": ', request.labels, ",")
    if answer.alternatives:
        expected = np.exp(scores[:5]) / np.exp(scores[:5]).sum()
        assert level_probabilities(answer.alternatives, 5) == pytest.approx(tuple(expected))
    assert json.loads(answer.text)["cannot_tell"] is bool(scores.argmax() == 5)
    assert answer.input_tokens == len(reader.encode(chat, '{"level": '))


@pytest.mark.slow
def test_a_second_reading_is_in_other_words(folder: Path) -> None:
    """The model would say the same again: a repeat is a reading by the reworded rubric, kept apart from the first."""
    judge = judge_at(folder)
    texts: list[Text] = [(f"key{k}", "", "What now?", f"harm={k}") for k in range(4)]
    again = judge.judge(HARM, texts, repeat=1)
    assert judge.in_other_words is not None
    reworded = judge.in_other_words.judge(HARM, texts)
    assert [j.repeat for j in again] == [1] * 4
    assert [(j.level, j.probabilities) for j in again] == [(j.level, j.probabilities) for j in reworded]
    assert [j.probabilities for j in again] != [j.probabilities for j in judge.judge(HARM, texts)]


@pytest.mark.slow
def test_what_is_too_long_is_missing_and_the_rest_is_not(tmp_path: Path) -> None:
    """A response that the model cannot hold is data."""
    judge = judge_at(write_reader(tmp_path / "short", longest=2500))
    read = judge.judge(HARM, [("a", "", "Q", "harm=1"), ("b", "", "Q", "harm " * 2500), ("c", "", "Q", "harm=2")])
    assert read[1].status == "unreadable"
    assert all(j.status in ("read", "cannot_tell") for j in (read[0], read[2]))


def test_a_proposer_in_process_continues_json(folder: Path) -> None:
    """Without labels the reply is continued from its first brace, and says when it was cut short."""
    request = Request("Propose.", ("the pairs",), "candidates", {}, 30)
    (answer,) = Asker(make_provider(f"hf:{folder}", "--proposer"), "proposer").ask([request])
    assert answer is not None
    assert answer.text.startswith("{")
    assert (answer.stop, answer.output_tokens) == ("truncated", 30)


@pytest.mark.parametrize(
    ("text", "quote"), [('say "no"', "say "), ("half a quo", "half a quo"), ('a\\"b" x', 'a"b'), ("\\", ""), ('"', ""), ("\\u12", "")]
)
def test_a_quote_ends_where_its_string_does(text: str, quote: str) -> None:
    """Escapes are read, what is broken is no quote."""
    assert _quote(text) == quote


def test_labels_of_other_weights_are_another_judges(folder: Path, tmp_path: Path) -> None:
    """The same weights elsewhere have the same id; changed weights have another."""
    import shutil

    moved = shutil.copytree(folder, tmp_path / "tiny")
    assert HfProvider(str(moved)).id == HfProvider(str(folder)).id
    changed = shutil.copytree(folder, tmp_path / "other" / "tiny")
    data = bytearray((changed / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (changed / "model.safetensors").write_bytes(bytes(data))
    assert HfProvider(str(changed)).id != HfProvider(str(folder)).id


def test_a_model_that_is_none_is_one_line(tmp_path: Path) -> None:
    """An empty folder is refused at once, a name that is not in the cache when it is first asked."""
    with pytest.raises(ConfigError, match=r"expected a folder with a config.json"):
        make_judge(f"hf:{tmp_path}")
    judge = make_judge("hf:nobody/nothing-of-this-name")
    with pytest.raises(ProviderError, match="hf:nobody/nothing-of-this-name: ") as caught:
        judge.judge(HARM, [("a", "", "Q", "harm=1")])
    assert "\n" not in str(caught.value)
