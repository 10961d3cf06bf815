from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "prompts", "probes", "tracing")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
READING_ORDER = (
    "agent/graph.py",
    "agent/nodes.py",
    "prompts/propose.md",
    "agent/proposer.py",
    "prompts/judge.md",
    "agent/judge.py",
    "probes/explained_share.py",
    "probes/transition.py",
    "tracing/__init__.py",
)
HEAVY = {"torch", "transformers", "peft", "chromadb", "langgraph", "anthropic", "openai", "sklearn", "pyarrow", "plotly", "pandas"}
HELP = "import sys; sys.argv = ['discover', '--help']; from agent.cli import main; main()"


def _sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def _pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


# names


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_owns_our_names(package: str) -> None:
    """Each flat name belongs to this project alone, and importing it finds this project's folder."""
    assert set(metadata.packages_distributions().get(package, [])) <= {"order-parameter-discovery"}
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / package / "__init__.py"


@pytest.mark.slow
def test_no_file_is_named_for_what_it_happens_to_hold() -> None:
    """A file's name is the noun inside it, never utils, helpers, common or manager."""
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [path for path, _ in _sources() if path.stem in vague] == []


# start-up


def _help(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", HELP], capture_output=True, text=True, check=False, cwd=ROOT)


def test_help_imports_nothing_heavy() -> None:
    """`discover --help` loads neither torch nor any other of the packages that take long to import."""
    shown = _help("-X", "importtime")
    assert shown.returncode == 0, shown.stderr
    assert "--run" in shown.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.stderr.splitlines() if line.startswith("import time:")}
    assert "agent" in imported
    assert imported & HEAVY == set()


# floors


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    wide = os.environ | {"COLUMNS": "200"}  # names of contracts are printed unbroken
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=wide)


def test_import_contracts_hold() -> None:
    """No module imports against the floors."""
    linted = _lint(ROOT)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("probes/rules.py", "import tracing", "A star"),
        ("tracing/responses.py", "import agent.records", "A star"),
        ("agent/llm/embedded.py", "import agent.judge", "Floors inside agent"),
        ("agent/leftovers.py", "", "Floors inside agent"),
        ("agent/records.py", "def f(): import langgraph.graph", "langgraph only"),
        ("agent/judge.py", "import anthropic", "Provider SDKs only"),
        ("probes/rules.py", "def f(): import chromadb", "chromadb only"),
        ("agent/cli.py", "def f(): from torch import nn", "torch, transformers, peft only"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, module: str, line: str, broken: str) -> None:
    """Each contract can fail: one import against it, also inside a function, is found in a house that is otherwise in order.

    A module of agent that stands on no floor is found as well.
    """
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    allowed = {"agent/graph.py": "import langgraph", "agent/llm/openai.py": "import openai", "tracing/recorder.py": "import transformers"}
    for path in [f"{package}/__init__.py" for package in PACKAGES] + ["agent/llm/__init__.py", "agent/errors.py", "agent/judge.py"]:
        allowed.setdefault(path, "")
    for path, text in (allowed | {"tracing/responses.py": "", "agent/records.py": ""} | {module: line}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    linted = _lint(tmp_path)
    assert linted.returncode == 1, linted.stdout
    (found,) = re.findall(r"^(.+) BROKEN\b", linted.stdout, re.MULTILINE)
    assert found.startswith(broken)


@pytest.mark.slow
def test_nothing_unpickles() -> None:
    """The packages load no pickle in any of its disguises: a run directory from a stranger cannot execute code."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    found = []
    for path, tree in _sources():
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    found += [f"{path}: import {alias.name}" for alias in names if alias.name.partition(".")[0] in modules]
                case ast.ImportFrom(module=str(name)) if name.partition(".")[0] in modules:
                    found.append(f"{path}: from {name} import")
                case (
                    ast.keyword(arg="weights_only", value=ast.Constant(value=False))
                    | ast.keyword(arg="allow_pickle", value=ast.Constant(value=True))
                ):
                    found.append(f"{path}: {ast.unparse(node)}")
    assert found == []


# versions and pages


def test_the_changelog_knows_the_version() -> None:
    """The newest released section of CHANGELOG.md is the version in pyproject.toml."""
    released = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == PROJECT["project"]["version"]


def _closure(requirements: list[str]) -> Iterator[Requirement]:
    """Every requirement reachable from these in this environment, extras followed."""
    waiting = [(Requirement(text), "") for text in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        key = (canonicalize_name(requirement.name), str(requirement.specifier), frozenset(requirement.extras))
        if key in seen or (requirement.marker is not None and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add(key)
        yield requirement
        for text in metadata.requires(requirement.name) or []:
            waiting += [(Requirement(text), wanted) for wanted in ("", *requirement.extras)]


def test_constraints_pin_everything_that_is_installed() -> None:
    """Every direct and indirect dependency of the project and its dev tools has a pin, and the pin meets every floor."""
    pins = _pins()
    needed = list(_closure(PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]))
    assert len(needed) > 60
    assert sorted({canonicalize_name(each.name) for each in needed} - pins.keys()) == []
    assert [str(each) for each in needed if not each.specifier.contains(pins[canonicalize_name(each.name)], prereleases=True)] == []


def test_torch_is_pinned_first_and_without_a_build() -> None:
    """The pin of torch stands first and names no CPU or CUDA build, so it is met by either."""
    first = next(line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    assert first.startswith("torch==")
    assert "+" not in first


def test_the_readme_lists_the_reading_order() -> None:
    """Every file of the newcomer's reading order that exists has its line in the README, in that order."""
    listed = re.findall(r"^\d+\. `([^`]+)`:", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [path for path in listed if path in READING_ORDER] == [path for path in READING_ORDER if (ROOT / path).exists()]


def test_the_readme_names_no_file_that_does_not_exist() -> None:
    """Every path of the four packages and of tests/ that the README names is there."""
    named = re.findall(rf"`((?:{'|'.join((*PACKAGES, 'tests'))})/[\w./]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert named


# habits


def test_global_thread_pools_have_one_thread() -> None:
    """Tests run on one thread, so that timings and sums are the same on every machine."""
    import numpy as np
    from threadpoolctl import threadpool_info

    assert np.ones((2, 2)).sum() == 4
    assert {pool["num_threads"] for pool in threadpool_info()} <= {1}


@pytest.mark.parametrize("run", range(2))
def test_the_generator_of_a_test_is_its_own(rng: Any, run: int) -> None:
    """The same test draws the same numbers whatever ran before it, and another test draws others."""
    assert round(float(rng.random()), 6) == {0: 0.542502, 1: 0.444908}[run]
