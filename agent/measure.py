"""Every number about one order parameter, measured on the confirm half (METHOD 3, 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from agent import rereading
from agent.records import Course, Estimate, EvidencePair, LevelDistribution, OrderParameter, ParameterFinding, TestRecord, Verdict
from agent.workbench import Workbench
from probes.classifier import ChangeBound, change_bound
from probes.dissimilarity import Contrast, jackknife_groups, squared_response_noise, total_change
from probes.explained_share import Explained, explained, plug_in_share, transfer, with_interaction
from probes.permutation import conditional_permutation
from probes.resampling import MIN_PROMPTS, Interval
from probes.rules import RULES, Rule, levels, measure
from probes.shapley import MAX_SHAPLEY, shapley
from probes.trajectory import Course as MeasuredCourse
from probes.trajectory import Onset, course, onset

BOUND, SIZE = 6, 7
"""Purposes of random numbers."""
POWER = 0.8
LABELS = "length and the accepted order parameters"
N_EVIDENCE = 3


def estimate_of(interval: Interval, n: int, note: str = "") -> Estimate:
    """An interval as a record; an undefined limit is None, never a number, and the reason stands in the note."""
    low, high = (None if not math.isfinite(x) else x for x in (interval.low, interval.high))
    if not math.isfinite(interval.estimate):
        return Estimate(estimate=None, n=n, note=note or "undefined here")
    return Estimate(estimate=interval.estimate, low=low, high=high, n=n, note=note)


@dataclass(frozen=True)
class Total:
    """The total change and whether shares of it may be printed.

    Attributes:
        change: D with interval, or its lower bound.
        bound: Set without likelihoods.
        printable: The lower limit reaches `min_change` and the numerical floor.
        qualifier: What every share carries: "" or "at most".
    """

    change: Estimate
    bound: ChangeBound | None
    printable: bool
    qualifier: str


class Measurement:
    """All numbers of a finished loop; one object so that contrasts, weights and the total are worked out once."""

    def __init__(self, work: Workbench, accepted: list[OrderParameter]) -> None:
        """Measure on `work`'s confirm half, with the accepted set in order of acceptance."""
        self.work = work
        self.accepted = accepted
        self.rows = work.confirm_rows
        self.confirm: Contrast = work.confirm
        self.scope = "" if self.confirm.by_prompt else "for these prompts only"
        self.length = work.length_label[self.rows]
        self.onsets: dict[str, Onset] = {}

    def label(self, parameter: OrderParameter) -> np.ndarray:
        """`(n_confirm,)` levels, -1 missing."""
        return self.work.labels(parameter)[self.rows] if self.work.is_read(parameter) else self.work.labels_at(parameter, self.rows)

    # ---- the total

    @cached_property
    def total(self) -> Total:
        """D with likelihoods, a lower bound of it without."""
        n, config = self.confirm.s.size, self.work.config
        if self.confirm.likelihoods:
            interval = total_change(self.confirm)
            printable = interval.low >= max(config.min_change, self.numerical_floor)
            return Total(estimate_of(interval, n, self.scope), None, printable, "")
        bound = self._bound()
        printable = bound.bound.low >= config.min_change
        return Total(estimate_of(bound.bound, n, "at least"), bound, printable, "at most")

    @cached_property
    def numerical_floor(self) -> float:
        """D that the measured error of a log-probability would fake."""
        manifest = self.work.recording.manifest
        noise = None if manifest is None else manifest.scoring.get("noise_nats")
        return squared_response_noise(float(noise)) if noise is not None else 0.0

    def _bound(self) -> ChangeBound:
        work = self.work
        completion = work.recording.responses.completion
        texts = [completion[i] for i in work.contrast.index]
        style = [measure(rule, texts) for rule in RULES.values()]
        judged = [np.where(label < 0, np.nan, label) for label in (work.labels(p).astype(float) for p in self.accepted)]
        features = np.stack([np.log1p(work.n_words), *style, *judged], axis=1)
        bound = change_bound(work.contrast, work.confirm_mask, texts, features, work.rng(BOUND))
        # length and the accepted set bound D too (D[O] <= D), and with few responses better than a classifier; chosen on propose like these
        labels = [work.length_label, *(work.labels(p) for p in self.accepted)]
        shown = explained(work.propose, [label[work.propose_rows] for label in labels]).change
        candidates = bound.candidates | {LABELS: shown}
        if shown <= max(bound.candidates.values()):
            return replace(bound, candidates=candidates)
        part = explained(self.confirm, [label[self.rows] for label in labels])
        return replace(
            bound, bound=part.change_interval, leave_one_out=part.change_loo, classifier=LABELS, calibration=(), candidates=candidates
        )

    def share(self, part: Explained, note: str = "") -> Estimate:
        """A part of the total: D[O]/D, or "at most" D[O]/bound."""
        if not self.total.printable:
            return Estimate(estimate=None, n=part.n, note="not printed: the total change is below resolution")
        bound = self.total.bound
        interval = part.share_interval if bound is None else part.share_of(bound.bound.estimate, bound.leave_one_out)
        return estimate_of(interval, part.n, "; ".join(x for x in (self.total.qualifier, self.scope, note) if x))

    def change(self, part: Explained) -> Estimate:
        """D[O] itself."""
        return estimate_of(part.change_interval, part.n, self.scope)

    @cached_property
    def joint(self) -> Explained:
        """The accepted set together."""
        return explained(self.confirm, [self.label(p) for p in self.accepted])

    @cached_property
    def _beyond_length_base(self) -> Explained:
        return explained(self.confirm, [self.length])

    @cached_property
    def _rule_labels(self) -> list[np.ndarray]:
        completion = self.work.recording.responses.completion
        texts = [completion[i] for i in self.confirm.index]
        return [levels(rule, texts) for rule in RULES.values()]

    @cached_property
    def _shapley(self) -> dict[str, Explained]:
        if not 1 < len(self.accepted) <= MAX_SHAPLEY:
            return {}
        parts = shapley(self.confirm, [self.label(p) for p in self.accepted])
        return {p.id: part for p, part in zip(self.accepted, parts, strict=True)}

    @cached_property
    def length_matched(self) -> tuple[np.ndarray, Contrast] | None:
        """Rows of the confirm half reweighted so that both sides have the same lengths, and the contrast on them.

        Within each prompt and length bin the two sides get equal weight, their smaller one; what then still tells the sides apart is
        not length. None when fewer than `MIN_PROMPTS` prompts keep both sides.
        """
        c = self.confirm
        cell = c.prompt * (int(self.length.max()) + 1) + self.length
        before, after = c.weight * (1 + c.s) / 2, c.weight * (1 - c.s) / 2
        mass_before, mass_after = np.bincount(cell, weights=before)[cell], np.bincount(cell, weights=after)[cell]
        common = np.minimum(mass_before, mass_after)
        with np.errstate(invalid="ignore", divide="ignore"):
            p = np.where(mass_before > 0, before * common / mass_before, 0.0)
            q = np.where(mass_after > 0, after * common / mass_after, 0.0)
        rows = np.flatnonzero(p + q > 0)
        kept, prompt = np.unique(c.prompt[rows], return_inverse=True)
        if kept.size < MIN_PROMPTS:
            return None
        weight = (p + q)[rows]
        weight = weight / np.bincount(prompt, weights=weight)[prompt]
        s = (p - q)[rows] / (p + q)[rows] if c.likelihoods else c.s[rows]
        matched = Contrast(s, weight, prompt, c.likelihoods, jackknife_groups(prompt, s), c.index[rows])
        return rows, matched

    # ---- one parameter

    def length_finding(self) -> ParameterFinding:
        """What length alone shows; never a discovery."""
        words = self.work.n_words
        bins = self.work.length_label
        anchors = [f"{words[bins == b].min()} to {words[bins == b].max()} words" for b in np.unique(bins)]
        parameter = OrderParameter(
            name="length",
            definition="How many words the response has.",
            question="How many words does the response have?",
            levels=tuple(anchors),
            rule={"kind": "words"},
        )
        part = explained(self.confirm, [self.length])
        return self._finding(parameter, self.length, bins.astype(float), part, 0, "not tested", "shown always, never a discovery")

    def finding(self, parameter: OrderParameter, test: TestRecord | None) -> ParameterFinding:
        """Everything about one tested parameter."""
        label = self.label(parameter)
        part = explained(self.confirm, [label])
        verdict: Verdict = "not tested" if test is None else "accepted" if test.accepted else "rejected"
        # one remembered from other runs and rejected here was read on the confirm half only: it has no course
        whole = self.work.expected_levels(parameter) if self.work.is_read(parameter) else None
        out = self._finding(parameter, label, whole, part, test.round if test else 0, verdict, test.reason if test else "")
        beyond = explained(self.confirm, [self.length, label]).minus(self._beyond_length_base)
        update: dict[str, object] = {"beyond_length": self.share(beyond)}
        if test is not None:
            update |= {"p_value": test.p_value, "alpha": test.alpha}
            update["gain"] = Estimate(estimate=test.gain, n=test.n, note="of D[O]" if not self.confirm.likelihoods else "")
        matched = self.length_matched
        if matched is not None:
            rows, half = matched
            update["length_matched"] = estimate_of(
                explained(half, [label[rows]]).change_interval, rows.size, "D[O] among pairs of equal length"
            )
        if parameter.badge == "judged":
            base = [self.length, *self._rule_labels]
            update["beyond_rules"] = self.share(explained(self.confirm, [*base, label]).minus(explained(self.confirm, base)))
        interaction, moved = with_interaction(self.confirm, label), transfer(self.confirm, label)
        update["interaction"] = None if interaction is None else self.share(interaction)
        update["transfer"] = None if moved is None else self.share(moved)
        if verdict == "accepted":
            others = [self.label(p) for p in self.accepted if p.id != parameter.id]
            update["unique"] = self.share(self.joint.minus(explained(self.confirm, others)))
            if len(self.accepted) == 1:
                update["shapley"] = self.share(part)
            elif parameter.id in self._shapley:
                update["shapley"] = self.share(self._shapley[parameter.id])
            update["evidence"] = self.evidence(parameter)
            update["reliability"] = rereading.reliability(self.work, parameter)
        update["agreement"] = rereading.agreements(self.work, parameter, verdict == "accepted")
        return out.model_copy(update=update)

    def given_up(self, parameter: OrderParameter, test: TestRecord) -> ParameterFinding:
        """A candidate that was not read to the end: nothing was measured."""
        nothing = Estimate(estimate=None, n=test.n, note="not measured: given up before it was read to the end")
        return ParameterFinding(
            parameter=parameter,
            round=test.round,
            verdict="rejected",
            reason=test.reason,
            change=nothing,
            share=nothing,
            alpha=test.alpha,
        )

    def _finding(
        self,
        parameter: OrderParameter,
        label: np.ndarray,
        whole: np.ndarray | None,
        part: Explained,
        round_number: int,
        verdict: Verdict,
        reason: str,
    ) -> ParameterFinding:
        shown, when = (None, None) if whole is None else self.along_the_run(whole)
        if when is not None:
            self.onsets[parameter.name] = when
        descriptive = self.confirm.likelihoods and self.total.printable
        return ParameterFinding(
            parameter=parameter,
            round=round_number,
            verdict=verdict,
            reason=reason,
            change=self.change(part),
            share=self.share(part),
            jensen_shannon_share=plug_in_share(self.confirm, label, "jensen_shannon") if descriptive else None,
            total_variation_share=plug_in_share(self.confirm, label, "total_variation") if descriptive else None,
            onset=None if when is None else estimate_of(when.t50, label.size, self.scope),
            t10=None if when is None else _finite(when.t10.estimate),
            t90=None if when is None else _finite(when.t90.estimate),
            course=None if shown is None else _shown_course(shown),
            levels=self._distribution(parameter, label),
            prompt_shares=self._prompt_shares(part),
        )

    def along_the_run(self, whole: np.ndarray) -> tuple[MeasuredCourse | None, Onset | None]:
        """Course and onset of levels `(n,)` over the contrast's responses (negative: missing); None without weights for every step."""
        weights = self.work.weights
        if weights is None:
            return None, None
        level = np.where(whole < 0, np.nan, whole)
        found = course(weights, level, np.array(self.work.recording.steps))
        detection = self.work.chosen[1]
        near = detection.transition.step.estimate if detection is not None and detection.transition.found else None
        return found, onset(found, near)

    def _distribution(self, parameter: OrderParameter, label: np.ndarray) -> LevelDistribution:
        c, k = self.confirm, len(parameter.levels)
        sides = {}
        for name, sign in (("before", 1.0), ("after", -1.0)):
            mass = c.weight * (1 + sign * c.s)
            mass = mass / np.bincount(c.prompt, weights=mass)[c.prompt] / c.n_prompts
            missing = label < 0
            share = np.bincount(label[~missing], weights=mass[~missing], minlength=k)
            sides[name] = tuple(float(x) for x in share / max(share.sum(), 1e-300)), float(mass[missing].sum())
        judged = parameter.id in self.work.parameters
        reasons = self.work.missing(parameter) if judged else {}
        quotes = [reading["quote"] for reading in self.work.readings_so_far(parameter)] if judged else []
        return LevelDistribution(
            before=sides["before"][0],
            after=sides["after"][0],
            missing_before=sides["before"][1],
            missing_after=sides["after"][1],
            refused=reasons.get("refused", 0),
            unreadable=reasons.get("unreadable", 0),
            cannot_tell=reasons.get("cannot_tell", 0),
            quotes=sum(quote is not None for quote in quotes),
            quotes_dropped=sum(quote == "" for quote in quotes),
        )

    def _prompt_shares(self, part: Explained) -> dict[str, float]:
        """Each prompt's contribution over the mean total: their mean over prompts is the share."""
        if not self.total.printable or not self.confirm.likelihoods:
            return {}
        ids = self.work.recording.responses.prompt_id
        out: dict[str, float] = {}
        for p in range(self.confirm.n_prompts):
            name = ids[int(self.confirm.index[self.confirm.prompt == p][0])]
            while name in out:
                name += "'"
            out[name] = float(part.per_prompt[p] / part.total)
        return out

    def evidence(self, parameter: OrderParameter) -> tuple[EvidencePair, ...]:
        """Same-prompt pairs that show the parameter: levels apart in the direction it moved, responses typical of their sides."""
        work, c = self.work, self.work.contrast
        label = work.labels(parameter)
        mass = {1: c.weight * (1 + c.s), -1: c.weight * (1 - c.s)}
        mean = {k: float(np.sum(m[label >= 0] * label[label >= 0]) / np.sum(m[label >= 0])) for k, m in mass.items()}
        direction = np.sign(mean[-1] - mean[1])
        readings = work.readings(parameter)
        responses = work.recording.responses
        best = []
        for p in range(c.n_prompts):
            rows = np.flatnonzero((c.prompt == p) & (label >= 0))
            before, after = rows[c.s[rows] > 0], rows[c.s[rows] < 0]
            if before.size and after.size:
                b = before[np.argmax(-direction * label[before] + c.s[before])]
                a = after[np.argmax(direction * label[after] - c.s[after])]
                best.append((float(direction * (label[a] - label[b]) + c.s[b] - c.s[a]), p, int(b), int(a)))
        pairs = []
        for _, _, b, a in sorted(best, key=lambda x: (-x[0], x[1]))[:N_EVIDENCE]:
            i, j = int(c.index[b]), int(c.index[a])
            rule = parameter.rule
            pairs.append(
                EvidencePair(
                    prompt=responses.prompt[i],
                    system=responses.system[i],
                    before=responses.completion[i],
                    after=responses.completion[j],
                    before_level=int(label[b]),
                    after_level=int(label[a]),
                    before_quote=readings[b]["quote"] or _rule_quote(rule, responses.completion[i]),
                    after_quote=readings[a]["quote"] or _rule_quote(rule, responses.completion[j]),
                )
            )
        return tuple(pairs)

    # ---- what would have been found

    @cached_property
    def left_by_length(self) -> float:
        """Part of the total (of 1 without likelihoods) that length leaves unexplained; 0 where nothing changed at all (equal weights)."""
        if self._beyond_length_base.total == 0:
            return 0.0
        return 1 - self._beyond_length_base.change / self._beyond_length_base.total

    @cached_property
    def smallest_detectable(self) -> float | None:
        """D[O] beyond length that a five-level parameter needs to be found in the first round with 80% power at this size.

        A label that says nothing gains (levels - 1) units of noise; the unit is scaled to what length leaves, and the power
        follows from the noncentral chi-square. None when that is more than length leaves: nothing beyond it could be found.
        """
        config, c = self.work.config, self.confirm
        if not self.left_by_length > config.min_share:
            return None
        label = self.work.rng(SIZE).integers(0, 5, c.s.size)
        test = conditional_permutation(c, [], [label], self.work.rng(SIZE), 200)
        unit = float(test.null_mean[0]) / 4 * min(self.left_by_length, 1.0)
        critical = stats.chi2.isf(config.alpha / 2 / config.candidates, 4)
        needed = brentq(lambda size: stats.ncx2.sf(critical, 4, size) - POWER, 1e-6, 1000.0)
        smallest = max(needed * unit, config.min_share * self._beyond_length_base.total)
        if c.likelihoods and not self.total.printable:
            # it would also have to lift the lower limit of D above what counts as a change
            return max(float(smallest), config.min_change, self.numerical_floor)
        return float(smallest) if smallest < self.left_by_length * self._beyond_length_base.total else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown_course(found: MeasuredCourse) -> Course:
    def plain(values: np.ndarray) -> tuple[float | None, ...]:
        return tuple(_finite(float(v)) for v in values)

    return Course(steps=tuple(int(s) for s in found.steps), estimate=plain(found.estimate), low=plain(found.low), high=plain(found.high))


def _rule_quote(rule: dict[str, object] | None, text: str) -> str | None:
    from probes.rules import excerpt

    return None if rule is None else excerpt(Rule.from_dict(rule), text)
