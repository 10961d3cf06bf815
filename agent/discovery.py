"""One discovery from a path to findings: open what is read, lock the folder, resume or start, run the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.config import RunConfig, default_output
from agent.errors import ConfigError, RunLockedError
from agent.graph import run_loop, waits_for_review
from agent.human_labels import load_human_labels
from agent.hypotheses import FILE as PREREGISTERED
from agent.hypotheses import Hypothesis, read_hypotheses, refuse_incomplete
from agent.judge import Judge, make_judge
from agent.marker import MARKER, read_marker
from agent.proposer import Proposer, make_proposer
from agent.records import Findings
from agent.remembered import FILE as REMEMBERED
from agent.remembering import recall, remember
from agent.report import read_findings, write_all
from agent.spending import Limits, cost_lines, null_runs_pay, paying
from agent.workbench import Progress, Workbench
from tracing import load
from tracing.errors import LockedError
from tracing.lock import run_lock
from tracing.whole_file import whole_file

OUTPUTS = (
    "config.toml",
    PREREGISTERED,
    REMEMBERED,
    "candidates.jsonl",
    "events.jsonl",
    "findings.json",
    "report.md",
    "report.html",
    "graph.sqlite",
    MARKER,
)
"""What a discovery writes besides `judgements.sqlite`, which is shared by all discoveries of a folder; the marker is moved last."""


def discover(
    config: RunConfig,
    out: Path | None = None,
    fresh: bool = False,
    progress: Progress = lambda name, numbers: None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    before_spending: Callable[[Workbench], None] = lambda work: None,
) -> tuple[Findings, Path, bool]:
    """Run a discovery, take it up where it was killed, or read it if it is finished.

    Args:
        config: What is asked.
        out: Where everything is written; default: the run directory itself, or `discoveries/NAME-DIGEST` for a file.
        fresh: Run again even if a finished discovery with the same options is there.
        progress: Called with an event's name and numbers.
        limits: What LLM roles may spend.
        before_spending: Called once everything is read and before the first call; raises to spend nothing.

    Returns:
        The findings, the folder they lie in, and whether they were read from an earlier, finished discovery.

    Raises:
        ConfigError, ContrastError, tracing.errors.TracingError: Wrong input, in one line.
        RunLockedError: Another process works in the folder.
    """
    work = open_workbench(config, out, progress)
    folder, digest = work.folder, work.discovery
    if fresh or not _is_finished(folder, digest):
        _ = work.contrast  # one that cannot be made is refused before anything is written or set aside
    _make_folder(folder)
    try:
        with run_lock(folder):
            if _is_finished(folder, digest) and not fresh and not _opens_again(folder, work):
                return read_findings(folder), folder, True
            _prepare(folder, digest, config, fresh)
            recall(work)
            work.publish = lambda findings: write_all(_with_null(findings, work), folder)
            before_spending(work)
            with paying(work, limits, digest[:32]):
                state = run_loop(work, thread=digest[:32])
            if waits_for_review(state, work):
                _mark(folder, digest, "review")
                return read_findings(folder), folder, False
            remember(read_findings(folder), work)
            _mark(folder, digest, "finished")
    except LockedError as error:
        raise RunLockedError(str(error)) from None
    return read_findings(folder), folder, False


def open_workbench(config: RunConfig, out: Path | None = None, progress: Progress = lambda name, numbers: None) -> Workbench:
    """Read what is asked about and make the roles; nothing is written.

    Args:
        config: What is asked.
        out: Where everything is to be written; default: the run directory itself, or `discoveries/NAME-DIGEST` for a file.
        progress: Called with an event's name and numbers.

    Raises:
        ConfigError, ContrastError, tracing.errors.TracingError: Wrong input, in one line.
    """
    path = Path(config.run)
    if not path.exists():
        raise ConfigError(f"--run {config.run}: expected a run directory or a file of responses, found nothing there")
    proposer, judge = make_proposer(config.proposer), make_judge(config.judge)
    if judge.id == "embedded" and hasattr(proposer, "asker"):
        raise ConfigError(f"--proposer {config.proposer}: its candidates have to be read: expected --judge with an LLM, found embedded")
    second_judge = None if config.second_judge is None else make_judge(config.second_judge, "--second-judge")
    if second_judge is not None and second_judge.id == judge.id:
        raise ConfigError(f"--second-judge {config.second_judge}: expected another judge than --judge, found the same")
    hypotheses = _hypotheses(config, proposer, judge)
    recording = load(path, columns=config.columns, select=config.select)
    labels = None if config.human_labels is None else load_human_labels(config.human_labels, recording.responses)
    others = [second_judge.id] if second_judge else []
    others += [labels.digest] if labels else []
    digest = config.digest(recording.digest, _version(), proposer.id, judge.id, *(h.text for h in hypotheses), *others)
    folder = out or default_output(path, path.is_dir(), digest)
    return Workbench(recording, config, folder, proposer, judge, progress, discovery=digest, second_judge=second_judge, human_labels=labels)


def _hypotheses(config: RunConfig, proposer: Proposer, judge: Judge) -> list[Hypothesis]:
    """The user's hypotheses, refused before anything is done when these roles cannot word or test them."""
    given = read_hypotheses(config.hypotheses, config.hypothesis)
    for hypothesis in given:
        if judge.id == "embedded" and "rule" not in hypothesis.given:
            raise ConfigError(
                f"{hypothesis.where}: the embedded judge applies rules: expected rule = {{kind = ...}}, found none; "
                "or choose a judge that reads with --judge"
            )
    refuse_incomplete(given, proposer)
    return given


