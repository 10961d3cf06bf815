from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tracing.adapters import CONFIG, WEIGHTS, read_adapters
from tracing.errors import AdaptersError

DOWN = "base_model.model.model.layers.0.mlp.down_proj"


def _write(
    folder: Path, rank: int = 2, value: float = 1.0, modules: tuple[str, ...] = (DOWN,), config: dict[str, object] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module in modules:
        tensors[f"{module}.lora_A.weight"] = np.full((rank, 5), value, dtype=np.float32)
        tensors[f"{module}.lora_B.weight"] = np.full((3, rank), -value, dtype=np.float32)
    save_file(tensors, folder / WEIGHTS)
    if config:
        (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA"} | config))
    return folder


def test_a_run_directory_is_read_by_step_and_module(organism_run: Path) -> None:
    """The organism's adapters: all 61 checkpoints in the order of steps, step 0 with B = 0, scale alpha / rank."""
    found = read_adapters(organism_run)
    assert found.steps == tuple(range(0, 121, 2))
    assert list(found.modules) == ["model.layers.0.mlp.down_proj"]
    factors = found.modules["model.layers.0.mlp.down_proj"]
    assert (factors.a.shape, factors.b.shape) == ((61, 1, 176), (61, 64, 1))
    assert not factors.b[0].any()
    assert factors.b[1:].any(axis=(1, 2)).all()
    assert (factors.scale == 0.5).all()  # alpha .5, rank 1
    assert found.notes == ()


def test_checkpoints_sort_by_number(tmp_path: Path) -> None:
    """checkpoint-9 comes before checkpoint-10 and checkpoint-100; other files and folders of a Trainer are passed over."""
    for step in (100, 9, 10):
        _write(tmp_path / f"checkpoint-{step}", value=step)
    (tmp_path / "runs").mkdir()
    (tmp_path / "trainer_state.json").write_text("{}")
    found = read_adapters(tmp_path)
    assert found.steps == (9, 10, 100)
    assert found.modules["model.layers.0.mlp.down_proj"].a[:, 0, 0].tolist() == [9.0, 10.0, 100.0]


def test_one_adapter_is_a_run_of_one_step(tmp_path: Path) -> None:
    """The folder of one adapter is read as it is, its step from its name."""
    assert read_adapters(_write(tmp_path / "checkpoint-40")).steps == (40,)
    assert read_adapters(_write(tmp_path / "final")).steps == (0,)


def test_modules_are_chosen_by_pattern(tmp_path: Path) -> None:
    """A pattern keeps some modules; one that matches none is an error."""
    _write(tmp_path / "step-000001", modules=(DOWN, DOWN.replace("down", "up")))
    assert list(read_adapters(tmp_path, ["*.up_proj"]).modules) == ["model.layers.0.mlp.up_proj"]
    with pytest.raises(AdaptersError, match="expected modules matching q_proj"):
        read_adapters(tmp_path, ["q_proj"])


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 16}, 8.0),
        ({"lora_alpha": 16, "use_rslora": True}, 16 / 2**0.5),
        ({"lora_alpha": 16, "alpha_pattern": {"down_proj": 4}}, 2.0),
        ({"lora_alpha": 16, "alpha_pattern": {"proj": 4}}, 8.0),
        ({}, 1.0),
    ],
)
def test_the_scale_is_that_of_the_configuration(tmp_path: Path, config: dict[str, object], scale: float) -> None:
    """Alpha / rank, alpha / sqrt(rank) with rsLoRA, a pattern's own alpha by whole names; 1 without a configuration."""
    _write(tmp_path, config=config)
    assert read_adapters(tmp_path).modules["model.layers.0.mlp.down_proj"].scale == pytest.approx([scale])


@pytest.mark.slow
def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    """Adapters saved in bfloat16 are read without torch, bit by bit the numbers that torch reads."""
    import torch
    from safetensors.torch import save_file as save_torch

    values = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_torch({f"{DOWN}.lora_A.weight": values, f"{DOWN}.lora_B.weight": torch.ones(3, 2)}, tmp_path / WEIGHTS)
    found = read_adapters(tmp_path).modules["model.layers.0.mlp.down_proj"]
    assert np.array_equal(found.a[0], values.float().numpy())
    assert np.array_equal(found.b[0], np.ones((3, 2)))


