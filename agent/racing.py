"""Racing: a candidate that shows too little on the propose half is given up before it is read to the end (METHOD 4).

The test on the confirm half does not know of the race: what is given up is only never tested, so no more is accepted than without it,
and shares, measured on the confirm half, are those of candidates that were read whole.
"""

from __future__ import annotations

from agent.decide import round_level
from agent.records import OrderParameter, TestRecord
from agent.state import JudgeTask
from agent.workbench import Workbench
from probes.race import Futility, Look, reading_order

RACE = 9
"""Purpose of random numbers."""
BATCH = 32
"""Responses read between two looks."""
POWER = 0.8
"""A gain that the confirm half would find with this probability is worth reading on for; the report states the same size."""
RISK, LAST_RISK = 0.02, 0.05
"""Probability of so little being seen of such a gain: at each look, and once the whole propose half is read."""


def is_raced(work: Workbench, parameter: OrderParameter, turn: int) -> bool:
    """Whether a candidate may be given up: never what the user wrote down beforehand, and by default only where reading is paid for."""
    choice = work.config.race
    if turn == 0 or choice == "off":
        return False
    return choice == "on" or (parameter.rule is None and any(asker.role == "judge" and asker.at_once for asker in work.askers))


def race(work: Workbench, parameter: OrderParameter, task: JudgeTask, most: int | None = None) -> TestRecord | None:
    """Read the propose half in batches, the most telling responses first, and look after each.

    Args:
        work: The discovery.
        parameter: The candidate.
        task: Its round, and what was accepted before.
        most: Responses after which the race ends; None: all of the propose half.

    Returns:
        The ledger line of a candidate that is given up; None for one to be read to the end.
    """
    rows, contrast, config = work.propose_rows, work.propose, work.config
    base = [work.length_label[rows], *(work.labels(p)[rows] for p in work.get(task["accepted"]))]
    total = float(contrast.mean(contrast.s**2)) if contrast.likelihoods else 1.0
    alpha = round_level(config.alpha, task["round"], task["carried"])
    futility = Futility.of(contrast, base, config.min_share * total, alpha / task["n_candidates"], POWER, work.confirm_rows.size)
    order = reading_order(contrast, work.rng(RACE))
    for n in range(BATCH, min(most or order.size, order.size) + BATCH, BATCH):
        read = order[:n]
        work.judge_rows(parameter, rows[read])
        look = futility.look(read, work.labels_at(parameter, rows[read]))
        if look.probability < (RISK if n < order.size else LAST_RISK):
            return _given_up(parameter, task["round"], alpha, look, total, order.size + work.confirm_rows.size)
    return None


def _given_up(parameter: OrderParameter, turn: int, alpha: float, look: Look, total: float, n_all: int) -> TestRecord:
    reason = (
        f"given up after {look.n} of {n_all} responses: a gain of {look.needed / total:.3f}, the smallest that would be found here, "
        f"would have shown more (p {look.probability:.2g})"
    )
    return TestRecord(
        round=turn,
        family="agent",
        parameter_id=parameter.id,
        name=parameter.name,
        n=look.n,
        gain=None,
        p_value=None,
        alpha=alpha,
        accepted=False,
        reason=reason,
    )


def was_given_up(test: TestRecord) -> bool:
    """Whether a ledger line is that of a candidate which was never tested on the confirm half."""
    return test.p_value is None
