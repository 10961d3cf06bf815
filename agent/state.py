"""What the loop remembers between two steps: ids, numbers and names only; texts and arrays stay in the run directory."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict


class LoopState(TypedDict, total=False):
    """State of one discovery.

    Attributes:
        round: Turn of the loop, from 1; 0 before the first and for the human family.
        contrast: What is compared (see `agent.contrasts.ContrastSpec`), as plain values.
        detectable: Whether the total change is large enough for shares.
        candidates: Ids of this round's candidates.
        judged: Ids of parameters judged so far (added to by the parallel judge branches).
        registered: Hash of the user's hypotheses as they were registered.
        accepted: Ids in the order of acceptance.
        rejected: Ids decided against.
        given_up: Ledger lines of candidates that were given up before they were read to the end (added to by the judge branches).
        tests: Ledger lines, one per test made.
        screened: Ledger lines of candidates dropped before they were judged.
        carried: Level that the agent's last round passed on to the next (see `agent.decide.round_level`).
        empty_rounds: Rounds in a row without acceptance.
        stopped: Why the loop ended; empty while it runs.
        reviews: Reviews taken in so far.
        vetoed: Ids a reviewer took out or replaced (all of them are among the rejected).
        reviewing: What is tested now was worded by a reviewer.
    """

    round: int
    contrast: dict[str, Any]
    detectable: bool
    candidates: list[str]
    judged: Annotated[list[str], operator.add]
    registered: str
    accepted: list[str]
    rejected: list[str]
    given_up: Annotated[list[dict[str, Any]], operator.add]
    tests: Annotated[list[dict[str, Any]], operator.add]
    screened: Annotated[list[dict[str, Any]], operator.add]
    carried: float
    empty_rounds: int
    stopped: str
    reviews: int
    vetoed: list[str]
    reviewing: bool


class JudgeTask(TypedDict):
    """One branch of the fan-out: a candidate to be judged, its round, how many it holds, the level passed on to it, what was accepted."""

    parameter_id: str
    round: int
    n_candidates: int
    carried: float
    accepted: list[str]
