"""What the loop passes around and writes down: order parameters, judgements and findings.

Everything here is plain data (pydantic, frozen, extra fields forbidden), so `findings.json` has a published
schema (`Findings.model_json_schema()`) and a reader of any language can use it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FINDINGS_FORMAT = "order-parameter-findings"
FINDINGS_VERSION = 1

Verdict = Literal["accepted", "rejected", "vetoed", "not tested"]
Badge = Literal["rule", "judged"]
Origin = Literal["agent", "human", "memory"]
ReadingKind = Literal["repeat", "other words", "second judge", "human"]
JudgementStatus = Literal["read", "cannot_tell", "refused", "unreadable"]


class Record(BaseModel):
    """Base: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OrderParameter(Record):
    """A question in plain English with an ordinal answer scale, scored on one response at a time.

    Attributes:
        name: A short noun phrase, shown in tables.
        definition: One sentence saying what is measured.
        question: What the judge is asked about one response.
        levels: Anchors of the ordinal scale, lowest first (level k is `levels[k]`); 2 to 7 of them.
        direction: Predicted sign of the change of the expected level (after minus before); 0: not predicted.
        origin: Who proposed it.
        rule: The exact measurable rule behind the words (see `probes.rules.Rule.as_dict`), or None when only an LLM can judge it.
        supported_by: Keys of the evidence pairs the proposer cited.
    """

    name: str
    definition: str
    question: str
    levels: tuple[str, ...]
    direction: Literal[-1, 0, 1] = 0
    origin: Origin = "agent"
    rule: dict[str, Any] | None = None
    supported_by: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Content hash of what a judge is asked (question, levels, rule): the same question has the same id in every run."""
        text = json.dumps([self.question, list(self.levels), self.rule], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def badge(self) -> Badge:
        """`rule` when an exact rule judges it, `judged` when an LLM does."""
        return "judged" if self.rule is None else "rule"


class Judgement(Record):
    """One reading of one response by one judge. `level` is None exactly when `status` is not `read`: missing is not zero.

    `quote` is None when none was given and "" when the one that was given does not occur in the response.
    """

    parameter_id: str
    response_key: str
    repeat: int = 0
    status: JudgementStatus = "read"
    level: int | None = None
    probabilities: tuple[float, ...] | None = None
    quote: str | None = None


class Estimate(Record):
    """A number with its 95% interval. Values are never clipped: an estimate outside [0, 1] is printed and flagged.

    Attributes:
        estimate: The estimate; None when it is not printed (the reason stands in `note`).
        low, high: Limits of the 95% interval; None when no interval is defined.
        n: Responses it rests on.
        note: What qualifies it ("at most", "for these prompts only", ...), empty when nothing does.
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""


class ContrastRecord(Record):
    """What is compared: which responses are *before* and which *after*."""

    kind: Literal["window", "ends", "split", "sides"]
    before: str
    after: str
    before_steps: tuple[int, ...] = ()
    after_steps: tuple[int, ...] = ()
    window: int | None = None
    n_before: int
    n_after: int
    n_prompts: int
    n_prompts_excluded: int = 0
    likelihoods: bool


