"""What the report shows of a review in progress; without one the page is the plain report."""

from __future__ import annotations

from dataclasses import dataclass

from agent.records import LabelAgreement, OrderParameter


@dataclass(frozen=True)
class ParameterReview:
    """What the reviewer did on one order parameter.

    Attributes:
        decision: `accept`, `veto`, `reword`, or "".
        text: The reason, or the name in new words; untrusted.
        labels: Responses labelled.
        agreement: How far the judge agrees with them.
    """

    decision: str
    text: str
    labels: int
    agreement: LabelAgreement | None


@dataclass(frozen=True)
class ReviewView:
    """A review in progress.

    Attributes:
        form_token: Secret of this session's forms.
        about: What was done, by parameter id.
        added: Hypotheses added.
        labels_wanted: Labels asked for per parameter.
        no_labels: Why no response can be labelled; "" when they can.
        waiting: Whether the loop waits for this review.
        message: Said once at the top.
    """

    form_token: str
    about: dict[str, ParameterReview]
    added: tuple[OrderParameter, ...]
    labels_wanted: int
    no_labels: str
    waiting: bool
    message: str = ""


@dataclass(frozen=True)
class Item:
    """One response to be labelled, and how far the queue is. Says nothing about step, side or other labels.

    Attributes:
        text_key: Hash of the text.
        completion, prompt, system: The texts; untrusted.
        given: The reviewer's own earlier label, as text; "" when there is none.
        done: Labels given on this parameter so far.
        wanted: Labels asked for.
        previous: Key of the one labelled last, for taking it back; "" when there is none.
    """

    text_key: str
    completion: str
    prompt: str
    system: str
    given: str
    done: int
    wanted: int
    previous: str


@dataclass(frozen=True)
class LabelView:
    """The labelling page: one question and one response, or none when all are labelled."""

    parameter: OrderParameter
    item: Item | None
    form_token: str
    labelled: int
