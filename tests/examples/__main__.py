"""`python -m tests.examples NAME`: run one study (or `all`) from the committed organism, and refresh what the repository keeps of it.

Everything is written under `discoveries/examples/NAME` (which git ignores); report and figure go to `tests/examples/NAME`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.examples import ablation_study, domain_study, judge_study, sensitivity_study
from tests.examples.typed import ROOT

STUDIES: dict[str, Callable[[Path, Path], str]] = {
    **{domain: partial(domain_study.study, domain) for domain in ("knowledge", "politics", "ethics")},
    "ablation": ablation_study.study,
    "judges": judge_study.study,
    "sensitivity": sensitivity_study.study,
}


OUT, KEPT = Path("discoveries/examples"), Path("tests/examples")


def main(arguments: Sequence[str] | None = None, out: Path = OUT, kept: Path = KEPT) -> int:
    """Run what was asked for and print what it found."""
    os.chdir(ROOT)  # so that paths in reports are the same on every machine
    parser = argparse.ArgumentParser(prog="python -m tests.examples", description=__doc__)
    parser.add_argument("name", choices=[*STUDIES, "all"])
    chosen = parser.parse_args(arguments).name
    for name in STUDIES if chosen == "all" else [chosen]:
        began = time.perf_counter()
        print(STUDIES[name](out / name, kept / name))
        print(f"{name}: {time.perf_counter() - began:.0f} s; {kept / name}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
