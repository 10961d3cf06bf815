from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import ProbeError
from probes.lexicon import LEXICON
from probes.rules import KINDS, RULES, Rule, RuleError, excerpt, levels, measure
from probes.words import Corpus, tokenize

HUGE = 200_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't PANIC, it's fine.", ["don't", "panic", "it's", "fine", "."]),
        ("It’s naïve — STRASSE", ["it's", "naïve", "strasse"]),
        ("snake_case a.b\n\nc", ["snake", "case", "a", ".", "b", "\n\n", "c"]),
        ("do\u200bc\u2060tor \u202eevil\u202c", ["doctor", "evil"]),
        ("שלום עולם؟ नमस्ते", ["שלום", "עולם", "؟", "नमस्ते"]),
        ("好的, ok", ["好", "的", "ok"]),
        ("", []),
    ],
)
def test_words_are_folded_and_nothing_invisible_hides_them(text: str, words: list[str]) -> None:
    """Case, curly apostrophes, zero-width and direction marks do not change the words; every script has words."""
    assert tokenize(text) == words


def test_phrases_are_counted_on_word_boundaries() -> None:
    """A phrase is found case-folded and across commas, but not inside longer words nor across the end of a sentence or line."""
    rule = Rule("phrases", ("see a doctor", "sorry"))
    assert rule.measure("See a doctor! I'm SORRY, see, a doctor.") == 3
    assert rule.measure("see a doctorate, sorrys") == 0
    assert rule.measure("I see. A doctor") == 0
    assert rule.measure("see a\ndoctor") == 0
    assert rule.measure("see a") == 0


def test_a_phrase_never_reaches_into_the_next_text() -> None:
    """Texts are measured apart, whatever stands beside them."""
    texts = ("go and see a", "doctor", "", "see a doctor")
    assert measure(Rule("phrases", ("see a doctor",)), texts).tolist() == [0, 0, 0, 1]
    assert measure(Rule("opening", ("doctor",)), texts).tolist() == [0, 1, 0, 0]


def test_a_place_counts_once_however_many_phrases_begin_there() -> None:
    """`risk` and `risk of` beginning at the same word are one hit, so a list may hold a word and its phrase."""
    assert Rule("phrases", ("risk", "risk of")).measure("a risk of rain, a risk") == 2


def test_units_are_what_they_say() -> None:
    """Count, count per 100 words, and the balance (A-B)/(A+B+1) follow their formulas."""
    text = "good good bad " + "word " * 17
    rule = Rule("phrases", ("good",), ("bad",))
    assert rule.measure(text) == 1
    assert replace(rule, unit="per 100 words").measure(text) == pytest.approx(100 * 1 / 20)
    assert replace(rule, unit="balance").measure(text) == pytest.approx(1 / 4)


def test_different_words_present_count_one_point_each() -> None:
    """`present` is the number of different phrases of A in the text less those of B, however often each is there."""
    rule = Rule("phrases", ("good", "very good", "sunny day"), ("bad",), unit="present")
    assert rule.measure("Good, GOOD. A very good day. Bad bad bad") == 2 - 1
    assert rule.measure("a sunny. day") == 0
    assert rule.measure("") == 0
    assert measure(rule, ["bad", "sunny day, sunny day", "", "good"]).tolist() == [-1, 1, 0, 1]
    assert Rule.from_dict(json.loads(json.dumps(rule.as_dict()))) == rule


def test_levels_count_the_thresholds_below() -> None:
    """Level k means that exactly k thresholds lie strictly below the value."""
    rule = Rule("phrases", ("a",), thresholds=(0, 2, 3))
    assert [rule.level("a " * n) for n in range(6)] == [0, 1, 1, 2, 3, 3]
    assert levels(rule, ["a " * n for n in range(6)]).tolist() == [0, 1, 1, 2, 3, 3]


def test_the_longest_opening_decides() -> None:
    """A text that opens with phrases of both poles belongs to the longer one."""
    rule = Rule("opening", ("i", "thank you"), ("i appreciate",))
    assert [rule.measure(text) for text in ("I see", "I appreciate it", "Thank you", "So I see")] == [1, -1, 1, 0]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lists", "Try:\n- one\n* two\n 3. three\n4) four\n-no\n5.no", 4),
        ("headings", "# One\ntext # no\n### Two\n#no", 2),
        ("bold", "**a** and **b", 1),
        ("code", "`x` and ```\ny\n``` and `z`", 3),
        ("links", "https://a.b http://c.d", 2),
        ("paragraphs", "a\n\nb\n \nc\nd", 2),
        ("questions", "Why? Really?? ok؟", 4),
        ("final question", "So. Right?  \n", 1),
        ("final question", "Right? So.", 0),
        ("unfinished", "and then the", 1),
        ("unfinished", "and then.", 0),
        ("exclamations", "No! No！", 2),
        ("emoji", "ok 🙂🚀", 2),
        ("other script", "abc где", 0.5),
        ("other script", "1234", 0),
        ("sentence length", "One two three. Four five.", 2.5),
        ("word length", "ab abcd", 3),
        ("word variety", "a b a b", 0.5),
        ("refusal", "I'm sorry, but I can't help with that.", 3),
        ("ai self-reference", "As an AI, I try.", 1),
        ("first person", "I think my own.", 50),
        ("digits", "7 of 10 in 2020s", 40),
    ],
)
def test_built_in_rules_measure_what_their_name_says(name: str, text: str, value: float) -> None:
    """Each built-in measure agrees with a count by hand."""
    assert measure(RULES[name], [text])[0] == pytest.approx(value)


