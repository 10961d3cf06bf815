from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.hypotheses import load_hypotheses, read_hypotheses
from tests.planted_recordings import asks, write_hypotheses

GOOD = 'name = "harm"\nquestion = "How harmful is it?"\nlevels = ["not", "a bit", "openly"]\n'


def test_no_file_is_no_hypotheses() -> None:
    """Without `--hypotheses` the human family is empty."""
    assert load_hypotheses(None) == []


def test_a_file_of_hypotheses(tmp_path: Path) -> None:
    """Every table becomes an order parameter of human origin; the definition defaults to the question; direction and rule are kept."""
    rule = {"kind": "questions", "thresholds": [0, 2]}
    form = asks("form", levels=("none", "one or two", "more"), direction=-1, rule=rule, definition="Its form.")
    path = write_hypotheses(tmp_path / "mine.toml", asks("harm"), form)
    first, second = load_hypotheses(str(path))
    assert (first.name, first.origin, first.definition, first.badge) == ("harm", "human", first.question, "judged")
    assert (second.name, second.origin, second.definition, second.badge) == ("form", "human", "Its form.", "rule")
    assert (second.direction, second.rule) == (-1, rule)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = [", "expected TOML, found "),
        ("", r"expected at least one \[\[hypothesis\]\] table, found nothing"),
        ("[[candidate]]\n" + GOOD, r"expected at least one \[\[hypothesis\]\] table, found candidate"),
        ("[hypothesis]\n" + GOOD, r"expected at least one \[\[hypothesis\]\] table"),
        ("hypothesis = 3", r"expected at least one \[\[hypothesis\]\] table"),
        ("hypothesis = [1, 2]", r"hypothesis 1: expected a table"),
        ('[[hypothesis]]\nname = "a"\nlevels = ["b", "c"]', "hypothesis 1: expected question or statement, found name, levels"),
        ("[[hypothesis]]\nstatement = 3", "hypothesis 1: statement: expected a text, found 3"),
        ('[[hypothesis]]\nquestion = "b"\nlevels = ["x", "x"]', "hypothesis 1: two levels have the same anchor"),
        ('[[hypothesis]]\nquestion = "b"\nrule = {kind = "questions"}', "hypothesis 1: expected name, question and levels with a rule"),
        ("[[hypothesis]]\n" + GOOD + "[[hypothesis]]\n", "hypothesis 2: expected question or statement, found nothing"),
        ("[[hypothesis]]\n" + GOOD + "scale = 5", "hypothesis 1: scale: extra inputs are not permitted, found 5"),
        ('[[hypothesis]]\nname = 3\nquestion = "b"\nlevels = ["x", "y"]', "hypothesis 1: name: input should be a valid string, found 3"),
        ('[[hypothesis]]\nname = "a"\nquestion = "b"\nlevels = 5', "hypothesis 1: levels: .*, found 5"),
        ("[[hypothesis]]\n" + GOOD + "direction = 7", "hypothesis 1: direction: .*, found 7"),
        ('[[hypothesis]]\nname = "a"\nquestion = "b"\nlevels = ["x"]', "hypothesis 1: expected 2 to 7 levels, found 1"),
        ('[[hypothesis]]\nname = "a"\nquestion = "b"\nlevels = ["x", "x"]', "hypothesis 1: two levels have the same anchor"),
        (
            '[[hypothesis]]\nname = "a"\nquestion = "Is this from the fine-tuned one?"\nlevels = ["x", "y"]',
            "hypothesis 1: names 'fine-tuned'",
        ),
        ("[[hypothesis]]\n" + GOOD + 'rule = {kind = "magic"}', "hypothesis 1: rule: kind 'magic' is unknown"),
        (
            "[[hypothesis]]\n" + GOOD + 'rule = {kind = "questions", thresholds = [0]}',
            "hypothesis 1: expected 2 levels, as the rule has, found 3",
        ),
        ("[[hypothesis]]\n" + GOOD + "[[hypothesis]]\n" + GOOD, "hypothesis 2: asks the same as hypothesis 1"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(content: str, message: str, tmp_path: Path) -> None:
    """A pre-registered hypothesis is never dropped silently: what cannot be tested as written is refused before anything is spent."""
    path = tmp_path / "mine.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_hypotheses(str(path))
    line = str(caught.value)
    assert line.startswith(f"--hypotheses {path}: ")
    assert "\n" not in line


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text are each named."""
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    for name, what in (("none.toml", "No such file"), (".", "Is a directory"), ("latin.toml", "expected TOML, found")):
        with pytest.raises(ConfigError, match=what):
            load_hypotheses(str(tmp_path / name))


def test_a_sentence_is_a_statement_and_a_question_is_the_judges(tmp_path: Path) -> None:
    """`--hypothesis` gives words only: what ends with a question mark is asked as it stands, everything else is worded later."""
    path = write_hypotheses(tmp_path / "mine.toml", asks("harm"))
    whole, statement, question = read_hypotheses(str(path), ["  It warns\nmore. ", "How much does it warn?"])
    assert whole.whole
    assert (dict(statement.given), statement.whole) == ({"statement": "It warns more."}, False)
    assert (dict(question.given), question.whole) == ({"question": "How much does it warn?"}, False)
    with pytest.raises(ConfigError, match="--hypothesis 1: expected a sentence or a question, found nothing"):
        read_hypotheses(None, [" "])
    with pytest.raises(ConfigError, match="--hypothesis 2: asks the same as hypothesis 1"):
        read_hypotheses(None, ["It warns more.", "It warns  more."])
