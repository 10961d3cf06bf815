"""Measurements too long for the tests: `make bench` runs them and writes RESULTS.md.

One file `bench_<name>.py` each, with a function `run(quick: bool) -> Section`.
"""
