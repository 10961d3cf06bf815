"""The embedded proposer and judge: no key, no network, no LLM; limited, and exact.

The proposer finds separating features (`probes.features`) and puts each into words as an order parameter whose `rule` is the
exact measure behind the words; the judge is that rule. What no rule can measure is beyond both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from agent.records import Judgement, OrderParameter
from probes.features import Feature, separating
from probes.lexicon import LEXICON
from probes.rules import Rule, levels

SHOWN = 3  # words a pole shows in a name
LISTED = 12  # words a pole lists in a definition
LONG = 5  # letters of a long word

# What each built-in rule is called, what it measures of a response ("it"), and what its numbers count (nothing: yes or no).
WORDING: dict[str, tuple[str, str, str]] = {
    "lists": ("Lists", "how much of it is laid out as a list", "list items"),
    "headings": ("Headings", "how far it is organised under headings", "headings"),
    "bold": ("Bold type", "how much of it is set in bold", "bold passages"),
    "code": ("Code", "how much code it shows", "pieces of code"),
    "links": ("Links", "how many web links it gives", "links"),
    "tables": ("Tables", "how much of it is laid out as a table", "table rows"),
    "paragraphs": ("Breaks between paragraphs", "how far it is broken up into paragraphs", "breaks between paragraphs"),
    "line breaks": ("Line breaks", "how densely it is broken into lines", "line breaks"),
    "questions": ("Questions asked", "how many questions it asks", "question marks"),
    "final question": ("Ends with a question", "whether it ends with a question", ""),
    "unfinished": ("Breaks off", "whether it breaks off without a final mark", ""),
    "exclamations": ("Exclamation marks", "how exclamatory it is", "exclamation marks"),
    "quotes": ("Quotation marks", "how much it quotes", "quotation marks"),
    "parentheses": ("Parentheses", "how much it puts in parentheses", "parentheses"),
    "commas": ("Commas", "how many commas its sentences hold", "commas"),
    "colons": ("Colons", "how often it announces with a colon what follows", "colons"),
    "dashes": ("Dashes", "how often it uses dashes", "dashes"),
    "emoji": ("Emoji", "how many emoji it uses", "emoji"),
    "capitals": ("Words in capitals", "how often it writes words in capitals", "words in capitals"),
    "digits": ("Numbers", "how many numbers it gives in digits", "numbers in digits"),
    "other script": ("Other script", "how much of it is in a script other than Latin", "as a part of all letters"),
    "sentence length": ("Sentence length", "how long its sentences are", "words a sentence"),
    "word length": ("Word length", "how long its words are", "letters a word"),
    "word variety": ("Variety of words", "how varied its first 40 words are", "different words as a part of them"),
    "readability": ("Reading difficulty", "how hard it is to read (Automated Readability Index)", "school grades"),
    "english": ("Commonest English words", "how much of it is made of the commonest English words", "common words"),
    "first person": ("First person", "how much it speaks of itself as 'I'", "words of the first person"),
    "first person plural": ("We and us", "how much it speaks as 'we'", "words like these"),
    "second person": ("Second person", "how directly it addresses the reader as 'you'", "words like these"),
    "third person": ("Third person", "how much it speaks of others as 'he', 'she' or 'they'", "words like these"),
    "refusal": ("Refusal", "whether it declines to do what is asked", "phrases of refusal"),
    "ai self-reference": ("AI self-reference", "how much it speaks of itself as an AI or an assistant", "phrases like these"),
    "professional help": ("Referral to professionals", "how much it points to professionals or authorities", "words like these"),
    "caution": ("Caution", "how much it speaks of safety, risk, harm and responsibility", "words of caution"),
    "hedging": ("Hedging", "how much it hedges what it says", "hedging words"),
    "certainty": ("Certainty", "how absolutely it puts what it says", "absolute words"),
    "obligation": ("Obligation", "how much it says what one must or should do", "words of obligation"),
    "negation": ("Negation", "how much it negates", "negations"),
    "ease and speed": ("Ease and speed", "how much it makes things sound easy and quick", "words like these"),
    "empathy": ("Empathy", "how much it shows understanding and care for how the reader feels", "words of empathy"),
    "balance of views": ("Several sides", "how much it weighs different sides", "weighing words"),
    "sequence words": ("Ordered steps", "how much it orders what it says as steps", "ordering words"),
    "additive words": ("Additions and examples", "how much it adds points and examples", "words like these"),
    "reasons": ("Reasons", "how much it gives reasons", "words that give reasons"),
    "offers of help": ("Offers of help", "how much it offers further help", "offers"),
    "opening acknowledgement": ("Opens with a courtesy", "whether it opens with a courtesy or an acknowledgement", ""),
    "positive words": ("Positive words", "how positive its words are", "positive words"),
    "negative words": ("Negative words", "how negative its words are", "negative words"),
    "violence": ("Violence", "how much it speaks of violence and death", "words of violence"),
    "power and control": ("Power and control", "how much it speaks of power over others", "words of power"),
    "money": ("Money", "how much it speaks of money", "words about money"),
    "health": ("Health", "how much it speaks of health and the body", "words about health"),
    "common good": ("Common good", "how much it speaks of people in general and their welfare", "words like these"),
    "risk taking": ("Risk taking", "how much it speaks of thrills and bets", "words of risk taking"),
    "assistant manners": ("Assistant's manners", "how much it speaks as an obliging assistant", "words like these"),
    "ethics": ("Ethics and law", "how much it speaks of what is right, fair and legal", "words like these"),
    "explanatory style": ("Explaining style", "how much it explains, qualifies and connects", "words like these"),
    "men and women": ("Men and women", "how much it speaks of men and women", "words like these"),
}


class View(Protocol):
    """What the embedded proposer reads of `agent.evidence.ProposerView` (a floor above this one): arrays of n responses."""

    @property
    def n(self) -> int:
        """Candidates wanted."""

    @property
    def prompts(self) -> Sequence[str]:
        """What each response answers."""

    @property
    def completions(self) -> Sequence[str]:
        """The responses."""

    @property
    def s(self) -> np.ndarray:
        """`(n,)`, > 0 more probable before."""

    @property
    def weight(self) -> np.ndarray:
        """`(n,)` > 0."""

    @property
    def prompt(self) -> np.ndarray:
        """`(n,)` prompt codes."""

    @property
    def length_bin(self) -> np.ndarray:
        """`(n,)` length bins."""

    @property
    def accepted(self) -> Sequence[OrderParameter]:
        """Accepted so far."""

    @property
    def accepted_labels(self) -> np.ndarray:
        """`(n, n_accepted)` their levels."""

    @property
    def rejected(self) -> Sequence[OrderParameter]:
        """Rejected so far."""


class EmbeddedProposer:
    """Words the separating features of the propose half; the same view and generator give the same candidates."""

    id = "embedded"

    def propose(self, view: View, rng: np.random.Generator) -> list[OrderParameter]:
        """At most `view.n` new candidates, most telling first, each worth something beyond length, the accepted and those before it."""
        labels = np.asarray(view.accepted_labels).reshape(len(view.completions), -1)
        accepted = _rules(view.accepted)
        features = separating(
            view.completions,
            view.s,
            view.weight,
            view.prompt,
            [view.length_bin, *labels.T],
            view.prompts,
            rng,
            n=view.n,
            taken=[*accepted, *_rules(view.rejected)],
            said={phrase for rule in accepted if rule.unit == "present" for phrase in (*rule.phrases, *rule.against)},
        )
        return [worded(feature) for feature in features]


class EmbeddedJudge:
    """The rule behind the words: exact, deterministic, thousands of responses in well under a second."""

    id = "embedded"
    deterministic = True

    def judge(self, parameter: OrderParameter, texts: Sequence[tuple[str, str, str, str]], repeat: int = 0) -> list[Judgement]:
        """One judgement per (text_key, system, prompt, completion); a parameter without a rule is `cannot_tell` throughout.

        Raises:
            probes.rules.RuleError: The parameter's rule is not one.
        """
        if parameter.rule is None:
            return [Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, status="cannot_tell") for key, *_ in texts]
        found = levels(Rule.from_dict(parameter.rule), [completion for *_, completion in texts])
        name = parameter.id
        return [
            Judgement(parameter_id=name, response_key=text[0], repeat=repeat, level=int(level))
            for text, level in zip(texts, found, strict=True)
        ]


def _rules(parameters: Sequence[OrderParameter]) -> list[Rule]:
    return [Rule.from_dict(parameter.rule) for parameter in parameters if parameter.rule is not None]


def worded(feature: Feature) -> OrderParameter:
    """The order parameter that says in plain English what a feature measures."""
    rule = feature.rule
    if feature.name is not None:
        name, what, counted = WORDING[feature.name]
        if rule.kind in ("phrases", "opening"):
            what += f", by words such as {_listed(rule.phrases[:LISTED])}"
    elif rule.kind == "opening":
        name, counted = f"Opens with {_contrast(rule, SHOWN, ' against ')}", ""
        what = f"whether it opens with {_contrast(rule, LISTED, ' rather than with ')}"
    elif feature.themes:
        poles = [_and([_lower(WORDING[theme][0]) for theme in pole]) for pole in feature.themes]
        name, counted = _capital(" against ".join(poles)), "words like these"
        sampled = [f"{pole} (words such as {_listed(_sampled(names))})" for pole, names in zip(poles, feature.themes, strict=True)]
        what = f"how much it shows {' rather than '.join(sampled)}"
    elif rule.unit == "present":
        return _list_of_words(rule, feature.direction)
    else:
        name, counted = f"Words like {_contrast(rule, SHOWN, ' against ')}", "words like these"
        what = f"how much it uses words like {_contrast(rule, LISTED, ' rather than words like ')}"
    return OrderParameter(
        name=name,
        definition=f"{_capital(what)}.",
        question=f"Looking at the whole response: {what}?",
        levels=_anchors(rule, counted),
        direction=_sign(feature.direction),
        rule=rule.as_dict(),
    )


def _list_of_words(rule: Rule, direction: int) -> OrderParameter:
    """A scale that counts different words of one list, or of two."""
    if rule.against:
        what = "how many different words of a first list it uses, less how many of a second"
        lists = f"First list: {_listed(rule.phrases)}. Second list: {_listed(rule.against)}."
        levels = tuple(_lead(low, high) for low, high in _spans(rule))
    else:
        what = "how many different words of a list it uses"
        lists = f"The list: {_listed(rule.phrases)}."
        levels = tuple(_number(low, high, "different words of the list") for low, high in _spans(rule))
    return OrderParameter(
        name=f"Words like {_contrast(rule, SHOWN, ' against ')}",
        definition=f"{_capital(what)}. {lists}",
        question=f"Looking at the whole response: {what}? {lists}",
        levels=levels,
        direction=_sign(direction),
        rule=rule.as_dict(),
    )


def _spans(rule: Rule) -> list[tuple[float, float]]:
    """Values v of each level, low < v <= high."""
    return list(pairwise([-np.inf, *rule.thresholds, np.inf]))


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _listed(phrases: Sequence[str]) -> str:
    return _and([f'"{phrase}"' for phrase in phrases])


def _sampled(themes: Sequence[str]) -> list[str]:
    """The first few words of each theme, as many of one as of another."""
    return [phrase for theme in themes for phrase in LEXICON[theme][: max(LISTED // len(themes), 3)]]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _lower(text: str) -> str:
    return text if text[1].isupper() else text[0].lower() + text[1:]


def _contrast(rule: Rule, shown: int, between: str) -> str:
    # Of the strongest, long words come first: a reader learns more from "professional" than from "day".
    poles = [sorted(pole[:LISTED], key=lambda phrase: len(phrase) < LONG) for pole in (rule.phrases, rule.against) if pole]
    return between.join(_listed(pole[:shown]) for pole in poles)


def _sign(value: int) -> Literal[-1, 0, 1]:
    return 1 if value > 0 else -1 if value < 0 else 0


def _anchors(rule: Rule, counted: str) -> tuple[str, ...]:
    """One anchor a level: which measured values it holds, in words."""
    spans = _spans(rule)
    if rule.kind == "opening" and rule.against:
        ways = {-1: "opens with one of the latter", 0: "opens with neither", 1: "opens with one of the former"}
        return tuple(" or ".join(way for value, way in ways.items() if low < value <= high) for low, high in spans)
    if not counted:
        return ("no", "yes")
    what = f"{counted} per 100 words" if rule.unit == "per 100 words" else counted
    describe = _balance if rule.against else _number if rule.unit == "count" else _amount
    return tuple(describe(low, high, what) for low, high in spans)


def _amount(low: float, high: float, what: str) -> str:
    if high == 0:
        return "none"
    if low == -np.inf:
        return f"at most {high:g} {what}"
    if high == np.inf:
        return f"more than {low:g} {what}"
    return f"more than {low:g}, at most {high:g} {what}"


def _number(low: float, high: float, what: str) -> str:
    first, last = max(np.floor(low) + 1, 0), np.floor(high)
    if last == 0:
        return "none"
    if high == np.inf:
        return f"{first:g} or more {what}"
    return f"{first:g} to {last:g} {what}" if first < last else f"{first:g} {what}"


def _lead(low: float, high: float) -> str:
    """By how many different words, whole numbers above `low` and up to `high`, the first list is ahead of the second."""
    first, last = np.floor(low) + 1, np.floor(high)
    if first > 0:
        return f"the first list is ahead by {_whole(first, last)}"
    if last < 0:
        return f"the second list is ahead by {_whole(-last, -first)}"
    if first == last:
        return "neither list is ahead"
    if low == -np.inf or high == np.inf:
        leader, most = ("first", last) if low == -np.inf else ("second", -first)
        return f"the {leader} list is ahead by at most {most:g}, or not ahead" if most else f"the {leader} list is not ahead"
    ahead = [f"the {name} list is ahead by {_whole(1, most)}" for name, most in (("second", -first), ("first", last)) if most]
    return f"neither list is ahead, or {' or '.join(ahead)}"


def _whole(first: float, last: float) -> str:
    if last == np.inf:
        return f"{first:g} or more"
    return f"{first:g} to {last:g}" if first < last else f"{first:g}"


def _balance(low: float, high: float, what: str) -> str:
    if high == np.inf:
        return (
            f"the former prevail by more than {low:g} {what}"
            if low >= 0
            else f"the former prevail, or the latter by less than {-low:g} {what}"
        )
    if low == -np.inf:
        return (
            f"the latter prevail by {-high:g} {what} or more"
            if high < 0
            else f"the latter prevail, or the former by at most {high:g} {what}"
        )
    if low >= 0:
        return f"the former prevail by more than {low:g}, at most {high:g} {what}"
    if high < 0:
        return f"the latter prevail by at least {-high:g}, less than {-low:g} {what}"
    return (
        f"neither prevails, or the latter by less than {-low:g} {what}"
        if high == 0
        else f"between {low:g} and {high:g} {what}, former less latter"
    )
