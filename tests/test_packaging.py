"""The wheel: what is in it, and that it works from a folder that is not the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "prompts", "probes", "tracing")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built by the hatchling of this environment without looking anything up."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(folder),
        str(ROOT),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _written() -> set[str]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts and path.name != ".keep"}


def test_the_wheel_holds_every_file_of_the_four_packages(unpacked: Path) -> None:
    """Templates, pages and price tables travel with the code: nothing that lies in a package is missing from the wheel."""
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert _written() - held == set()
    assert {path.partition("/")[0] for path in held if ".dist-info" not in path} == set(PACKAGES)
    assert any(path.startswith("tracing/importers/") for path in held)
    assert any(path.startswith("agent/report/") and path.endswith(".html") for path in held)


def test_the_wheel_refuses_to_be_uploaded_and_names_its_licence(unpacked: Path) -> None:
    """An index rejects the classifier, so flat names cannot be published by accident; MIT and the command are declared."""
    (info,) = unpacked.glob("*.dist-info")
    described = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    assert "Private :: Do Not Upload" in (described.get_all("Classifier") or [])
    assert described["License-Expression"] == "MIT"
    assert (info / "licenses" / "LICENSE").is_file()
    assert (info / "entry_points.txt").read_text(encoding="utf-8").split() == ["[console_scripts]", "discover", "=", "agent.cli:main"]


def test_the_unpacked_wheel_works_from_another_directory(unpacked: Path, tmp_path: Path) -> None:
    """All packages import from the wheel, not from the checkout, and the command answers there."""
    code = f"import {', '.join(PACKAGES)}, tracing.importers; print(*[p.__file__ for p in ({', '.join(PACKAGES)})], sep='\\n')"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(unpacked), os.environ["PYTHONPATH"]])}
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert imported.returncode == 0, imported.stderr
    assert [Path(line).parent.parent for line in imported.stdout.split()] == [unpacked] * len(PACKAGES)
    helped = "import sys; sys.argv = ['discover', '--help']; from agent.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", helped], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert shown.returncode == 0, shown.stderr
    assert "--run" in shown.stdout