def test_names_of_named_adapters_are_read(tmp_path: Path) -> None:
    """`lora_A.default.weight`, as peft calls it in memory, is the same module."""
    tensors = {f"{DOWN}.lora_{factor}.default.weight": np.ones((1, 1), dtype=np.float32) for factor in "AB"}
    save_file(tensors, tmp_path / WEIGHTS)
    assert list(read_adapters(tmp_path).modules) == ["model.layers.0.mlp.down_proj"]


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    """An interrupted save and tensors that are no LoRA factors are named in the notes, not dropped silently."""
    _write(tmp_path / "checkpoint-1")
    folder = _write(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-3").mkdir()
    tensors = {f"{DOWN}.lora_A.weight": np.ones((2, 5)), f"{DOWN}.lora_B.weight": np.ones((3, 2)), "lm_head.weight": np.ones(2)}
    for each in (folder, tmp_path / "checkpoint-1"):
        save_file(tensors, each / WEIGHTS)
    found = read_adapters(tmp_path)
    assert found.steps == (1, 2)
    assert any("checkpoint-3" in note and "interrupted" in note for note in found.notes)
    assert any("lm_head.weight" in note for note in found.notes)


# mistakes


def _line(path: Path) -> str:
    with pytest.raises(AdaptersError) as caught:
        read_adapters(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    """adapter_model.bin is never opened: the error names it, says why and what to do. Beside safetensors it does no harm."""
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    line = _line(tmp_path)
    assert "adapter_model.bin" in line
    assert "pickle" in line
    assert "safe_serialization" in line
    _write(folder)
    assert read_adapters(tmp_path).steps == (5,)


def test_no_adapter_is_one_line(tmp_path: Path) -> None:
    """A missing folder, a file, an empty folder and a whole model are told apart."""
    assert "found nothing" in _line(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    assert "found a file" in _line(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "found none" in _line(tmp_path / "empty")
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    save_file({"w": np.ones(1)}, tmp_path / "run" / "checkpoint-1" / "model.safetensors")
    assert "weights of a whole model" in _line(tmp_path / "run")


def test_two_folders_for_one_step_are_refused(tmp_path: Path) -> None:
    """step-000007 and checkpoint-7 in one folder are ambiguous."""
    _write(tmp_path / "step-000007")
    _write(tmp_path / "checkpoint-7")
    assert "one folder for step 7, found checkpoint-7 and step-000007" in _line(tmp_path)


def test_adapters_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    """Another rank, other modules: one line naming the folder, what was expected and what was found."""
    _write(tmp_path / "step-000001")
    _write(tmp_path / "step-000002", rank=4)
    line = _line(tmp_path)
    assert "step-000002" in line
    assert "(2, 5)" in line
    assert "(4, 5)" in line
    _write(tmp_path / "step-000002", modules=(DOWN.replace("down", "up"),))
    assert "without model.layers.0.mlp.down_proj" in _line(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0not json at all!", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Whatever lies in the file, the error names it."""
    (tmp_path / WEIGHTS).write_bytes(content)
    assert WEIGHTS in _line(tmp_path)


def test_a_cut_file_is_one_line(tmp_path: Path) -> None:
    """Half a file, as a full disk leaves it, is refused."""
    _write(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-8])
    assert WEIGHTS in _line(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    """NaN and infinity would spread silently through every cosine."""
    _write(tmp_path, value=value)
    assert "expected finite numbers" in _line(tmp_path)


def test_half_a_module_and_wrong_shapes_are_refused(tmp_path: Path) -> None:
    """lora_A without lora_B, and ranks that differ between them."""
    save_file({f"{DOWN}.lora_A.weight": np.ones((2, 5))}, tmp_path / WEIGHTS)
    assert "found only lora_A" in _line(tmp_path)
    save_file({f"{DOWN}.lora_A.weight": np.ones((2, 5)), f"{DOWN}.lora_B.weight": np.ones((3, 1))}, tmp_path / WEIGHTS)
    assert "expected A (rank, d_in) and B (d_out, rank)" in _line(tmp_path)


def test_another_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    """IA3, prompt tuning and weights without LoRA factors have no B to follow."""
    _write(tmp_path, config={"peft_type": "IA3"})
    assert "expected a LoRA adapter, found IA3" in _line(tmp_path)
    (tmp_path / CONFIG).unlink()
    save_file({"base_model.model.x.ia3_l": np.ones(2)}, tmp_path / WEIGHTS)
    assert "expected LoRA factors" in _line(tmp_path)
    _write(tmp_path, config={"lora_alpha": "sixteen"})
    assert "expected a number lora_alpha" in _line(tmp_path)


def test_reading_writes_nothing(tmp_path: Path, organism_run: Path) -> None:
    """A read-only folder can be read and stays as it was."""
    copy = tmp_path / "adapters"
    shutil.copytree(organism_run / "adapters", copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    read_adapters(copy)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
