"""Blinded labels measure the judge: which responses a person is asked about, and how far the two agree.

Responses are drawn at random, whatever the judge said, so that agreement on them estimates agreement on all. The person sees one response
and one question: no step, no side, no label of the judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from agent.records import LabelAgreement, OrderParameter
from probes.agreement import agreement


def queue(parameter_id: str, text_keys: Iterable[str]) -> list[str]:
    """Text keys in the order they are asked about: by a hash, so the same in every session and unrelated to anything else."""
    return sorted(set(text_keys), key=lambda key: hashlib.sha256(f"{parameter_id}:{key}".encode()).digest())


def measure_judge(
    parameter: OrderParameter, labels: Mapping[tuple[str, str], int | None], judged: Mapping[str, int | None]
) -> LabelAgreement | None:
    """How far a reviewer's labels agree with the judge's on one order parameter.

    Args:
        parameter: The order parameter.
        labels: The reviewer's levels by (parameter id, text key); None for "cannot tell".
        judged: The judge's levels by text key; None where missing.

    Returns:
        The agreement; None when the reviewer labelled no response that the judge was asked about.
    """
    own = {key: level for (about, key), level in sorted(labels.items()) if about == parameter.id and key in judged}
    if not own:
        return None

    def array(levels: Iterable[int | None]) -> np.ndarray:
        return np.array([-1 if level is None else level for level in levels], dtype=np.int64)

    by_person, by_judge = array(own.values()), array(judged[key] for key in own)
    found = agreement(by_person, by_judge, len(parameter.levels))
    return LabelAgreement(
        parameter_id=parameter.id,
        name=parameter.name,
        labels=len(own),
        cannot_tell=int((by_person < 0).sum()),
        judge_missing=int((by_judge < 0).sum()),
        n=found.n,
        exact=found.exact,
        weighted_kappa=found.weighted_kappa,
        krippendorff_alpha=found.krippendorff_alpha,
    )
