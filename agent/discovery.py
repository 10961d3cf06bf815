"""One discovery from a path to findings: open what is read, lock the folder, resume or start, run the loop."""

from __future__ import annotations

from pathlib import Path

from agent.config import RunConfig, default_output
from agent.errors import ConfigError, RunLockedError
from agent.graph import run_loop
from agent.judge import make_judge
from agent.proposer import make_proposer
from agent.records import Findings
from agent.remembering import remember
from agent.report import read_findings, write_all
from agent.workbench import Progress, Workbench
from tracing import load
from tracing.errors import LockedError
from tracing.lock import run_lock

OUTPUTS = ("config.toml", "candidates.jsonl", "events.jsonl", "findings.json", "report.md", "report.html", "graph.sqlite", "discovery.txt")
"""What a discovery writes besides `judgements.sqlite`, which is shared by all discoveries of a folder."""


def discover(
    config: RunConfig, out: Path | None = None, fresh: bool = False, progress: Progress = lambda name, numbers: None
) -> tuple[Findings, Path, bool]:
    """Run a discovery, take it up where it was killed, or read it if it is finished.

    Args:
        config: What is asked.
        out: Where everything is written; default: the run directory itself, or `discoveries/NAME-DIGEST` for a file.
        fresh: Run again even if a finished discovery with the same options is there.
        progress: Called with an event's name and numbers.

    Returns:
        The findings, the folder they lie in, and whether they were read from an earlier, finished discovery.

    Raises:
        ConfigError, ContrastError, tracing.errors.TracingError: Wrong input, in one line.
        RunLockedError: Another process works in the folder.
    """
    path = Path(config.run)
    if not path.exists():
        raise ConfigError(f"--run {config.run}: expected a run directory or a file of responses, found nothing there")
    proposer, judge = make_proposer(config.proposer), make_judge(config.judge)
    recording = load(path, columns=config.columns, select=config.select)
    digest = config.digest(recording.digest, _version())
    folder = out or default_output(path, path.is_dir(), digest)
    _make_folder(folder)
    try:
        with run_lock(folder):
            if _is_finished(folder, digest) and not fresh:
                return read_findings(folder), folder, True
            _prepare(folder, digest, config, fresh)
            work = Workbench(recording, config, folder, proposer, judge, progress)
            work.publish = lambda findings: write_all(_with_null(findings, work), folder)
            run_loop(work, thread=digest[:32])
            remember(read_findings(folder), work)
            (folder / "discovery.txt").write_text(f"{digest}\nfinished\n", encoding="utf-8")
    except LockedError as error:
        raise RunLockedError(str(error)) from None
    return read_findings(folder), folder, False


def _with_null(findings: Findings, work: Workbench) -> Findings:
    """The findings with the null run that was asked for."""
    if work.config.null == "none":
        return findings
    from agent.null_runs import null_runs

    return findings.model_copy(update={"null_run": null_runs(work, work.config.null, work.config.null_runs, work.progress)})


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
    path = folder / "discovery.txt"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def _is_finished(folder: Path, digest: str) -> bool:
    return _marker(folder) == [digest, "finished"] and (folder / "findings.json").exists()


def _prepare(folder: Path, digest: str, config: RunConfig, fresh: bool) -> None:
    """Keep an earlier discovery with other options aside, then write the configuration before the first call."""
    marker = _marker(folder)
    if marker and (marker[0] != digest or fresh):
        kept = folder / "earlier" / marker[0][:8]
        while kept.exists():
            kept = kept.with_name(kept.name + "'")
        kept.mkdir(parents=True)
        for name in OUTPUTS:
            for part in folder.glob(f"{name}*"):
                part.rename(kept / part.name)
    (folder / "config.toml").write_text(config.as_toml(), encoding="utf-8")
    (folder / "discovery.txt").write_text(f"{digest}\nstarted\n", encoding="utf-8")
