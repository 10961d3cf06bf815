"""Do the responses stand for what they are said to stand for? Checks that can fail, and what a failed one takes away (METHOD 2, 2b)."""

from __future__ import annotations

import numpy as np

from agent.contrasts import drawn_columns, prompt_codes
from agent.measure import estimate_of
from agent.records import ChecksRecord, Estimate
from agent.wording import shown_numbers
from agent.workbench import Workbench
from probes.anchor_calibration import anchor_calibration
from probes.mixture import averages_one, low_percentile, usable_rows
from probes.resampling import jackknife


def checks_of(work: Workbench) -> ChecksRecord | None:
    """Every check of the contrast's responses; None without likelihoods, where nothing is reweighted."""
    contrast, table = work.contrast, work.recording.log_likelihood
    if not contrast.likelihoods or table is None or contrast.ess.size == 0:
        return None
    drawn, prompt = drawn_columns(work.recording), prompt_codes(work.recording)
    rows = contrast.index
    calibrated = usable_rows(table[rows], drawn[rows], np.unique(drawn[rows])).rows
    rows = rows[calibrated] if calibrated.any() else rows
    calibration = anchor_calibration(table[rows], drawn[rows], np.unique(prompt[rows], return_inverse=True)[1])
    balance = contrast.balance()
    mean = contrast.mean_weight
    average = jackknife(float(mean.mean()), (mean.sum() - mean) / max(mean.size - 1, 1))
    detection = work.chosen[1]
    splits = np.zeros(0) if detection is None else detection.curve.curve
    n = contrast.s.size
    return ChecksRecord(
        anchors=tuple(work.recording.steps[k] for k in np.unique(drawn[contrast.index])),
        covered=contrast.covered,
        ess_fifth_percentile=float(low_percentile(contrast.ess)),
        mean_weight=estimate_of(average, n),
        balance=estimate_of(balance, n),
        balanced=bool(averages_one(np.array(1 + balance.estimate), np.array(balance.standard_error))),
        calibration=_calibrated(calibration.slope, calibration.error, n),
        sampled_otherwise=calibration.off,
        unknown_splits=int(np.isnan(splits).sum()),
        splits=int(splits.size),
        n_unscored=contrast.n_unscored,
    )


def _calibrated(slope: float, error: float, n: int) -> Estimate:
    if not np.isfinite(slope):
        return Estimate(estimate=None, n=n, note="cannot be told: the sampled checkpoints do not differ")
    return Estimate(estimate=slope, low=slope - 1.96 * error, high=slope + 1.96 * error, n=n)


def why_unknown(checks: ChecksRecord | None) -> str:
    """Why the total change between the two sides is not known from these responses; empty when it is."""
    if checks is None:
        return ""
    if checks.sampled_otherwise:
        sharper = "sharper" if (checks.calibration.estimate or 0.0) > 1 else "flatter"
        return (
            f"the responses were not drawn by the law they are scored by: the sampler was {sharper} (calibration slope "
            f"{shown_numbers(checks.calibration)}, 1 when right; another temperature, top-p, a system prompt or other weights)"
        )
    if not checks.covered:
        return (
            f"the {len(checks.anchors)} sampled checkpoints do not stand for the two sides (effective responses a prompt "
            f"{checks.ess_fifth_percentile:.1f}, mean weight {shown_numbers(checks.mean_weight)}, 1 when right): sample nearer to them"
        )
    if not checks.balanced:
        return f"the two sides do not weigh the same (E[s] {shown_numbers(checks.balance)}, 0 when right)"
    return ""


def check_cautions(checks: ChecksRecord | None) -> list[str]:
    """What the checks found, for the box that says what would make the numbers wrong."""
    if checks is None:
        return []
    out = []
    if checks.n_unscored:
        out.append(f"{checks.n_unscored} responses lack a log-probability that the contrast needs and are left out.")
    if checks.unknown_splits:
        out.append(
            f"The transition curve is unknown at {checks.unknown_splits} of {checks.splits} splits: no sampled checkpoint stands for "
            "what lies there."
        )
    found = (
        f"calibration slope of the {len(checks.anchors)} sampled checkpoints {shown_numbers(checks.calibration)}, "
        f"mean weight {shown_numbers(checks.mean_weight)}, E[s] {shown_numbers(checks.balance)} (1, 1 and 0 when right)"
    )
    why = why_unknown(checks)
    out.append(f"Checks that hold: {found}." if not why else f"A check failed: {why}. Found: {found}.")
    return out
