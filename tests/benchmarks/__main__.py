"""`python -m tests.benchmarks [--only NAME]... [--quick]`: run the benchmarks and write their sections of RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.results import replace_sections
from tests.benchmarks.section import Section

HERE = Path(__file__).parent
PREFIX = "bench_"


def names() -> list[str]:
    """Every benchmark there is: the files `bench_<name>.py` beside this one."""
    return sorted(module.name.removeprefix(PREFIX) for module in pkgutil.iter_modules([str(HERE)]) if module.name.startswith(PREFIX))


def measure(name: str, *, quick: bool) -> Section:
    """Run one benchmark by its name."""
    section = importlib.import_module(f"tests.benchmarks.{PREFIX}{name}").run(quick)
    if not isinstance(section, Section):
        raise TypeError(f"{PREFIX}{name}.run: expected a Section, found {type(section).__name__}")
    return section


def main(arguments: Sequence[str] | None = None, results: Path = HERE / "RESULTS.md") -> int:
    """Measure what was asked for; a section is written as soon as it is measured, so an interruption loses one at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=names(), help="measure this one; may be given several times")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, to see that it runs: printed, not written")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(names()))
        return 0
    for name in options.only or names():
        began = time.perf_counter()
        section = measure(name, quick=options.quick)
        print(f"{section.markdown()}\n\n({name}: {time.perf_counter() - began:.0f} s)\n", flush=True)
        if not options.quick:
            replace_sections(results, {name: section.markdown()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
