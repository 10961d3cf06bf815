"""A judge that reads: one response per request, fenced, the question after it, one level with its quote back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from agent.errors import ReplyError
from agent.llm.asker import Asker
from agent.llm.embedded import EmbeddedJudge
from agent.llm.fence import fenced, mark_of
from agent.llm.levels import SCHEMA, missing, read_level
from agent.llm.parts import Parts
from agent.llm.protocol import Answer, Request
from agent.records import Judgement, OrderParameter

if TYPE_CHECKING:
    from agent.judge import Text

MAX_TOKENS = 2_000
"""Room for LLMs that think before they answer; the reply itself is under 100 tokens."""
REWORDED = "judge_reworded"
"""Template that says the same in other words."""
DEMAND = "That reply could not be read ({fault}). Reply again to the question above with the JSON object alone."


class ReadingJudge:
    """Judges by asking an LLM.

    A parameter that is an exact rule is read by the rule: nothing is paid for what can be counted.

    Args:
        asker: The way to the LLM.
        template: `prompts/NAME.md`; another wording is another judge.
    """

    deterministic = False

    def __init__(self, asker: Asker, template: str = "judge") -> None:
        self.asker = asker
        self._parts = Parts.load(template)
        self.id = f"{asker.provider.id}#{self._parts.digest}"
        self.template_hash = self._parts.sha256

    @property
    def repeats_in_other_words(self) -> bool:
        """Whether the LLM would say the same again, so that a repeat is made with the reworded rubric."""
        return bool(getattr(self.asker.provider, "deterministic", False))

    @cached_property
    def in_other_words(self) -> ReadingJudge | None:
        """The same judge with its rubric reworded; None for the reworded one itself."""
        return None if self._parts.name == REWORDED else ReadingJudge(self.asker, REWORDED)

    def judge(self, parameter: OrderParameter, texts: Sequence[Text], repeat: int = 0) -> list[Judgement]:
        """One judgement per text, in their order; refused and unreadable replies come back as missing.

        Raises:
            ProviderError: The provider fails; what was answered is kept.
            BudgetError: The budget is spent.
        """
        if parameter.rule is not None:
            return EmbeddedJudge().judge(parameter, texts, repeat)
        if repeat and self.repeats_in_other_words and self.in_other_words is not None:
            again = self.in_other_words.judge(parameter, texts)
            return [one.model_copy(update={"repeat": repeat}) for one in again]
        requests = [self.request(parameter, text, repeat) for text in texts]
        answers = self.asker.ask(requests, about=parameter.id)
        found: list[Judgement | Request] = [self._read(parameter, *row, repeat) for row in zip(texts, answers, requests, strict=True)]
        # one repair each: told what was wrong, most LLMs get it right
        unread = {k: one for k, one in enumerate(found) if isinstance(one, Request)}
        repaired = self.asker.ask(list(unread.values()), about=parameter.id) if unread else []
        for k, answer in zip(unread, repaired, strict=True):
            read = self._read(parameter, texts[k], answer, None, repeat)
            found[k] = read
        return [one for one in found if isinstance(one, Judgement)]

    def request(self, parameter: OrderParameter, text: Text, repeat: int = 0) -> Request:
        """What the LLM is sent about one response: the response first, then the question; never its side or step."""
        _, system, prompt, completion = text
        mark = mark_of(system, prompt, completion)
        parts = [fenced("instructions to the writer", mark, system)] if system.strip() else []
        parts += [fenced("question to the writer", mark, prompt), fenced("reply", mark, completion)]
        first = self._parts.text.fill(material="\n\n".join(parts))
        levels = "\n".join(f"{k}: {anchor}" for k, anchor in enumerate(parameter.levels))
        question = self._parts.question.fill(mark=mark, question=parameter.question, definition=parameter.definition, levels=levels)
        told = self._parts.system.fill(mark=mark)
        labels = (*map(str, range(len(parameter.levels))), "null")
        return Request(told, (first + question,), "rating", SCHEMA, MAX_TOKENS, len(first), repeat, labels)

    def _read(
        self, parameter: OrderParameter, text: Text, answer: Answer | None, request: Request | None, repeat: int
    ) -> Judgement | Request:
        """The judgement; the request to make next where the reply cannot be read and `request` may be repaired."""
        key, *_, completion = text
        if answer is None:
            return missing(parameter.id, key, repeat, "unreadable")
        try:
            fields = read_level(answer, len(parameter.levels), completion)
        except ReplyError as fault:
            if request is None:
                return missing(parameter.id, key, repeat, "unreadable")
            return request.followed_by(answer.text, DEMAND.format(fault=fault))
        return Judgement(parameter_id=parameter.id, response_key=key, repeat=repeat, **fields)
