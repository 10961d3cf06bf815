"""What every test runs under: one thread, loopback only, fixed seeds, tiers in order, optional parts skipped aloud."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.offline import sitecustomize as loopback
from tests.optional_part import missing

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = Path(loopback.__file__ or "").parent
TIERS = ("unit", "slow", "end_to_end")
ENVIRONMENT = {
    # Thread pools are sized when numpy and torch are imported; one thread keeps timings and sums the same on every machine.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
}
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "LANGSMITH_API_KEY", "LANGCHAIN_API_KEY")

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.load_profile("reproducible")


def pytest_configure() -> None:
    """Set the environment before any test module imports numpy or torch; child processes inherit it."""
    os.environ.update(ENVIRONMENT)
    # what a test remembers never reaches the memory of whoever runs it
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="opd-test-data-")
    for key in KEYS:
        os.environ.pop(key, None)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its tier (by marker, by folder, else unit) and run the quick tiers first."""
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker("end_to_end" if "end_to_end" in item.path.parts else "unit")
    items.sort(key=lambda item: next(rank for rank, tier in enumerate(TIERS) if item.get_closest_marker(tier)))


_seconds: dict[str, float] = defaultdict(float)
_count: dict[str, int] = defaultdict(int)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each tier takes."""
    tier = next((tier for tier in TIERS if tier in report.keywords), "unit")
    _seconds[tier] += report.duration
    _count[tier] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each tier took, so that a slow unit test is seen on the day it is written."""
    parts = [f"{tier} {_count[tier]} tests {_seconds[tier]:.1f} s" for tier in TIERS if _count[tier]]
    terminalreporter.write_line("tiers: " + " | ".join(parts))


@pytest.fixture(autouse=True)
def _fixed_seeds(request: pytest.FixtureRequest) -> None:
    """Seed the global generators that third parties draw from; torch only where a test has imported it."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _loopback_only() -> Iterator[None]:
    """Fail the test that tried to reach another machine, also when a library swallowed the refusal."""
    loopback.refused.clear()
    yield
    tried = list(loopback.refused)
    loopback.refused.clear()
    assert not tried, f"tried to leave this machine: {tried}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of this test's own: the same numbers on every run and in every order of the tests."""
    import numpy as np

    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def opd_data() -> Path:
    """The folder of real data for trying and measuring (`OPD_DATA`); it is never part of the repository."""
    folder = os.environ.get("OPD_DATA", "")
    if folder and Path(folder, "README.md").is_file():
        return Path(folder)
    found = f"OPD_DATA={folder} holds no README.md" if folder else "OPD_DATA is unset"
    missing("the shared data", f"{found}; set OPD_DATA to the folder that holds em_base_vs_bad_qwen7b/ and its README.md")


@pytest.fixture(scope="session")
def organism_run() -> Path:
    """The committed recording of the model organism; tests that write into a run copy it first."""
    folder = ROOT / "tests" / "runs" / "organism"
    if not (folder / "manifest.json").is_file():
        missing("tests/runs/organism", "record it with `discover organism --out tests/runs/organism`")
    return folder
