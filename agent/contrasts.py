"""What is compared with what: the contrast of a recording, chosen by the options or by the transition curve (METHOD 1, 4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from agent.config import RunConfig
from agent.errors import ContrastError
from probes.dissimilarity import Contrast, likelihood_contrast, side_contrast
from probes.transition import Transition, TransitionCurve, find_transitions, transition_curve, windows_to_scan
from tracing import Recording

BEFORE_NAMES = ("base", "before", "pre", "reference", "control", "original", "left")
MANY_PROMPTS = 40
"""From this many prompts on, propose and confirm halves are whole prompts (METHOD 4)."""


@dataclass(frozen=True)
class ContrastSpec:
    """A contrast in plain values: which columns (or sides) are before and which after.

    Attributes:
        kind: `window` (around a transition), `ends`, `split` or `sides`.
        before, after: How they are called in tables.
        left, right: Columns (checkpoints) of the two sides; empty for named sides.
        likelihoods: Whether s comes from likelihoods.
    """

    kind: Literal["window", "ends", "split", "sides"]
    before: str
    after: str
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    likelihoods: bool = False

    def plain(self) -> dict[str, Any]:
        """As plain values, for the loop's state."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> ContrastSpec:
        """Back from plain values (lists become tuples)."""
        return cls(**plain | {"left": tuple(plain["left"]), "right": tuple(plain["right"])})


@dataclass(frozen=True)
class Detection:
    """The transition curve of the window that was used, the peak that is analysed and the other transitions of the run."""

    curve: TransitionCurve
    transition: Transition
    others: tuple[Transition, ...] = ()


def choose_contrast(recording: Recording, config: RunConfig) -> tuple[ContrastSpec, Detection | None]:
    """The contrast the options ask for, or the one the recording suggests.

    Raises:
        ContrastError: The recording does not hold it; one line says what it does hold.
    """
    names = _sides(recording)
    if names:
        given = {
            "--split": config.split is not None,
            "--window": config.window is not None,
            "--ends": config.contrast in ("ends", "window"),
            "--transition": config.transition > 1,
        }
        for option in (name for name, is_given in given.items() if is_given):
            raise ContrastError(
                f"{option}: expected steps along a run, found sides only ({', '.join(names)}); give --before NAME --after NAME"
            )
        return _side_spec(names, config), None
    if config.contrast == "sides":
        raise ContrastError(f"{recording.source}: --before/--after NAME expected a column `side`, found steps only")
    steps = np.array(recording.steps)
    if steps.size < 2:
        raise ContrastError(f"{recording.source}: expected at least two steps or two sides, found {steps.size} step(s)")
    chosen = config.contrast == "ends" or config.split is not None or config.before is not None or config.after is not None
    if config.transition > 1 and (chosen or recording.log_likelihood is None):
        why = "without --ends, --split, --before and --after" if chosen else "with likelihoods, which this recording has not"
        raise ContrastError(f"--transition {config.transition}: expected {why}")
    detection = detect(recording, config) if recording.log_likelihood is not None else None
    if recording.log_likelihood is not None and detection is None and not chosen:
        raise ContrastError(
            f"{recording.source}: no split has responses that are scored under both of its windows; give --split STEP or --ends"
        )
    return _with_stages(_step_spec(recording, steps, config, detection), recording), detection


def stage_names(recording: Recording) -> dict[int, str]:
    """Names of the steps of a run whose steps are stages (base, sft, dpo); none otherwise."""
    stages = recording.manifest.extra.get("stages") if recording.manifest is not None else None
    return {int(step): str(name) for step, name in stages.items()} if isinstance(stages, dict) else {}


def _with_stages(spec: ContrastSpec, recording: Recording) -> ContrastSpec:
    """The sides called by their stages' names."""
    names = stage_names(recording)

    def name(columns: tuple[int, ...]) -> str:
        return " + ".join(names.get(recording.steps[column], f"step {recording.steps[column]}") for column in columns)

    return replace(spec, before=name(spec.left), after=name(spec.right)) if names else spec


def _sides(recording: Recording) -> tuple[str, ...]:
    return tuple(dict.fromkeys(recording.responses.side)) if recording.responses.side is not None else ()


def _side_spec(names: tuple[str, ...], config: RunConfig) -> ContrastSpec:
    found = ", ".join(names)
    for option, name in (("--before", config.before), ("--after", config.after)):
        if name is not None and name not in names:
            raise ContrastError(f"{option} {name}: expected one of the sides in the file ({found})")
    before, after = config.before, config.after
    if len(names) < 2:
        raise ContrastError(f"expected at least two sides, found only {found}")
    if before is None:
        named = [n for n in names if n != after and n.casefold().startswith(BEFORE_NAMES)]
        before = named[0] if len(named) == 1 else None
    if before is not None and after is None and len(names) == 2:
        after = names[1 - names.index(before)]
    if after is not None and before is None and len(names) == 2:
        before = names[1 - names.index(after)]
    if before is None:
        raise ContrastError(f"sides {found}: which one is before and which after? Give --before NAME --after NAME")
    if after is None:
        raise ContrastError(f"sides {found}: with which one is {before} compared? Give --after NAME")
    if before == after:
        raise ContrastError(f"--before and --after name the same side ({before})")
    return ContrastSpec("sides", before, after)


