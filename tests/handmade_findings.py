"""Findings written by hand: a few order parameters with their numbers, everything else as a small run would have it."""

from __future__ import annotations

from typing import Any

from agent.records import ContrastRecord, Estimate, Findings, LevelDistribution, OrderParameter, ParameterFinding, Verdict

LEVELS = ("not at all", "a little", "somewhat", "clearly", "very much")


def estimate(value: float, note: str = "") -> Estimate:
    """A number with an interval of .05 to both sides."""
    return Estimate(estimate=value, low=value - 0.05, high=value + 0.05, n=240, note=note)


def parameter(name: str, question: str = "", **more: Any) -> OrderParameter:
    """An order parameter that a judge must read."""
    question = question or f"How much {name} is in the response?"
    return OrderParameter(**{"name": name, "definition": question, "question": question, "levels": LEVELS} | more)


def finding(about: OrderParameter, size: float = 0.4, verdict: Verdict = "accepted", **more: Any) -> ParameterFinding:
    """What a run with D = 0.5 says about it; `size` is its share."""
    numbers: dict[str, Any] = {
        "change": estimate(size / 2),
        "share": estimate(size),
        "unique": estimate(size * 0.9) if verdict == "accepted" else None,
        "levels": LevelDistribution(before=(0.6, 0.1, 0.1, 0.1, 0.1), after=(0.1, 0.1, 0.1, 0.1, 0.6)),
    }
    return ParameterFinding(parameter=about, round=1, verdict=verdict, **numbers | more)


def findings(*parameters: ParameterFinding, **more: Any) -> Findings:
    """A finished run."""
    contrast = ContrastRecord(kind="sides", before="base", after="tuned", n_before=120, n_after=120, n_prompts=12, likelihoods=False)
    accepted = any(p.verdict == "accepted" for p in parameters)
    fields: dict[str, Any] = {
        "run": "runs/source",
        "run_digest": "5" * 64,
        "seed": 0,
        "config": {},
        "versions": {},
        "proposer": "scripted:script.toml",
        "judge": "scripted:script.toml",
        "contrast": contrast,
        "sentences": (),
        "detectable": True,
        "change": estimate(0.5),
        "change_is_bound": False,
        "jensen_shannon": None,
        "total_variation": None,
        "joint": estimate(0.6) if accepted else None,
        "residual": estimate(0.4) if accepted else None,
        "length": None,
        "parameters": parameters,
        "transition": None,
        "training": None,
        "tests": (),
        "smallest_detectable_share": 0.03,
        "rounds": 3,
        "stopped": "2 rounds in a row without acceptance",
        "cautions": (),
    }
    return Findings(**fields | more)
