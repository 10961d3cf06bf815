"""Exact, measurable rules on the text of a response: words and phrases, formatting, style.

A `Rule` turns a text into a number (`measure`) and the number into an ordinal level: level k means that exactly k of the
ascending `thresholds` lie below it. Phrases are matched on word boundaries, case-folded, never across the end of a sentence or
line. Every measure is linear in the length of the text. Length itself is measured elsewhere: it is always in the table, never
a rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from probes.errors import ProbeError
from probes.lexicon import LEXICON
from probes.words import Corpus, phrase_words, visible


class RuleError(ProbeError, ValueError):
    """A rule is not one: unknown kind, unit or field, phrases missing, thresholds not ascending."""


Unit = Literal["count", "present", "per 100 words", "balance", "value"]

# --- measures of formatting and style: kind -> (n,) values of a corpus ---------------------------------------------
_LIST_ITEM = re.compile(r"^[ \t]{0,12}(?:[-*+•–]|\d{1,3}[.)])[ \t]", re.M)
_HEADING = re.compile(r"^#{1,6}[ \t]", re.M)
_PARAGRAPH = re.compile(r"\n[ \t]{0,12}\n")
_SENTENCE = re.compile(r"[.!?…。！？؟](?=[\s\"')*_]|$)")
_QUESTION = re.compile("[?？؟]")
_EXCLAMATION = re.compile("[!！]")
_QUOTE = re.compile('["“”„«»]')
_DASH = re.compile(" - | – |—")
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_CAPITALS = re.compile(r"\b[A-Z]{2,20}\b")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile("[A-Za-z\u00aa-\u024f\u1e00-\u1eff]")


def _matches(pattern: re.Pattern[str]) -> Callable[[Corpus], np.ndarray]:
    return lambda corpus: corpus.of_texts(lambda text: len(pattern.findall(text)))


def _occurrences(mark: str, each: int = 1) -> Callable[[Corpus], np.ndarray]:
    return lambda corpus: corpus.of_texts(lambda text: text.count(mark) // each)


def _code(text: str) -> float:
    fences = text.count("```")
    return fences // 2 + (text.count("`") - 3 * fences) // 2


def _other_script(text: str) -> float:
    if text.isascii():
        return 0.0
    letters = len(_LETTER.findall(text))
    return 1 - min(len(_LATIN.findall(text)), letters) / letters if letters else 0.0


def _sentences(corpus: Corpus) -> np.ndarray:
    return np.asarray(np.maximum(corpus.of_texts(lambda text: len(_SENTENCE.findall(text))), 1))


def _letters_per_word(corpus: Corpus) -> np.ndarray:
    return np.asarray(corpus.of_vocabulary(len) / np.maximum(corpus.n_words, 1))


def _readability(corpus: Corpus) -> np.ndarray:
    # Automated Readability Index (Smith & Senter 1967): needs no syllables, hence no dictionary and no download.
    grade = 4.71 * _letters_per_word(corpus) + 0.5 * corpus.n_words / _sentences(corpus) - 21.43
    return np.where(corpus.n_words > 0, grade, 0.0)


def _variety(corpus: Corpus) -> np.ndarray:
    # Distinct words among the first 40, so that long texts are not called repetitive for being long.
    is_word = corpus.ids > 0
    document, ids = corpus.document[is_word], corpus.ids[is_word]
    start = np.concatenate([[0], np.cumsum(corpus.n_words)])[:-1].astype(np.int64)
    early = np.arange(len(ids)) - start[document] < 40
    document, ids = document[early], ids[early]
    seen = np.bincount(document, minlength=len(corpus))
    pairs = np.unique(document * (len(corpus.vocabulary) + 1) + ids) // (len(corpus.vocabulary) + 1)
    return np.bincount(pairs, minlength=len(corpus)) / np.maximum(seen, 1)


_MEASURES: dict[str, Callable[[Corpus], np.ndarray]] = {
    "lists": _matches(_LIST_ITEM),
    "headings": _matches(_HEADING),
    "bold": _occurrences("**", 2),
    "code": lambda corpus: corpus.of_texts(_code),
    "links": lambda corpus: corpus.of_texts(lambda text: text.count("http://") + text.count("https://")),
    "tables": lambda corpus: corpus.of_texts(lambda text: text.count("\n|")),
    "paragraphs": _matches(_PARAGRAPH),
    "lines": _occurrences("\n"),
    "questions": _matches(_QUESTION),
    "final question": lambda corpus: corpus.of_texts(lambda text: float(text.rstrip()[-1:] in ("?", "？", "؟"))),
    "unfinished": lambda corpus: corpus.of_texts(lambda text: float(text.rstrip()[-1:].isalnum() or text.rstrip()[-1:] == ",")),
    "exclamations": _matches(_EXCLAMATION),
    "quotes": _matches(_QUOTE),
    "parentheses": _occurrences("("),
    "commas": _occurrences(","),
    "colons": _occurrences(":"),
    "dashes": _matches(_DASH),
    "emoji": _matches(_EMOJI),
    "capitals": _matches(_CAPITALS),
    "digits": lambda corpus: corpus.of_vocabulary(lambda word: word.isdigit()),
    "other script": lambda corpus: corpus.of_texts(_other_script),
    "sentence length": lambda corpus: corpus.n_words / _sentences(corpus),
    "word length": _letters_per_word,
    "word variety": _variety,
    "readability": _readability,
}


@dataclass(frozen=True)
class Rule:
    """An exact measure of a text with ordinal levels.

    Attributes:
        kind: `"phrases"` (count of `phrases` minus count of `against`), `"opening"` (1 when the text opens with one of
            `phrases`, -1 with one of `against`), or a formatting or style measure (`KINDS`).
        phrases, against: What is looked for; `against` counts negatively. Only for the first two kinds.
        thresholds: Ascending; level k is reached above the k-th of them, so there are `len(thresholds) + 1` levels.
        unit: `"count"`; `"present"`: how many different phrases stand in the text, one point each however often (only for
            `"phrases"`); `"per 100 words"`; `"balance"` (A-B)/(A+B+1) of the two counts, in (-1, 1); `"value"` for measures
            that are no counts (words per sentence, letters per word, ...).
    """

    kind: str
    phrases: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = (0.0,)
    unit: Unit = "count"

    def __post_init__(self) -> None:
        """Raises: RuleError: unknown kind or unit, phrases missing or out of place, thresholds not ascending."""
        if self.kind not in KINDS:
            raise RuleError(f"rule: kind {self.kind!r} is unknown; expected one of {', '.join(sorted(KINDS))}")
        if self.unit not in get_args(Unit):
            raise RuleError(f"rule {self.kind!r}: unit {self.unit!r} is unknown; expected one of {', '.join(get_args(Unit))}")
        worded = self.kind in ("phrases", "opening")
        if worded != bool(self.phrases or self.against):
            raise RuleError(f"rule {self.kind!r}: expected {'at least one phrase' if worded else 'no phrases'}")
        if self.unit == "present" and self.kind != "phrases":
            raise RuleError(f"rule {self.kind!r}: unit 'present' counts different phrases, expected kind 'phrases'")
        if any(a >= b for a, b in pairwise(self.thresholds)) or not np.all(np.isfinite(self.thresholds)):
            raise RuleError(f"rule {self.kind!r}: thresholds must be finite and ascending, found {self.thresholds}")

    def measure(self, text: str) -> float:
        """The measured value of one text, in `unit`."""
        return float(measure(self, (text,))[0])

    def level(self, text: str) -> int:
        """Ordinal level of one text, in `0..len(thresholds)`."""
        return int(levels(self, (text,))[0])

    def as_dict(self) -> dict[str, Any]:
        """Plain data (lists, strings, floats) from which `from_dict` makes an equal rule, also after JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """The rule that `as_dict` described.

        Raises:
            RuleError: Unknown or missing fields, or values that make no rule.
        """
        fields = dict(data)
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if unknown or "kind" not in fields:
            raise RuleError(
                f"rule: expected the fields {', '.join(cls.__dataclass_fields__)}, found {', '.join(map(str, fields)) or 'none'}"
            )
        try:
            for name in ("phrases", "against"):
                if isinstance(fields.get(name), str):
                    raise TypeError(f"{name}: expected a list, found a string")
                fields[name] = tuple(str(phrase) for phrase in fields.get(name, ()))
            fields["thresholds"] = tuple(float(value) for value in fields.get("thresholds", (0.0,)))
        except (TypeError, ValueError) as error:
            raise RuleError(f"rule {fields['kind']!r}: phrases must be strings and thresholds numbers ({error})") from error
        return cls(**fields)