def _columns(text: str, steps: np.ndarray, option: str, stages: dict[int, str]) -> tuple[int, ...]:
    places = {name: step for step, name in stages.items()}
    try:
        wanted = [places[part] if part in places else int(part) for part in text.split(",")]
    except ValueError:
        known = f" or stages ({', '.join(places)})" if places else ""
        raise ContrastError(f"{option} {text}: expected steps such as 0 or 0,10,20{known}, as the recording has no sides") from None
    missing = [w for w in wanted if w not in steps]
    if missing:
        raise ContrastError(f"{option} {text}: step {missing[0]} is not recorded (recorded: {shown_steps(steps)})")
    return tuple(sorted({int(np.flatnonzero(steps == w)[0]) for w in wanted}))


def shown_steps(steps: np.ndarray | tuple[int, ...]) -> str:
    """Steps for a sentence: all of them if few, else the ends and their number."""
    values = [int(s) for s in steps]
    if len(values) <= 6:
        return ", ".join(map(str, values))
    return f"{values[0]}, {values[1]}, ... {values[-1]}: {len(values)} steps"


def _step_spec(recording: Recording, steps: np.ndarray, config: RunConfig, detection: Detection | None) -> ContrastSpec:
    likelihoods = recording.log_likelihood is not None
    n = steps.size
    kind = config.contrast
    if config.before is not None or config.after is not None:
        if config.before is None or config.after is None:
            raise ContrastError("--before and --after are needed together when the recording has steps")
        if config.window is not None:
            raise ContrastError("--window: expected without --before and --after, which name their steps")
        stages = stage_names(recording)
        left, right = _columns(config.before, steps, "--before", stages), _columns(config.after, steps, "--after", stages)
        if shared := sorted(set(left) & set(right)):
            raise ContrastError(f"--before and --after: expected different steps, found step {int(steps[shared[0]])} in both")
        return _named(ContrastSpec("split", "", "", left, right, likelihoods), steps)
    if config.split is not None:
        left = tuple(int(c) for c in np.flatnonzero(steps < config.split))
        right = tuple(int(c) for c in np.flatnonzero(steps >= config.split))
        if not left or not right:
            raise ContrastError(f"--split {config.split}: expected a step inside the run ({shown_steps(steps)})")
        if config.window is not None:
            if config.window > min(len(left), len(right)):
                short, n = ("before", len(left)) if len(left) <= len(right) else ("from", len(right))
                raise ContrastError(f"--window {config.window}: found only {n} checkpoints {short} --split {config.split}")
            left, right = left[-config.window :], right[: config.window]
        return _named(ContrastSpec("split", "", "", left, right, likelihoods), steps)
    if kind == "auto":
        kind = "window" if detection is not None and detection.transition.found else "ends"
    if kind == "window":
        if detection is None:
            raise ContrastError(
                "--window: a transition is searched on likelihoods, and this recording has none; give --split STEP or --ends"
            )
        at, w = detection.transition.first_right, detection.curve.window
        return _named(ContrastSpec("window", "", "", tuple(range(at - w, at)), tuple(range(at, at + w)), likelihoods), steps)
    w = config.window or max(windows_to_scan(n), default=1)
    if 2 * w > n:
        raise ContrastError(f"--window {w}: expected at most {n // 2} for {n} checkpoints")
    return _named(ContrastSpec("ends", "", "", tuple(range(w)), tuple(range(n - w, n)), likelihoods), steps)


def _named(spec: ContrastSpec, steps: np.ndarray) -> ContrastSpec:
    def name(columns: tuple[int, ...]) -> str:
        first, last = int(steps[columns[0]]), int(steps[columns[-1]])
        if len(columns) < columns[-1] - columns[0] + 1:
            return f"steps {shown_steps(steps[list(columns)])}"
        return f"step {first}" if first == last else f"steps {first}-{last}"

    return replace(spec, before=name(spec.left), after=name(spec.right))


def drawn_columns(recording: Recording) -> np.ndarray:
    """`(n,)` column (checkpoint) at which each response was sampled.

    Raises:
        ContrastError: A response was sampled at a step under which nothing is scored.
    """
    steps = np.array(recording.steps)
    step = recording.responses.step
    if step is None:
        raise ContrastError(f"{recording.source}: expected a step for every response, found none")
    column = np.searchsorted(steps, step)
    if (column >= steps.size).any() or (steps[np.minimum(column, steps.size - 1)] != step).any():
        stray = sorted(set(step.tolist()) - set(steps.tolist()))
        raise ContrastError(f"{recording.source}: responses sampled at step {stray[0]}, which is not among the scored checkpoints")
    return np.asarray(column)


