"""What LLM roles are going to need, before anything is spent: calls, tokens and dollars, least to most."""

from __future__ import annotations

from dataclasses import dataclass

from agent.fingerprints import reference_texts
from agent.hypotheses import Hypothesis, read_hypotheses
from agent.llm.asker import Asker
from agent.racing import BATCH
from agent.rereading import ways
from agent.workbench import Workbench
from tracing.cost import Price, Tokens, price_of

CHARACTERS_PER_TOKEN = 4.0
"""English prose; other languages and code have fewer characters a token, so an estimate may be half of what is counted."""
SMALL_REPLY, LARGE_REPLY = 60, 400
"""Tokens of a judge's reply: the JSON object alone, and with some thinking before it."""
FRAME = 3_000
"""Characters of a template around the text."""
EARLY = 4
"""A candidate that is given up is read on one response in this many at least."""
WORDING, LONG_WORDING = 1_000, 12_000
"""Tokens of a proposer's reply."""


@dataclass(frozen=True)
class Need:
    """What one role needs, least and most."""

    asker: Asker
    least: Tokens
    most: Tokens

    def line(self) -> str:
        """In words."""
        price = price_of(self.asker.provider.id)
        tokens = f"{_short(self.least.input + self.least.output)} to {_short(self.most.input + self.most.output)} tokens"
        calls = f"{self.least.calls:,} to {self.most.calls:,} calls"
        return f"{self.asker.role} {self.asker.provider.id}: {calls}, {tokens}, {self._cost(price)}"

    def _cost(self, price: Price | None) -> str:
        if price is None:
            return "price not known"
        if not price.usd(self.most):
            return "free"
        return f"${price.usd(self.least):.2f} to ${price.usd(self.most):.2f} at the list prices of {price.as_of} (not verified)"


def estimate(work: Workbench) -> list[str]:
    """Calls, tokens and cost of a discovery from here to its end, one line per paid role and one that says what least and most are.

    The least is two rounds of candidates of which none is accepted, given up early where racing is on; the most is every round with every
    candidate read to the end, accepted, and read again (METHOD 4). Null runs are within the most: they read the same responses. Answers
    that are kept already are not taken off.
    """
    if not work.askers:
        return []
    config = work.config
    given = read_hypotheses(config.hypotheses, config.hypothesis)
    needs = [_needed(work, asker, given) for asker in work.askers]
    least = "two rounds without acceptance" + (", candidates given up early" if _raced(work) else "")
    most = f"all {config.rounds} rounds, everything accepted and read again" + (", in null runs too" if config.null != "none" else "")
    return [*(need.line() for need in needs), f"least: {least}; most: {most}; answers that are kept already cost nothing"]


def estimate_score(work: Workbench, n_texts: int, characters: int, n_parameters: int) -> list[str]:
    """The same of a score: every response on every parameter that has to be read, once, or twice where a reply cannot be read.

    Args:
        work: The responses to be scored and the judge.
        n_texts: Distinct texts among them.
        characters: Of all of them together.
        n_parameters: Order parameters without a rule.
    """
    calls = n_texts * n_parameters
    return [_read(asker, calls, 2 * calls, characters / max(n_texts, 1)).line() for asker in work.askers]


def _raced(work: Workbench) -> bool:
    judges = [asker for asker in work.askers if asker.role == "judge"]
    return work.config.race == "on" or (work.config.race == "auto" and any(asker.at_once for asker in judges))


def _needed(work: Workbench, asker: Asker, given: list[Hypothesis]) -> Need:
    config, texts = work.config, work.texts
    characters = sum(len(prompt) + len(system) + len(text) for _, system, prompt, text in texts) / max(len(texts), 1)
    n = len(texts)
    n_confirm = len({work.text_keys[i] for i in work.contrast.index[work.confirm_rows]})
    few_rounds = min(2, config.rounds)
    if asker.role == "judge":
        own = sum("rule" not in hypothesis.given for hypothesis in given)
        first = min(n, max(BATCH, n // EARLY)) if _raced(work) else n
        again = n_confirm + sum(min(config.reread, n_confirm) for way in ways(work) if way.kind == "other words")
        shared = len(reference_texts()) if config.memory != "off" else 0
        least = own * (n + shared) + few_rounds * config.candidates * (first + shared)
        return _read(asker, least, (own + config.rounds * config.candidates) * (n + shared + again), characters)
    if asker.role == "proposer":
        own = sum(not hypothesis.whole for hypothesis in given)
        shown = round(2 * config.evidence_pairs * (characters + FRAME) / CHARACTERS_PER_TOKEN)
        least, most = own + few_rounds, 2 * (own + config.rounds)
        return Need(asker, Tokens(least, least * shown, least * WORDING), Tokens(most, 2 * most * shown, most * LONG_WORDING))
    accepted = len(given) + config.rounds * config.candidates
    return _read(asker, 0, accepted * min(config.reread, n_confirm), characters)


def _read(asker: Asker, least: int, most: int, characters: float) -> Need:
    """Readings of responses of so many characters each; the most: every reply long, every other one asked for again."""
    each = (characters + FRAME) / CHARACTERS_PER_TOKEN
    return Need(asker, Tokens(least, round(least * each), least * SMALL_REPLY), Tokens(most, round(2 * most * each), most * LARGE_REPLY))


def _short(n: int) -> str:
    return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.0f} k" if n >= 1e3 else str(n)