def _with_null(findings: Findings, work: Workbench) -> Findings:
    """The findings with the null run that was asked for."""
    if work.config.null == "none":
        return findings
    from agent.null_runs import null_runs

    with null_runs_pay(work):
        found = null_runs(work, work.config.null, work.config.null_runs, work.progress)
    return findings.model_copy(update={"null_run": found, "cost": cost_lines(work)})


def _version() -> str:
    from agent.findings import versions

    return versions()["order-parameter-discovery"]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: expected a folder to write to ({error.strerror}); choose one with --out DIR") from None


def _marker(folder: Path) -> list[str]:
    """Digest and state of the discovery a folder holds; empty when it holds none.

    Raises:
        ConfigError: The folder holds files by our names that are not ours: they would be overwritten.
    """
    marker = read_marker(folder)
    if marker:
        return marker
    for name in OUTPUTS:
        if (folder / name).exists():
            raise ConfigError(f"{folder / name}: expected to write it, found one that is not discover's; choose another --out DIR")
    return []


def _is_finished(folder: Path, digest: str) -> bool:
    return _marker(folder) == [digest, "finished"] and (folder / "findings.json").exists()


def _opens_again(folder: Path, work: Workbench) -> bool:
    """Whether a finished discovery has a review to stop for or to take in."""
    earlier = read_findings(folder).review
    return (earlier.reviews if earlier else 0) < work.reviews_wanted


def _prepare(folder: Path, digest: str, config: RunConfig, fresh: bool) -> None:
    """Keep an earlier discovery with other options aside, then write the configuration before the first call."""
    marker = _marker(folder)
    # "finished" without findings: somebody removed them, and the finished loop would not write them again
    lost = marker[1:] == ["finished"] and not (folder / "findings.json").exists()
    if marker and (marker[0] != digest or fresh or lost):
        kept = folder / "earlier" / marker[0][:8]
        while kept.exists():
            kept = kept.with_name(kept.name + "'")
        kept.mkdir(parents=True)
        for name in OUTPUTS:
            for part in folder.glob(f"{name}*"):
                part.rename(kept / part.name)
    _mark(folder, digest, "started")
    with whole_file(folder / "config.toml") as file:
        file.write(config.as_toml().encode("utf-8", "replace"))


def _mark(folder: Path, digest: str, state: str) -> None:
    with whole_file(folder / MARKER) as file:
        file.write(f"{digest}\n{state}\n".encode())
