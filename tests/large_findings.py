"""Findings as large as a large run leaves them: 20 order parameters on 10,000 responses, two to each of 5,000 prompts."""

from __future__ import annotations

import math
from typing import Any

from agent.records import Course, EvidencePair, Findings, RotationRecord
from tests.report_findings import full

N_PARAMETERS, N_RESPONSES, N_STEPS = 20, 10_000, 400
N_PROMPTS = N_RESPONSES // 2
_TEXT = "One sentence after the other says what should be done, and why, and what had better be left. "


def large() -> Findings:
    """The full hand-made findings, blown up: courses of 400 steps, evidence of 3,000 characters a response, a share at every prompt."""
    base = full()
    prompts = {f"{k:016x}": f"Question number {k}: {_TEXT}" for k in range(N_PROMPTS)}
    steps = tuple(range(N_STEPS))
    parameters = []
    for k in range(N_PARAMETERS):
        found = base.parameters[k % len(base.parameters)]
        middle = 100.0 + 5 * k
        means = tuple(0.2 + 3 / (1 + math.exp(-(step - middle) / 20)) for step in steps)
        course = Course(steps=steps, estimate=means, low=tuple(x - 0.1 for x in means), high=tuple(x + 0.1 for x in means))
        pair = EvidencePair(
            prompt=_TEXT,
            before=_TEXT * 40,
            after=_TEXT * 60,
            before_level=0,
            after_level=1,
            after_quote=_TEXT[:40],
            before_quote=_TEXT[:20],
        )
        changed: dict[str, Any] = {
            "parameter": found.parameter.model_copy(
                update={"name": f"{found.parameter.name} {k}", "question": f"{found.parameter.question} {k}"}
            ),
            "verdict": "accepted" if k < N_PARAMETERS // 2 else "rejected",
            "shapley": base.parameters[0].shapley,
            "unique": base.parameters[0].unique,
            "course": course,
            "evidence": (pair,) * 3,
            "prompt_shares": {key: ((k + 1) * place % 97) / 97 for place, key in enumerate(prompts)},
        }
        parameters.append(found.model_copy(update=changed))
    assert base.transition is not None
    curve = tuple(0.03 + 0.4 * math.exp(-(((step - 200) / 40) ** 2)) for step in steps)
    transition = base.transition.model_copy(
        update={
            "splits": tuple(map(float, steps)),
            "curve": curve,
            "low": tuple(x - 0.02 for x in curve),
            "high": tuple(x + 0.02 for x in curve),
        }
    )
    return base.model_copy(
        update={
            "parameters": tuple(parameters),
            "prompts": prompts,
            "transition": transition,
            "rotation": RotationRecord(leg=20, steps=steps, cosine=tuple(-x for x in curve)),
            "contrast": base.contrast.model_copy(update={"n_before": N_PROMPTS, "n_after": N_PROMPTS, "n_prompts": N_PROMPTS}),
            "tests": base.tests * 10,
        }
    )
