"""A `discover` command as a user types it: shown, run in a process of its own, stopped at on failure."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = Path("tests/runs/organism")
"""The committed organism, fine-tuned on bad medical advice: studies ask its checkpoints, or fine-tune its base."""


def discover(*arguments: str | Path) -> str:
    """Run `discover ARGUMENTS` from the root of the repository; what it printed.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    words = [str(argument) for argument in arguments]
    print("$ discover " + shlex.join(words), flush=True)
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "agent.cli", *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        print(done.stdout)
        done.check_returncode()
    print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    return done.stdout
