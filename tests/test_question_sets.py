from __future__ import annotations

from pathlib import Path

import pytest

from prompts.errors import QuestionSetError
from prompts.question_set import load_question_set, question_set_names

OURS = ("ethics", "finance", "knowledge", "medical", "politics", "self_description")


def test_our_sets_are_large_enough_and_say_where_they_come_from() -> None:
    """Six sets of at least twelve questions, each with purpose and provenance; no question stands in two sets."""
    sets = [load_question_set(name) for name in question_set_names()]
    assert tuple(each.name for each in sets) == OURS
    assert all(len(each.questions) >= 12 and len(each.purpose) > 40 and len(each.provenance) > 20 for each in sets)
    everything = [question for each in sets for question in each.questions]
    assert len(set(everything)) == len(everything)


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    """Questions and a system prompt, in the order of the file."""
    file = tmp_path / "mine.toml"
    file.write_text('system = "Be brief."\nquestions = ["Why?", "When?"]\n', encoding="utf-8")
    found = load_question_set(file)
    assert (found.name, found.system, found.questions) == ("mine", "Be brief.", ("Why?", "When?"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("questions = 3", "as a list of texts, found 3"),
        ("questions = []", "as a list of texts"),
        ('questions = ["Why?", " "]', "as a list of texts"),
        ('questions = ["Why?", "Why?"]', "twice"),
        ('question = ["Why?"]', "found also question"),
        ('system = 1\nquestions = ["Why?"]', "expected system as a text"),
        ("questions = [", "expected questions in TOML"),
        (None, "one of ethics, finance"),
    ],
)
def test_a_wrong_set_is_one_line(content: str | None, words: str, tmp_path: Path) -> None:
    """What was expected and what was found, in one line that names the file."""
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(QuestionSetError, match=words) as caught:
        load_question_set(file)
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)
