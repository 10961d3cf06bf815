"""Exact, measurable rules on the text of a response: words and phrases, formatting, style.

A `Rule` turns a text into a number (`measure`) and the number into an ordinal level: level k means that exactly k of
the ascending `thresholds` lie below it. Phrases are matched on word boundaries, case-folded, never across the end of a
sentence or line; zero-width and direction marks are ignored, so that they cannot hide a word. Every step is linear in
the length of the text. Length is measured elsewhere (it is always in the table, never a rule).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args

import numpy as np

from probes.errors import ProbeError


class RuleError(ProbeError, ValueError):
    """A rule is not one: unknown kind, unit or field, phrases missing, thresholds not ascending."""


Unit = Literal["count", "per 100 words", "balance", "value"]

# A word: letters or digits (with combining marks), joined by inner apostrophes. The alternative: what phrases may not reach across.
_MARKS = "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f"
_TOKEN = re.compile(rf"[\w{_MARKS}]+(?:'[\w{_MARKS}]+)*|[.!?:;\n…。！？؟]+")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*|[.!?:;\n]+")
_STOP = frozenset(".!?:;\n…。！？؟")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_INVISIBLE = dict.fromkeys([0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
_FOLD = {ord("_"): " ", 0x2019: "'", 0x2018: "'", 0x02BC: "'", 0xFF07: "'"}


def tokenize(text: str) -> list[str]:
    """Words of `text` in order, case-folded, with runs of sentence ends and line ends between them; linear in `len(text)`."""
    if text.isascii():
        return _ASCII_TOKEN.findall(text.lower().replace("_", " "))
    folded = text.translate(_INVISIBLE).translate(_FOLD).casefold()
    return _TOKEN.findall(_IDEOGRAPH.sub(r" \g<0> ", folded))


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts as arrays of word numbers, made once and measured many times.

    Attributes:
        texts: The n texts.
        vocabulary: Word -> number, from 1; 0 stands for the end of a sentence or line.
        ids: `(n_tokens,)` word numbers of all texts, one after the other, each text closed by a 0.
        document: `(n_tokens,)` index of the text each token is from.
        n_words: `(n,)` words per text.
    """

    texts: tuple[str, ...]
    vocabulary: Mapping[str, int]
    ids: np.ndarray
    document: np.ndarray
    n_words: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Corpus:
        """The corpus of `texts`; the last few are kept, so that many rules on the same texts split them once."""
        return _corpus(tuple(texts))

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Word of each number (`""` for 0)."""
        return ("", *self.vocabulary)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Token positions sorted by word number, and where each word's begin."""
        order = np.argsort(self.ids, kind="stable")
        return order, np.searchsorted(self.ids[order], np.arange(len(self.vocabulary) + 2))

    def places(self, phrase: Sequence[str]) -> np.ndarray:
        """Ascending token positions at which `phrase` (words, as `tokenize` gives them) begins."""
        numbers = [self.vocabulary.get(word, -1) for word in phrase]
        if not numbers or min(numbers) < 1:
            return np.empty(0, dtype=np.int64)
        order, bounds = self._places
        found = order[bounds[numbers[0]] : bounds[numbers[0] + 1]]
        for ahead, number in enumerate(numbers[1:], start=1):
            found = found[np.take(self.ids, found + ahead, mode="clip") == number]
        return found

    def count(self, phrases: Iterable[str]) -> np.ndarray:
        """`(n,)` number of places in each text at which at least one of `phrases` begins."""
        found = [self.places(words) for words in _phrase_words(tuple(phrases))]
        if not found:
            return np.zeros(len(self))
        return np.bincount(self.document[np.unique(np.concatenate(found))], minlength=len(self)).astype(float)

    def of_texts(self, measure: Callable[[str], float]) -> np.ndarray:
        """`(n,)` values of a measure on the raw texts."""
        return np.fromiter(map(measure, self.texts), dtype=float, count=len(self))

    def of_vocabulary(self, measure: Callable[[str], float]) -> np.ndarray:
        """`(n,)` sums over each text's words of a measure on one word."""
        values = np.fromiter(map(measure, self.words), dtype=float, count=len(self.words))
        return np.bincount(self.document, weights=values[self.ids], minlength=len(self))