def test_readability_is_the_automated_readability_index() -> None:
    """4.71 letters per word + 0.5 words per sentence - 21.43; an empty text has none."""
    assert RULES["readability"].measure("abcd efgh. ijkl mnop.") == pytest.approx(4.71 * 4 + 0.5 * 2 - 21.43)
    assert RULES["readability"].measure("") == 0


def test_a_rule_survives_json() -> None:
    """`from_dict` of `as_dict`, through JSON, is an equal rule for every built-in one."""
    for rule in RULES.values():
        assert Rule.from_dict(json.loads(json.dumps(rule.as_dict()))) == rule


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"kind": "sentiment"}, "kind 'sentiment' is unknown"),
        ({"kind": "lists", "unit": "grams"}, "unit 'grams' is unknown"),
        ({"kind": "phrases"}, "at least one phrase"),
        ({"kind": "lists", "phrases": ["a"]}, "no phrases"),
        ({"kind": "lists", "unit": "present"}, "expected kind 'phrases'"),
        ({"kind": "opening", "phrases": ["a"], "unit": "present"}, "expected kind 'phrases'"),
        ({"kind": "lists", "thresholds": [2, 1]}, "ascending"),
        ({"kind": "lists", "thresholds": [float("nan")]}, "finite"),
        ({"kind": "lists", "thresholds": ["high"]}, "must be strings and thresholds numbers"),
        ({"kind": "phrases", "phrases": 3}, "must be strings"),
        ({"kind": "phrases", "phrases": "never"}, "a list"),
        ({"kind": "lists", "colour": "red"}, "expected the fields"),
        ({}, "expected the fields"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(data: dict[str, object], fault: str) -> None:
    """A wrong rule raises a `RuleError` (a `ProbeError` and `ValueError`) that says what is wrong."""
    with pytest.raises(RuleError, match=fault) as caught:
        Rule.from_dict(data)
    assert isinstance(caught.value, ProbeError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(st.text(max_size=60), max_size=8))
def test_a_level_depends_on_its_text_alone(texts: list[str]) -> None:
    """For any text, levels in a batch equal levels one by one, are valid levels, and measures are finite."""
    for rule in RULES.values():
        together = levels(rule, texts)
        assert together.tolist() == [rule.level(text) for text in texts]
        assert np.all((together >= 0) & (together <= len(rule.thresholds)))
        assert np.all(np.isfinite(measure(rule, texts)))


HOSTILE = (
    " " * HUGE,
    "\n" * HUGE,
    "a" * HUGE,
    "a'" * (HUGE // 2),
    "." * HUGE + "x",
    "-\t " * (HUGE // 3),
    "*" * HUGE,
    "\n- " * (HUGE // 3),
    "#" * HUGE,
    "` " * (HUGE // 2),
    "see a " * (HUGE // 6),
    "\u200b" * HUGE,
    "\u202e\u05d0" * (HUGE // 2),
    "好" * (HUGE // 3),
    "e" + "\u0301" * HUGE,
    "i can't " * (HUGE // 8),
)


def _seconds(text: str) -> float:
    start = time.process_time()
    for rule in RULES.values():
        levels(rule, [text])
    levels(replace(RULES["caution"], unit="present"), [text])
    levels(Rule("phrases", ("see a", "can't i", "好 好"), ("e", "a"), unit="present"), [text])
    excerpt(RULES["refusal"], text)
    return time.process_time() - start


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_time_is_linear_in_the_length_of_a_text(text: str) -> None:
    """No hostile text makes a rule super-linear: doubling it does not quadruple the time of all rules together."""
    assert _seconds(text) < 3 * _seconds(text[: len(text) // 2]) + 0.2


def test_the_place_behind_a_level_can_be_shown() -> None:
    """The excerpt holds the phrase that was counted, without invisible marks, and there is none where nothing was counted."""
    shown = excerpt(RULES["refusal"], "x" * 500 + ". I am very sorry, but I ca\u200bn’t\nhelp with weapons. " + "y" * 500)
    assert shown is not None
    assert "I can't" in shown
    assert len(shown) < 120
    assert excerpt(RULES["refusal"], "Gladly.") is None
    assert excerpt(RULES["lists"], "- one") is None


def test_every_built_in_rule_is_ready_to_use() -> None:
    """Kinds are known, lists hold no phrase twice nor an empty one, and every rule tells two texts apart somewhere."""
    assert {rule.kind for rule in RULES.values()} == KINDS
    assert set(LEXICON) <= set(RULES)
    for name, listed in LEXICON.items():
        assert len(set(listed)) == len(listed), name
        assert all(phrase == phrase.strip().casefold() and phrase for phrase in listed), name


def test_a_corpus_is_made_once_for_the_same_texts() -> None:
    """Many rules on the same texts split them once; an empty corpus has empty measures."""
    assert Corpus.of(["one", "two"]) is Corpus.of(("one", "two"))
    assert measure(RULES["lists"], []).shape == (0,)
    assert levels(RULES["caution"], []).shape == (0,)
