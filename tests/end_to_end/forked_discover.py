"""Runs `discover` many times and kills it: reads one JSON object per line, {"words": [...], "kill_after": seconds or null}.

Everything is imported once; each command then runs in a process of its own, forked from here, so that the seconds of importing
are not spent twenty times and every kill falls into the work. Answers one line per command: {"code": exit code or minus the signal,
"seconds": how long it ran}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import agent.discovery
import agent.progress  # noqa: F401
from agent.cli import main
from agent.report.html import html_report
from agent.report.terminal import plain
from tests.report_findings import full


def run(words: list[str], kill_after: float | None) -> tuple[int, float]:
    """Run one command in a process of its own; kill it after `kill_after` seconds if it is still there."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        log = os.open("forked.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["discover", *words]
        try:
            main()
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(70)
    while True:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status), time.monotonic() - began
        if kill_after is not None and time.monotonic() - began >= kill_after:
            os.kill(child, signal.SIGKILL)
            kill_after = None
        time.sleep(0.001)


if __name__ == "__main__":
    html_report(full())  # templates compiled once
    plain(full())
    for line in sys.stdin:
        asked = json.loads(line)
        code, seconds = run(asked["words"], asked["kill_after"])
        print(json.dumps({"code": code, "seconds": seconds}), flush=True)