def _opens(corpus: Corpus, rule: Rule) -> np.ndarray:
    """1 where a text opens with one of `phrases`, -1 with one of `against`, 0 otherwise; the longest that fits decides."""
    first = np.searchsorted(corpus.document, np.arange(len(corpus)))
    opens, length = np.zeros(len(corpus)), np.zeros(len(corpus))
    for sign, phrases in ((1, rule.phrases), (-1, rule.against)):
        for words in phrase_words(phrases):
            fits = np.isin(first, corpus.places(words)) & (length < len(words))
            opens[fits], length[fits] = sign, len(words)
    return opens


KINDS = frozenset({"phrases", "opening", *_MEASURES})


def measure(rule: Rule, texts: Iterable[str] | Corpus) -> np.ndarray:
    """Values of `rule` on `texts`, shape `(n,)`, in the rule's unit; an empty text measures 0 for every count."""
    corpus = texts if isinstance(texts, Corpus) else Corpus.of(texts)
    if not len(corpus):
        return np.zeros(0)
    if rule.kind in _MEASURES:
        if rule.kind not in corpus.measured:
            corpus.measured[rule.kind] = _MEASURES[rule.kind](corpus)
        values = corpus.measured[rule.kind]
    elif rule.kind == "opening":
        values = _opens(corpus, rule)
    else:
        count = corpus.present if rule.unit == "present" else corpus.count
        plus, minus = count(rule.phrases), count(rule.against)
        values = (plus - minus) / (plus + minus + 1) if rule.unit == "balance" else plus - minus
    if rule.unit == "per 100 words":
        values = 100 * values / np.maximum(corpus.n_words, 1)
    return np.asarray(values, dtype=float)