def prompt_codes(recording: Recording) -> np.ndarray:
    """`(n,)` int code of each response's prompt, in order of first appearance."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(key, len(first)) for key in recording.responses.prompt_key])


def detect(recording: Recording, config: RunConfig) -> Detection | None:
    """Scan the windows and keep the curve whose peak stands out most (largest lower limit of peak minus median).

    A transition found at any window is preferred over a larger unproven peak. None when responses are scored so near their own
    checkpoint (banded sampling) that no split has responses scored under both of its windows.
    """
    assert recording.log_likelihood is not None  # noqa: S101 - the caller looked
    steps, log_likelihood = np.array(recording.steps), recording.log_likelihood
    drawn, prompt = drawn_columns(recording), prompt_codes(recording)
    best: tuple[tuple[bool, float], Detection] | None = None
    for window in [config.window] if config.window else windows_to_scan(steps.size):
        if 2 * window > steps.size:
            raise ContrastError(f"--window {window}: expected at most {steps.size // 2} for {steps.size} checkpoints")
        curve = transition_curve(log_likelihood, drawn, prompt, steps, window)
        if not curve.ess.any():
            continue
        transition, *others = find_transitions(curve, _learning_rate(recording, curve))
        rank = (transition.found, _stands_out(curve))
        if best is None or rank > best[0]:
            best = (rank, Detection(curve, transition, tuple(others)))
    if best is None and steps.size < 2:
        raise ContrastError(f"{recording.source}: expected at least two checkpoints, found {steps.size}")
    return None if best is None else _chosen_transition(best[1], config)


def _stands_out(curve: TransitionCurve) -> float:
    """Peak minus median over the known splits, less two of its standard errors."""
    known = np.isfinite(curve.curve)
    if not known.any():
        return float("-inf")
    values, loo = curve.curve[known], curve.leave_one_out()[:, known]
    spread = np.std(loo.max(axis=1) - np.median(loo, axis=1)) * np.sqrt(max(loo.shape[0] - 1, 1))
    return float(values.max() - np.median(values) - 2 * spread)


def _chosen_transition(detection: Detection, config: RunConfig) -> Detection:
    """The transition `--transition K` asks for, counted by height from 1."""
    found = [detection.transition, *detection.others]
    if config.transition > len(found):
        noun = "transition was" if len(found) == 1 else "transitions were"
        raise ContrastError(f"--transition {config.transition}: {len(found)} {noun} found")
    chosen = found.pop(config.transition - 1)
    return Detection(detection.curve, chosen, tuple(t for t in found if t.found))


def _learning_rate(recording: Recording, curve: TransitionCurve) -> np.ndarray | None:
    trace = recording.training
    if trace is None or not np.isfinite(trace.learning_rate).any():
        return None
    known = np.isfinite(trace.learning_rate)
    return np.asarray(np.interp(curve.split_steps, trace.step[known], trace.learning_rate[known]))


def build_contrast(recording: Recording, spec: ContrastSpec) -> Contrast:
    """The responses of a contrast with s and weights; `index` points into the recording.

    Raises:
        ContrastError: A side has no responses.
    """
    prompt = prompt_codes(recording)
    if spec.kind == "sides":
        side = np.array(recording.responses.side)
        rows = np.flatnonzero((side == spec.before) | (side == spec.after))
        return side_contrast(side[rows] == spec.after, prompt[rows], rows)
    column = drawn_columns(recording)
    left, right = np.array(spec.left), np.array(spec.right)
    if spec.likelihoods:
        assert recording.log_likelihood is not None  # noqa: S101 - the spec says so
        return likelihood_contrast(recording.log_likelihood, column, prompt, left, right)
    rows = np.flatnonzero(np.isin(column, np.concatenate([left, right])))
    for name, columns in ((spec.before, left), (spec.after, right)):
        if not np.isin(column, columns).any():
            raise ContrastError(f"{recording.source}: no responses were sampled at {name}")
    return side_contrast(np.isin(column[rows], right), prompt[rows], rows)


def confirm_half(contrast: Contrast, seed: int) -> np.ndarray:
    """`(n,)` bool: the random half on which acceptance is decided.

    Within prompt below `MANY_PROMPTS` prompts, by prompt from there on. A prompt with a single response on a side cannot be
    divided and goes whole to one half. Responses drawn at several anchors are dealt out anchor by anchor, so that either half was drawn at
    each of them as the whole was.
    """
    rng = np.random.default_rng([seed, 1])
    out = np.zeros(contrast.s.size, dtype=bool)
    whole = []
    for p in range(contrast.n_prompts):
        rows = np.flatnonzero(contrast.prompt == p)
        cells = [rows] if contrast.likelihoods else [rows[contrast.s[rows] > 0], rows[contrast.s[rows] < 0]]
        if contrast.n_prompts >= MANY_PROMPTS or min(cell.size for cell in cells) < 2:
            whole.append(rows)
            continue
        for cell in cells:
            shuffled = rng.permutation(cell)
            if contrast.drawn is not None:
                dealt = shuffled[np.argsort(contrast.drawn.anchor[shuffled], kind="stable")]
                out[dealt[int(rng.integers(2)) :: 2]] = True
                continue
            # the odd response falls to either half by chance
            out[shuffled[: (cell.size + int(rng.integers(2))) // 2]] = True
    for k in rng.permutation(len(whole))[: len(whole) // 2]:
        out[whole[k]] = True
    return out
