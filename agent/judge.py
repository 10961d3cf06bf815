"""The judge: reads one response at a time, without knowing where it came from, and names a level of one order parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent.records import Judgement, OrderParameter

Text = tuple[str, str, str, str]
"""(text_key, system, prompt, completion)"""


class Judge(Protocol):
    """Anything that can read responses."""

    @property
    def id(self) -> str:
        """Provider and name, e.g. `embedded` or `anthropic:NAME`; stored with every label."""

    @property
    def deterministic(self) -> bool:
        """True when a second reading is bound to be the same, so that a repeat tells nothing."""

    def judge(self, parameter: OrderParameter, texts: Sequence[Text], repeat: int = 0) -> list[Judgement]:
        """One judgement per text, in their order; what could not be read comes back as missing, never as a level."""


def make_judge(spec: str, option: str = "--judge") -> Judge:
    """The judge named by `--judge` or `--second-judge` ("embedded", "scripted:FILE", "anthropic:NAME", "openai:NAME@ADDRESS", ...).

    Raises:
        ConfigError: No such provider, or its key is not in the environment.
    """
    provider, _, rest = spec.partition(":")
    if provider == "embedded":
        from agent.llm.embedded import EmbeddedJudge

        return EmbeddedJudge()
    if provider == "scripted":
        from agent.llm.scripted import ScriptedJudge

        return ScriptedJudge.load(rest)
    from agent.llm.asker import Asker
    from agent.llm.providers import make_provider
    from agent.llm.reading_judge import ReadingJudge

    return ReadingJudge(Asker(make_provider(spec, option), option.removeprefix("--").replace("-", " ")))
