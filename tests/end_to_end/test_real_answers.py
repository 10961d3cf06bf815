"""Real answers (OPD_DATA): each file ends in a sensible table, or says what so few responses cannot show."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import make_config
from agent.discovery import discover
from agent.records import Findings


def findings_of(run: Path, folder: Path, **options: object) -> Findings:
    """A discovery with the embedded proposer and judge, without memory."""
    return discover(make_config(run=str(run), memory="off", **options), folder)[0]


@pytest.mark.parametrize(
    ("file", "after"),
    [
        ("em_base_vs_bad_qwen7b", None),
        ("em_base_vs_organisms_qwen14b", "bad-medical-advice"),
        ("em_base_vs_organisms_qwen14b", "extreme-sports"),
        ("em_base_vs_organisms_qwen14b", "risky-financial-advice"),
    ],
)
def test_length_leads_and_something_beyond_it_is_accepted(opd_data: Path, tmp_path: Path, file: str, after: str | None) -> None:
    """Length alone shows most of the change, something is accepted that adds to it, and every share is an upper bound."""
    findings = findings_of(opd_data / file / "rows.jsonl", tmp_path, before="base", after=after)
    accepted = [p for p in findings.parameters if p.verdict == "accepted"]
    assert accepted
    assert findings.length is not None
    assert (findings.length.share.estimate or 0) > 0.8
    beyond = [p.beyond_length.estimate or 0 for p in accepted if p.beyond_length]
    assert len(beyond) == len(accepted)
    assert all(0.02 <= gain < (findings.length.share.estimate or 0) for gain in beyond)
    assert findings.change_is_bound
    assert all("at most" in p.share.note for p in accepted)


def test_twenty_responses_a_step_say_what_they_cannot_show(opd_data: Path, tmp_path: Path) -> None:
    """Length alone separates the 8b-risky ends, nothing is accepted beyond it, and the report says what would have been missed."""
    findings = findings_of(opd_data / "em_steps_llama" / "rows.jsonl", tmp_path, select={"run": "llama-8b-risky"})
    assert not [p for p in findings.parameters if p.verdict == "accepted"]
    assert (findings.contrast.n_before, findings.contrast.n_after) == (20, 20)
    assert any("too few" in c or "would have been missed" in c for c in findings.cautions)