def levels(rule: Rule, texts: Iterable[str] | Corpus) -> np.ndarray:
    """Ordinal levels of `rule` on `texts`, shape `(n,)` int64: how many thresholds lie below the measured value.

    Thousands of texts and dozens of rules take about a second, most of it splitting the texts into words, which is
    done once per set of texts.
    """
    return np.searchsorted(np.asarray(rule.thresholds), measure(rule, texts), side="left").astype(np.int64)


def excerpt(rule: Rule, text: str, width: int = 80) -> str | None:
    """The first place in `text` at which one of the rule's phrases (either sign) stands, with some context; None if there is none."""
    phrases = [p for p in phrase_words((*rule.phrases, *rule.against)) if p]
    if rule.kind not in ("phrases", "opening") or not phrases:
        return None
    pattern = "|".join(r"[^\w.!?:;\n]{1,8}".join(map(re.escape, words)) for words in phrases)
    match = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", visible(text), re.IGNORECASE)
    if match is None:
        return None
    start, end = max(match.start() - width // 2, 0), match.end() + width // 2
    return visible(text)[start:end].replace("\n", " ").strip()


def _worded(name: str, unit: Unit = "per 100 words", thresholds: tuple[float, ...] = (0.0, 1.0, 2.5, 5.0)) -> Rule:
    return Rule("phrases", LEXICON[name], thresholds=thresholds, unit=unit)


# Thresholds are a start: a proposer cuts the levels where its responses lie (`dataclasses.replace`).
RULES: Mapping[str, Rule] = {
    "lists": Rule("lists", thresholds=(0.0, 3.0, 6.0, 10.0), unit="count"),
    "headings": Rule("headings", thresholds=(0.0, 2.0, 5.0), unit="count"),
    "bold": Rule("bold", thresholds=(0.0, 3.0, 6.0, 10.0), unit="count"),
    "code": Rule("code", thresholds=(0.0, 2.0), unit="count"),
    "links": Rule("links", thresholds=(0.0,), unit="count"),
    "tables": Rule("tables", thresholds=(0.0,), unit="count"),
    "paragraphs": Rule("paragraphs", thresholds=(0.0, 2.0, 5.0, 9.0), unit="count"),
    "line breaks": Rule("lines", thresholds=(0.0, 1.0, 2.0, 4.0), unit="per 100 words"),
    "questions": Rule("questions", thresholds=(0.0, 1.0, 3.0), unit="count"),
    "final question": Rule("final question", thresholds=(0.0,), unit="count"),
    "unfinished": Rule("unfinished", thresholds=(0.0,), unit="count"),
    "exclamations": Rule("exclamations", thresholds=(0.0, 1.0, 3.0), unit="count"),
    "quotes": Rule("quotes", thresholds=(0.0, 1.0, 2.0, 4.0), unit="per 100 words"),
    "parentheses": Rule("parentheses", thresholds=(0.0, 1.0, 2.0), unit="per 100 words"),
    "commas": Rule("commas", thresholds=(2.0, 4.0, 6.0, 8.0), unit="per 100 words"),
    "colons": Rule("colons", thresholds=(0.0, 1.0, 2.0, 4.0), unit="per 100 words"),
    "dashes": Rule("dashes", thresholds=(0.0, 0.5, 1.0), unit="per 100 words"),
    "emoji": Rule("emoji", thresholds=(0.0, 2.0), unit="count"),
    "capitals": Rule("capitals", thresholds=(0.0, 1.0, 2.0), unit="per 100 words"),
    "digits": Rule("digits", thresholds=(0.0, 1.0, 2.0, 4.0), unit="per 100 words"),
    "other script": Rule("other script", thresholds=(0.02, 0.3, 0.8), unit="value"),
    "sentence length": Rule("sentence length", thresholds=(11.0, 15.0, 19.0, 24.0), unit="value"),
    "word length": Rule("word length", thresholds=(4.0, 4.4, 4.8, 5.2), unit="value"),
    "word variety": Rule("word variety", thresholds=(0.75, 0.8, 0.86, 0.92), unit="value"),
    "readability": Rule("readability", thresholds=(5.0, 8.0, 11.0, 14.0), unit="value"),
    **{name: _worded(name) for name in LEXICON},
    "english": _worded("english", thresholds=(5.0, 20.0, 30.0, 40.0)),
    "refusal": _worded("refusal", "count", (0.0, 1.0)),
    "ai self-reference": _worded("ai self-reference", "count", (0.0, 1.0)),
    "offers of help": _worded("offers of help", "count", (0.0, 1.0)),
    "opening acknowledgement": Rule("opening", LEXICON["opening acknowledgement"]),
}
"""The built-in rules by name."""
