from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tracing.errors import LikelihoodsError
from tracing.likelihoods import check_likelihoods, read_likelihoods, read_scored_steps, steps_path, write_likelihoods


class Bomb:
    """Unpickling one of these writes a file: a test that loads it would notice."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (Path(self.path),))


def some(rng: np.random.Generator, n: int = 5, steps: int = 3, prefixes: int = 2) -> npt.NDArray[np.float32]:
    """Log-probabilities of some responses, one of them not scored under the second step."""
    array = -rng.exponential(30, size=(n, steps, 1 + prefixes)).astype(np.float32)
    array[0, 1] = np.nan
    return array


def test_written_array_comes_back_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    """Every float32, NaN included, and the scored steps come back as they were."""
    path, array = tmp_path / "likelihoods" / "step-000120.npy", some(rng)
    write_likelihoods(path, array, (0, 60, 120), settings="abc")
    assert read_likelihoods(path).tobytes() == array.tobytes()
    assert read_scored_steps(path, settings="abc") == (0, 60, 120)
    assert sorted(file.name for file in path.parent.iterdir()) == ["step-000120.npy", "step-000120.steps.json"]


def test_array_without_sidecar_has_unknown_steps(tmp_path: Path, rng: np.random.Generator) -> None:
    """Without the sidecar the steps are unknown here (the manifest says them), not guessed."""
    path = tmp_path / "step-000120.npy"
    write_likelihoods(path, some(rng), (0, 60, 120))
    steps_path(path).unlink()
    assert read_scored_steps(path) is None


def test_sidecar_of_other_settings_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """Log-probabilities recorded under other settings are named and refused."""
    path = tmp_path / "step-000120.npy"
    write_likelihoods(path, some(rng), (0, 60, 120), settings="one")
    with pytest.raises(LikelihoodsError, match=r"step-000120\.steps\.json: expected likelihoods recorded under the settings other"):
        read_scored_steps(path, settings="other")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b'{"steps": 3, "settings": ""}', b'{"steps": [0, 1'])
def test_damaged_sidecar_is_one_line(tmp_path: Path, content: bytes) -> None:
    """A sidecar that is not what it should be is named."""
    steps_path(tmp_path / "step-000120.npy").write_bytes(content)
    with pytest.raises(LikelihoodsError, match=r"step-000120\.steps\.json: expected"):
        read_scored_steps(tmp_path / "step-000120.npy")


def test_object_arrays_are_refused_by_name_and_never_loaded(tmp_path: Path) -> None:
    """A .npy file of pickled objects is refused with its name, and nothing inside it runs."""
    path, trace = tmp_path / "step-000120.npy", tmp_path / "ran"
    np.save(path, np.array([Bomb(str(trace))], dtype=object), allow_pickle=True)
    with pytest.raises(LikelihoodsError, match=r"step-000120\.npy: expected a \.npy array of float32"):
        read_likelihoods(path)
    assert not trace.exists()


def test_bare_pickles_are_refused_by_name_and_never_loaded(tmp_path: Path) -> None:
    """A pickle renamed to .npy is refused with its name, and nothing inside it runs."""
    path, trace = tmp_path / "step-000120.npy", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Bomb(str(trace))))
    with pytest.raises(LikelihoodsError, match=r"step-000120\.npy: expected a \.npy array of float32"):
        read_likelihoods(path)
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0, 5, 60, -4])
def test_cut_array_is_one_line(tmp_path: Path, rng: np.random.Generator, keep: int) -> None:
    """An array cut anywhere is an error that names the file in one line."""
    path = tmp_path / "step-000120.npy"
    write_likelihoods(path, some(rng), (0, 60, 120))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LikelihoodsError, match=r"step-000120\.npy: expected") as error:
        read_likelihoods(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("array", [np.zeros((2, 2, 1)), np.zeros((2, 2), dtype=np.float32), np.zeros((2, 2, 1), dtype=np.int32)])
def test_other_types_and_shapes_are_refused(tmp_path: Path, array: npt.NDArray[np.generic]) -> None:
    """Only float32 of three dimensions is what the format promises."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(LikelihoodsError, match="expected float32 of 3 dimensions"):
        read_likelihoods(tmp_path / "x.npy")


@pytest.mark.parametrize("value", [np.inf, -np.inf, 0.5])
def test_values_that_are_no_log_probabilities_are_refused_with_their_place(rng: np.random.Generator, value: float) -> None:
    """Infinite or positive values are found and their place is said; NaN (not scored) and rounding above 0 pass."""
    array = some(rng)
    array[1, 0, 0] = 1e-6
    check_likelihoods(array, 5, 3, 2, "here")
    array[3, 2, 1] = value
    with pytest.raises(LikelihoodsError, match=r"here: expected log-probabilities in nats .* at \[3, 2, 1\]"):
        check_likelihoods(array, 5, 3, 2, "here")


def test_wrong_shape_is_refused(rng: np.random.Generator) -> None:
    """An array for another number of responses, steps or prefixes is refused."""
    for wrong in ((4, 3, 2), (5, 2, 2), (5, 3, 1)):
        with pytest.raises(LikelihoodsError, match="expected the shape"):
            check_likelihoods(some(rng), *wrong, where="here")


def test_scored_steps_ascend(tmp_path: Path, rng: np.random.Generator) -> None:
    """Columns in another order would be read as other checkpoints."""
    with pytest.raises(LikelihoodsError, match="ascending"):
        write_likelihoods(tmp_path / "x.npy", some(rng), (60, 0, 120))
    assert not list(tmp_path.iterdir())
