"""An order parameter's fingerprint: its levels on the reference responses, the same few texts for every run (`prompts.reference`).

Parameters of different runs are compared by their fingerprints. Exact rules are read for nothing; what only a judge can read costs
one judgement per reference response, kept in the run's store like every other.
"""

from __future__ import annotations

from agent.judge import Text
from agent.llm.embedded import EmbeddedJudge
from agent.records import OrderParameter
from agent.workbench import Workbench, judgement_row
from prompts.reference import reference_responses
from tracing.responses import text_hash


def reference_texts() -> list[Text]:
    """The reference responses as a judge gets them."""
    return [(text_hash("", one.prompt, one.completion), "", one.prompt, one.completion) for one in reference_responses()]


def exact_levels(parameter: OrderParameter, texts: list[Text]) -> dict[str, int | None]:
    """Levels by the parameter's own rule, by text key."""
    return {one.response_key: one.level for one in EmbeddedJudge().judge(parameter, texts)}


def fingerprint(work: Workbench, parameter: OrderParameter) -> dict[str, int | None]:
    """Levels on the reference responses, by text key; None where the judge could not tell. Judged now where that was not done yet.

    Raises:
        ProviderError: The judge's provider fails; what was answered is kept.
        BudgetError: The budget is spent.
    """
    texts = reference_texts()
    if parameter.rule is not None:
        return exact_levels(parameter, texts)
    known = work.store.get(work.judge.id, parameter.id)
    missing = [text for text in texts if text[0] not in known]
    if missing:
        work.store.put_many(judgement_row(work.judge.id, one) for one in work.judge.judge(parameter, missing))
    return known_fingerprint(work, parameter)


def known_fingerprint(work: Workbench, parameter: OrderParameter) -> dict[str, int | None]:
    """The same without judging anything: empty for a parameter that was never read on the reference responses."""
    if parameter.rule is not None:
        return exact_levels(parameter, reference_texts())
    known = work.store.get(work.judge.id, parameter.id)
    return {key: known[key]["level"] for key, *_ in reference_texts() if key in known}