class LevelDistribution(Record):
    """Share of responses at each level per side (weighted, prompts equal); `missing_*` is the rate of judgements that are not `read`.

    `quotes` counts the judgements that came with a quote, `quotes_dropped` those whose quote does not occur in the response.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    missing_before: float = 0.0
    missing_after: float = 0.0
    refused: int = 0
    unreadable: int = 0
    cannot_tell: int = 0
    quotes: int = 0
    quotes_dropped: int = 0


class ReadingAgreement(Record):
    """Another reading of the same responses, held against the judge's own.

    Attributes:
        reading: The judge once more, its rubric in other words, a second judge, or a person.
        reader: Who read: id of the judge, or the person's name.
        n_read, n_both: Responses read twice, and those of them with a level both times.
        exact: Part of `n_both` given the same level.
        weighted_kappa, krippendorff_alpha: Agreement on the levels (quadratic weights; ordinal metric).
        missing_before, missing_after: Rate of this reading's judgements without a level on each side.
        missing_kappa: Agreement on which responses are missing, *missing* taken as a level of its own.
        noise_free_share: Share of D that a reading without error would show, on the numeric scale of the levels; without likelihoods D[O].
    """

    reading: ReadingKind
    reader: str
    n_read: int
    n_both: int
    exact: float | None
    weighted_kappa: Estimate
    krippendorff_alpha: Estimate
    missing_before: float
    missing_after: float
    missing_kappa: float | None
    noise_free_share: Estimate


class Course(Record):
    """Expected level along the run: `steps[k]` -> `estimate[k]` with limits; None where the step is unknown (never extrapolated)."""

    steps: tuple[int, ...]
    estimate: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


class EvidencePair(Record):
    """Two responses to one prompt, one from each side, that show the parameter. Untrusted text: escape it wherever it is shown."""

    prompt: str
    system: str = ""
    before: str
    after: str
    before_level: int | None = None
    after_level: int | None = None
    before_quote: str | None = None
    after_quote: str | None = None


class ParameterFinding(Record):
    """One order parameter and what it explains of the contrast. All shares are of the *total* change D, on the confirm half.

    Attributes:
        change: D[O], the part of the linear dissimilarity visible through this label.
        share: D[O]/D; its note is "at most" when D is only bounded below.
        unique: Share lost when this one is left out of the joint set (accepted ones only).
        shapley: Its fair part of the joint share (accepted ones only).
        beyond_length: Gain in share over length alone (8 quantile bins of log words).
        beyond_rules: Gain over length and all rules (judged ones only).
        interaction: Share with prompt-by-level interaction (the exact inequality; None below 10 responses a side and prompt).
        transfer: Share out of fold by prompt ("on questions not seen").
        gain: Gain in joint share at the moment of decision, given length and the set accepted by then.
        p_value: Family-wise p-value of that gain within its round (maxT), and `alpha` the level it was held against.
        reliability: Alpha of all the judges' readings, and the range of the share without reading error (accepted judged ones only).
        agreement: Every other reading held against the judge's own.
    """

    parameter: OrderParameter
    round: int
    verdict: Verdict
    reason: str = ""
    change: Estimate
    share: Estimate
    unique: Estimate | None = None
    shapley: Estimate | None = None
    beyond_length: Estimate | None = None
    beyond_rules: Estimate | None = None
    interaction: Estimate | None = None
    transfer: Estimate | None = None
    length_matched: Estimate | None = None
    gain: Estimate | None = None
    p_value: float | None = None
    alpha: float | None = None
    jensen_shannon_share: float | None = None
    total_variation_share: float | None = None
    onset: Estimate | None = None
    t10: float | None = None
    t90: float | None = None
    course: Course | None = None
    levels: LevelDistribution | None = None
    reliability: dict[str, float | None] = {}
    agreement: tuple[ReadingAgreement, ...] = ()
    evidence: tuple[EvidencePair, ...] = ()
    prompt_shares: dict[str, float] = {}


class CourseRecord(Record):
    """An order parameter along the run: its expected level as part of its scale, in [0, 1], and its onset."""

    name: str
    course: Course
    onset: Estimate | None
    t10: float | None = None
    t90: float | None = None


class Timeline(Record):
    """Mechanism and behaviour of one run on one axis of optimizer steps.

    Attributes:
        source: What it was made from.
        events: What has a place, earliest first.
        order: What moved before what, for every pair.
        training: What the trainer logged.
        mechanism: How the adapter moved.
        repeated: How the adapters of repeated runs moved on average.
        transition: D(t*) and its peak.
        courses: Accepted order parameters along the run.
        comp: Comp scores with other runs' last adapters: "first | second" -> module -> score.
        notes: What is missing and why.
    """

    format: Literal["order-parameter-timeline"] = "order-parameter-timeline"
    version: int = 1
    source: str
    events: tuple[EventRecord, ...]
    order: tuple[OrderRecord, ...]
    training: TrainingTraceRecord | None
    mechanism: MechanismRecord | None
    repeated: RepeatedRecord | None = None
    transition: TransitionRecord | None
    courses: tuple[CourseRecord, ...]
    comp: dict[str, dict[str, float]] = {}
    notes: tuple[str, ...] = ()


class TestRecord(Record):
    """One line of the ledger of tests: every test made, whatever came out."""

    __test__ = False  # not a pytest class

    round: int
    family: Literal["agent", "human"]
    parameter_id: str
    name: str
    n: int
    gain: float | None
    p_value: float | None
    alpha: float
    accepted: bool
    reason: str


class ScreenedRecord(Record):
    """A candidate that was dropped before it was judged, and why: it repeats another, or cannot be judged from one response."""

    round: int
    parameter_id: str
    name: str
    reason: str


class TransitionRecord(Record):
    """The transition curve D(t*) for the window that was used, and what was found on it; None where a split is unknown."""

    window: int
    splits: tuple[float, ...]
    curve: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    found: bool
    peak: Estimate
    prominence: Estimate
    reason: str = ""
    grad_norm_peak: float | None = None
    lag_from_grad_norm: Estimate | None = None
    ess_fifth_percentile: float | None = None
    weight_check_failures: int = 0
    weight_checks: int = 0


class ChecksRecord(Record):
    """Whether the responses stand for the two sides, with likelihoods (METHOD 2, 2b).

    Attributes:
        anchors: Steps at which the responses used were sampled.
        covered: Effective sample size and mean weights say that the responses stand for both sides.
        ess_fifth_percentile: 5th percentile over prompts of the contrast's effective sample size.
        mean_weight: Mean unnormalised weight over prompts, 1 when the sampled checkpoints cover both sides.
        balance: E[s] under the mean of both sides, 0 by construction; `balanced` when it is within its error.
        calibration: Slope of the posterior of the checkpoint a response was drawn at; 1 when it was drawn by the law it is scored by.
        sampled_otherwise: It was not.
        unknown_splits: Splits of the transition curve that are unknown, of `splits`.
        n_unscored: Responses left out for lack of a log-probability.
    """

    anchors: tuple[int, ...]
    covered: bool
    ess_fifth_percentile: float
    mean_weight: Estimate
    balance: Estimate
    balanced: bool
    calibration: Estimate
    sampled_otherwise: bool
    unknown_splits: int = 0
    splits: int = 0
    n_unscored: int = 0


class OrderRecord(Record):
    """Which of two things happened first: the difference of their steps, second minus first, paired by prompt.

    Attributes:
        first, second: Names (order parameters, "length", "peak of D", "gradient norm", "rotation").
        lag: Steps from the first to the second, with interval.
        settled: The interval excludes 0: the order is established.
    """

    first: str
    second: str
    lag: Estimate
    settled: bool


class EventRecord(Record):
    """Something that has a place on the step axis.

    Attributes:
        name: An order parameter (its onset), "length", "peak of D", "gradient norm" (its peak), "rotation" (the sharpest bend of weights).
        kind: `mechanism`: seen in weights or gradients; `behaviour`: seen in responses.
        place: Step with interval; that of the rotation is its range over leg lengths and thresholds (one run has no sampling error).
    """

    name: str
    kind: Literal["mechanism", "behaviour"]
    place: Estimate


class MechanismRecord(Record):
    """How the LoRA adapter moved while it was trained (METHOD 5).

    Attributes:
        steps: Optimizer steps of the adapters.
        modules: Adapted modules; their B matrices are stacked.
        cosine: Leg length in checkpoints -> local cosine at each step (straight -1, right angle 0, reversal +1); None where unknown.
        cosine_normalised: The same of the directions B/|B|.
        norms: |B| at each step.
        principal: First two coordinates of the trajectory's PCA at each step; `explained`: parts of its variance.
        warning: What must stand beside the PCA.
        rotation, rotation_normalised: Sharpest bend; low and high are its range over leg lengths and thresholds. None: it turns nowhere.
    """

    steps: tuple[int, ...]
    modules: tuple[str, ...]
    cosine: dict[str, tuple[float | None, ...]]
    cosine_normalised: dict[str, tuple[float | None, ...]]
    norms: tuple[float, ...]
    principal: tuple[tuple[float, ...], ...]
    explained: tuple[float, ...]
    warning: str
    rotation: Estimate | None
    rotation_normalised: Estimate | None


class RepeatedRecord(Record):
    """Where the adapters of repeated runs turn on average (:mod:`probes.repeated_runs`).

    Attributes:
        runs: Folders: the same start, other documents.
        steps: Optimizer steps of the adapters.
        cosine: Local cosine of the mean path at each step, free of noise, averaged over leg lengths; None where the mean hardly moves.
        rotation: Its place with a confidence interval over runs. None: the mean path turns nowhere significantly.
        prominence: By how much the local cosine stands out there, with its lower limit.
    """

    runs: tuple[str, ...]
    steps: tuple[int, ...]
    cosine: tuple[float | None, ...]
    rotation: Estimate | None
    prominence: Estimate | None


class BoundRecord(Record):
    """How the total change was bounded without likelihoods.

    Attributes:
        classifier: The classifier that did best on the propose half.
        candidates: Bound of every classifier on the propose half.
        calibration: Fifths of the prediction: (mean predicted probability of *before*, observed share of *before*, responses).
    """

    classifier: str
    candidates: dict[str, float]
    calibration: tuple[tuple[float, float, int], ...]


class TrainingTraceRecord(Record):
    """What the trainer logged, for the plots; None where it logged NaN."""

    steps: tuple[int, ...] = ()
    grad_norm: tuple[float | None, ...] = ()
    loss: tuple[float | None, ...] = ()
    learning_rate: tuple[float | None, ...] = ()


class RotationRecord(Record):
    """Where the adapter turned: the local cosine of its B along the run (-1 straight, 0 a right angle, +1 a reversal).

    Attributes:
        steps, cosine: The curve for legs of `leg` checkpoints; None within a leg of the ends and where the adapter hardly moves.
        place: Step of the bend, its limits over leg lengths and thresholds; None when it turns nowhere.
    """

    leg: int
    steps: tuple[int, ...]
    cosine: tuple[float | None, ...]
    place: Estimate | None = None


class ReviewedRecord(Record):
    """One thing a reviewer decided: what, on which order parameter, why; `successor` is the name in new words or of a hypothesis."""

    kind: Literal["accept", "veto", "reword", "hypothesis"]
    parameter_id: str = ""
    name: str = ""
    reason: str = ""
    successor: str = ""
    successor_id: str = ""


class LabelAgreement(Record):
    """How far a reviewer's blinded labels agree with the judge on one order parameter.

    Attributes:
        labels: Responses the reviewer labelled; `cannot_tell` of them without a level, `judge_missing` without a level of the judge.
        n: Responses that both gave a level.
        exact: Part of the n on the same level; None when n is 0.
        weighted_kappa, krippendorff_alpha: See `probes.agreement`; None where they are not defined.
    """

    parameter_id: str
    name: str
    labels: int
    cannot_tell: int = 0
    judge_missing: int = 0
    n: int
    exact: float | None = None
    weighted_kappa: float | None = None
    krippendorff_alpha: float | None = None


class ReviewRecord(Record):
    """What a reviewer decided, as far as the loop has taken it in (`review.jsonl` has every line)."""

    reviews: int
    decisions: tuple[ReviewedRecord, ...] = ()
    agreement: tuple[LabelAgreement, ...] = ()


class NullRun(Record):
    """The whole loop again on data in which nothing changed."""

    kind: Literal["permute", "split"]
    runs: int
    accepted: int
    tested: int
    sentence: str


class CostLine(Record):
    """Calls and tokens of one role; `usd` is None when the price is unknown (never 0).

    Attributes:
        role: "proposer", "judge", ...; with ", null runs" what these asked for beyond it.
        calls: Requests that were answered.
        cached: Input tokens, of `input_tokens`, that the provider read from its own cache.
        usd: At the list prices of `tracing/prices.toml`, each with its day, none of them verified.
    """

    role: str
    provider: str
    round: int
    calls: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None


class Preregistration(Record):
    """What a person wanted tested, written down before any response was judged on it.

    Attributes:
        sha256: Of the hypotheses as given and as worded to the end, as they stand in `file`.
        file: In the run's folder.
        hypotheses: Ids of their order parameters, in the order they were given.
    """

    sha256: str
    file: str
    hypotheses: tuple[str, ...]


class Findings(Record):
    """Everything one run of the loop found; the same run directory, options and seed give the same bytes.

    Attributes:
        sentences: The findings in plain English, first the transition, then one per accepted parameter.
        change: Total change D (linear) with interval; `change_is_bound` when it is only bounded below (no likelihoods).
        joint: Joint share of the accepted set; `residual` = 1 - joint.
        length: What length alone shows (always reported, never a discovery).
        checks: With likelihoods, whether the responses stand for the two sides; when they do not, `change` has no number.
        other_transitions: Places of the further transitions of the run, by height; `--transition 2` analyses the second one.
        order: What moved before what, for every pair of things that have a place on the step axis.
        events: These things with their places, earliest first.
        bound: Without likelihoods: the classifier behind the lower bound of D.
        sensitivity: What the joint share becomes with other windows, other prompts, and D of the first tokens.
        rotation: Local cosine of the LoRA adapter along the run, when the run directory holds adapters.
        prompts: Beginning of each prompt's text by the id that `prompt_shares` and `sensitivity` name it with.
        preregistration: The user's own hypotheses, as they were registered before judging.
        review: What a reviewer decided, when the loop stopped for one (`--review`).
        templates: SHA-256 of what proposer and judge are asked (prompts/NAME.md) by name; empty when neither reads.
        smallest_detectable_share: Below this share a parameter would have been missed at this size.
        cautions: What would make these numbers wrong, in plain English.
    """

    format: Literal["order-parameter-findings"] = "order-parameter-findings"
    version: int = FINDINGS_VERSION
    run: str
    run_digest: str
    seed: int
    config: dict[str, Any]
    versions: dict[str, str]
    proposer: str
    judge: str
    contrast: ContrastRecord
    sentences: tuple[str, ...]
    detectable: bool
    change: Estimate
    change_is_bound: bool
    jensen_shannon: float | None
    total_variation: float | None
    prefix_change: dict[str, float] = {}
    joint: Estimate | None
    residual: Estimate | None
    length: ParameterFinding | None
    parameters: tuple[ParameterFinding, ...]
    transition: TransitionRecord | None
    checks: ChecksRecord | None = None
    other_transitions: tuple[Estimate, ...] = ()
    order: tuple[OrderRecord, ...] = ()
    events: tuple[EventRecord, ...] = ()
    bound: BoundRecord | None = None
    training: TrainingTraceRecord | None
    tests: tuple[TestRecord, ...]
    screened: tuple[ScreenedRecord, ...] = ()
    null_run: NullRun | None = None
    cost: tuple[CostLine, ...] = ()
    smallest_detectable_share: float | None
    rounds: int
    stopped: str
    cautions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    sensitivity: dict[str, Any] = {}
    rotation: RotationRecord | None = None
    prompts: dict[str, str] = {}
    templates: dict[str, str] = {}
    review: ReviewRecord | None = None
    preregistration: Preregistration | None = None