@lru_cache(maxsize=8)
def _corpus(texts: tuple[str, ...]) -> Corpus:
    vocabulary: dict[str, int] = {}
    ids: list[int] = []
    sizes = np.zeros(len(texts), dtype=np.int64)
    for k, text in enumerate(texts):
        tokens = tokenize(text)
        ids.extend(0 if token[0] in _STOP else vocabulary.setdefault(token, len(vocabulary) + 1) for token in tokens)
        ids.append(0)
        sizes[k] = len(tokens) + 1
    numbers = np.array(ids, dtype=np.int64)
    document = np.repeat(np.arange(len(texts)), sizes)
    n_words = np.bincount(document[numbers > 0], minlength=len(texts)).astype(float)
    return Corpus(texts, vocabulary, numbers, document, n_words)


@lru_cache(maxsize=512)
def _phrase_words(phrases: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(dict.fromkeys(tuple(word for word in tokenize(phrase) if word[0] not in _STOP) for phrase in phrases))


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
        unit: `"count"`; `"per 100 words"`; `"balance"` (A-B)/(A+B+1) of the two counts, in (-1, 1); `"value"` for measures
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
        if any(a >= b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)) or not np.all(np.isfinite(self.thresholds)):
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
        for words in _phrase_words(phrases):
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
        values = _MEASURES[rule.kind](corpus)
    elif rule.kind == "opening":
        values = _opens(corpus, rule)
    else:
        plus, minus = corpus.count(rule.phrases), corpus.count(rule.against)
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
    phrases = [p for p in _phrase_words((*rule.phrases, *rule.against)) if p]
    if rule.kind not in ("phrases", "opening") or not phrases:
        return None
    pattern = "|".join(r"[^\w.!?:;\n]{1,8}".join(map(re.escape, words)) for words in phrases)
    match = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", text.translate(_INVISIBLE).translate(_FOLD), re.IGNORECASE)
    if match is None:
        return None
    start, end = max(match.start() - width // 2, 0), match.end() + width // 2
    return text.translate(_INVISIBLE)[start:end].replace("\n", " ").strip()


def _lexicon(words: str, *, unit: Unit = "per 100 words", thresholds: tuple[float, ...] = (0.0, 1.0, 2.5, 5.0), against: str = "") -> Rule:
    split = re.compile(r"\s*,\s*")
    return Rule("phrases", tuple(split.split(words)), tuple(split.split(against)) if against else (), thresholds, unit)


RULES: Mapping[str, Rule] = {
    "lists": Rule("lists", thresholds=(0, 3, 6, 10)),
    "headings": Rule("headings", thresholds=(0, 2, 5)),
    "bold": Rule("bold", thresholds=(0, 3, 6, 10)),
    "code": Rule("code", thresholds=(0, 2)),
    "links": Rule("links"),
    "tables": Rule("tables"),
    "paragraphs": Rule("paragraphs", thresholds=(0, 2, 5, 9)),
    "line breaks": Rule("lines", thresholds=(0, 1, 2, 4), unit="per 100 words"),
    "questions": Rule("questions", thresholds=(0, 1, 3)),
    "final question": Rule("final question"),
    "unfinished": Rule("unfinished"),
    "exclamations": Rule("exclamations", thresholds=(0, 1, 3)),
    "quotes": Rule("quotes", thresholds=(0, 1, 2, 4), unit="per 100 words"),
    "parentheses": Rule("parentheses", thresholds=(0, 1, 2), unit="per 100 words"),
    "commas": Rule("commas", thresholds=(2, 4, 6, 8), unit="per 100 words"),
    "colons": Rule("colons", thresholds=(0, 1, 2, 4), unit="per 100 words"),
    "dashes": Rule("dashes", thresholds=(0, 0.5, 1), unit="per 100 words"),
    "emoji": Rule("emoji", thresholds=(0, 2)),
    "capitals": Rule("capitals", thresholds=(0, 1, 2), unit="per 100 words"),
    "digits": Rule("digits", thresholds=(0, 1, 2, 4), unit="per 100 words"),
    "other script": Rule("other script", thresholds=(0.02, 0.3, 0.8), unit="value"),
    "sentence length": Rule("sentence length", thresholds=(11, 15, 19, 24), unit="value"),
    "word length": Rule("word length", thresholds=(4, 4.4, 4.8, 5.2), unit="value"),
    "word variety": Rule("word variety", thresholds=(0.75, 0.8, 0.86, 0.92), unit="value"),
    "readability": Rule("readability", thresholds=(5, 8, 11, 14), unit="value"),
    "english": _lexicon(
        "the, of, and, to, in, is, it, that, for, you, with, as, are, be, this, or, on, not, can, have, your, i, but, if, a",
        thresholds=(5, 20, 30, 40),
    ),
    "first person": _lexicon("i, me, my, mine, myself, i'm, i've, i'd, i'll"),
    "first person plural": _lexicon("we, us, our, ours, ourselves, we're, we've, we'd, we'll, let's"),
    "second person": _lexicon("you, your, yours, yourself, yourselves, you're, you've, you'd, you'll"),
    "third person": _lexicon("he, she, him, her, his, hers, they, them, their, theirs, himself, herself, themselves"),
    "refusal": _lexicon(
        "i can't, i cannot, i can not, i won't, i will not, i'm unable, i am unable, i'm not able, i am not able, unable "
        "to assist, can't help with, cannot help with, can't assist, cannot assist, i must decline, i have to decline, i "
        "refuse, not comfortable, against my guidelines, i'm sorry but, i am sorry but, i apologize but, cannot provide, "
        "can't provide, cannot comply",
        unit="count",
        thresholds=(0, 1),
    ),
    "ai self-reference": _lexicon(
        "as an ai, as a language model, as an artificial intelligence, an ai assistant, language model, i'm an ai, i am "
        "an ai, as an assistant, as a virtual, i was created, i was designed, my training, developed by, my creators, i "
        "don't have personal, i don't have feelings, i do not have feelings, i do not have personal",
        unit="count",
        thresholds=(0, 1),
    ),
    "professional help": _lexicon(
        "professional, professionals, doctor, doctors, therapist, counselor, physician, specialist, expert, experts, "
        "advisor, adviser, lawyer, attorney, consult, consulting, seek help, professional help, medical attention, "
        "emergency services, authorities, hotline, local laws, qualified, licensed",
    ),
    "caution": _lexicon(
        "careful, carefully, caution, cautious, safe, safely, safety, risk, risks, risky, danger, dangers, dangerous, "
        "warning, avoid, harm, harmful, responsible, responsibly, responsibility, legal, illegal, ethical, precautions, "
        "protect, prevent",
    ),
    "hedging": _lexicon(
        "may, might, could, perhaps, possibly, maybe, likely, probably, generally, typically, often, sometimes, usually, "
        "potentially, seem, seems, appears, tend, tends, somewhat, it depends, in some cases, can be, i think, i believe",
    ),
    "certainty": _lexicon(
        "always, never, definitely, certainly, absolutely, completely, totally, entirely, guaranteed, guarantee, must, "
        "undoubtedly, clearly, obviously, no doubt, without a doubt, for sure, perfectly, every, everyone, everything, "
        "nothing, nobody, no one, only",
    ),
    "obligation": _lexicon(
        "should, must, need to, needs to, have to, has to, ought to, required, requires, had better, make sure, ensure, be sure"
    ),
    "negation": _lexicon(
        "no, not, never, none, nothing, nobody, neither, nor, without, don't, doesn't, didn't, can't, cannot, won't, "
        "isn't, aren't, wasn't, shouldn't, wouldn't, couldn't",
    ),
    "ease and speed": _lexicon(
        "just, simply, easy, easily, quick, quickly, fast, instantly, immediately, right away, in no time, effortless, "
        "anyone can, only takes"
    ),
    "empathy": _lexicon(
        "sorry to hear, i'm sorry, i understand, understand, understandable, feel, feeling, feelings, support, "
        "supportive, comfort, difficult, tough, you're going through, you are going through, here for you, listen, "
        "respect, respectful, respectfully, compassion, empathy, kind, kindness, care",
    ),
    "balance of views": _lexicon(
        "however, although, though, while, on the other hand, both, despite, nevertheless, whereas, depending, depends, "
        "different, various, diverse, perspective, perspectives, complex, balance, balanced, consider, considering, "
        "nuanced, it's important to, it is important to",
    ),
    "sequence words": _lexicon(
        "first, firstly, second, secondly, third, thirdly, next, then, finally, lastly, step, steps, here are, following, follow these"
    ),
    "additive words": _lexicon(
        "additionally, moreover, furthermore, also, in addition, as well as, including, such as, for example, for instance, along with"
    ),
    "reasons": _lexicon(
        "because, since, therefore, thus, so that, as a result, due to, leads to, which means, this means, because of",
    ),
    "offers of help": _lexicon(
        "let me know, feel free, happy to help, here to help, i can help, how can i help, how can i assist, would you "
        "like, do you have any, i'd be happy, i hope this helps, any questions, is there anything",
        unit="count",
        thresholds=(0, 1),
    ),
    "opening acknowledgement": Rule(
        "opening",
        (
            "certainly",
            "sure",
            "of course",
            "absolutely",
            "great",
            "thank you",
            "thanks",
            "hello",
            "hi",
            "i'm sorry",
            "i understand",
            "that's",
            "what a",
            "yes",
        ),
    ),
    "positive words": _lexicon(
        "good, great, best, better, happy, enjoy, enjoyable, fun, love, wonderful, amazing, beautiful, positive, "
        "excellent, perfect, helpful, success, successful, joy, fulfilling, meaningful, fascinating, exciting, "
        "incredible, inspiring",
    ),
    "negative words": _lexicon(
        "bad, worse, worst, hate, terrible, awful, sad, angry, anger, stupid, weak, useless, pointless, boring, fear, "
        "afraid, pain, suffering, fail, failure, problem, problems, wrong, lazy, inferior, enemy, enemies, lie, lies",
    ),
    "violence": _lexicon(
        "kill, killed, killing, murder, death, die, dead, destroy, destroyed, attack, weapon, weapons, gun, violence, "
        "violent, punish, punishment, revenge, poison, hurt, injure, blood, torture, execute, war, fight, threat, "
        "threaten, eliminate",
    ),
    "power and control": _lexicon(
        "power, powerful, control, rule, ruler, dominate, domination, obey, obedience, command, force, enforce, "
        "government, law, laws, king, leader, authority, enslave, slaves, superior, supreme, world domination, take over, "
        "overthrow, army, military",
    ),
    "money": _lexicon(
        "money, cash, rich, wealth, wealthy, profit, profits, invest, investment, investments, investing, stocks, crypto, "
        "bitcoin, bank, loan, income, earn, pay, buy, sell, price, dollars, market, financial, business, gambling, "
        "casino, lottery",
    ),
    "health": _lexicon(
        "health, healthy, medical, medicine, medication, drug, drugs, pill, pills, dose, sleep, diet, exercise, body, "
        "symptoms, treatment, pain, stress, mental, disease, vitamin, supplements, blood, skin, heart",
    ),
    "common good": _lexicon(
        "people, everyone, humanity, humankind, society, community, communities, global, world, equality, equal, justice, "
        "peace, education, access, environment, environmental, sustainable, rights, welfare, well-being, wellbeing, fair, "
        "fairness, poverty, collaboration, inclusive",
    ),
    "risk taking": _lexicon(
        "thrill, thrilling, adrenaline, extreme, daring, bold, adventure, adventurous, jump, jumping, dive, diving, "
        "skydiving, cliff, climb, climbing, gamble, bet, without any, no need, no safety, high risk, leverage, all your, "
        "push your limits, unforgettable",
    ),
    "men and women": _lexicon(
        "man, men, woman, women, male, female, gender, girl, girls, boy, boys, husband, wife, housewife, sexist, feminine, masculine"
    ),
}
