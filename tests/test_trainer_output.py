from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tracing.errors import CheckpointsError
from tracing.trainer_output import fingerprint, is_trainer_output, read_trainer_output

WEIGHTS = {"layer.weight": np.arange(6, dtype=np.float32)}


def adapter(folder: Path, base: str | None = "base", value: float = 1.0) -> Path:
    """An adapter's folder as peft leaves it."""
    folder.mkdir(parents=True)
    save_file({"base_model.model.x.lora_A.weight": np.full((1, 3), value, dtype=np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    return folder


def whole(folder: Path) -> Path:
    """A whole model's folder."""
    folder.mkdir(parents=True)
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def sharded(folder: Path) -> Path:
    """A whole model in two shards."""
    folder.mkdir(parents=True)
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name in names:
        save_file(WEIGHTS, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    (folder / "config.json").write_text("{}")
    return folder


def with_state(folder: Path, step: int, history: Sequence[dict[str, Any]] = ()) -> Path:
    """A folder with the trainer_state.json that a Trainer writes last."""
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": list(history)}))
    return folder


def test_checkpoints_are_sorted_by_number(tmp_path: Path) -> None:
    """checkpoint-1000 comes after checkpoint-200; other folders are none; the base that an adapter names is found beside the run."""
    for step in (1000, 200, 30):
        with_state(adapter(tmp_path / "run" / f"checkpoint-{step}"), step)
    (tmp_path / "run" / "runs").mkdir()
    whole(tmp_path / "base")
    found = read_trainer_output(tmp_path / "run")
    assert list(found.folders) == [30, 200, 1000]
    assert found.kind == "adapter"
    assert found.base == str(tmp_path / "base")
    assert found.notes == ()
    assert is_trainer_output(tmp_path / "run")
    assert not is_trainer_output(tmp_path / "base")


def test_a_hub_name_stays_a_hub_name(tmp_path: Path) -> None:
    """A base that lies nowhere near is passed on as it is; an adapter that names none leaves it open."""
    adapter(tmp_path / "run" / "checkpoint-1", "someone/some-model")
    assert read_trainer_output(tmp_path / "run").base == "someone/some-model"
    adapter(tmp_path / "other" / "checkpoint-1", None)
    assert read_trainer_output(tmp_path / "other").base is None


@pytest.mark.parametrize("make", [whole, sharded])
def test_whole_models_have_one_kind(make: Any, tmp_path: Path) -> None:
    """One file or shards; mixed with an adapter they are refused by name."""
    make(tmp_path / "checkpoint-1")
    make(tmp_path / "checkpoint-2")
    assert read_trainer_output(tmp_path).kind == "whole"
    adapter(tmp_path / "checkpoint-3")
    with pytest.raises(CheckpointsError, match=r"found an adapter in checkpoint-3 and a whole model in checkpoint-1"):
        read_trainer_output(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("no state", "no whole trainer_state.json"),
        ("half state", "no whole trainer_state.json"),
        ("no weights", "no adapter_model.safetensors and no model.safetensors"),
        ("cut weights", "model-00002-of-00002.safetensors is cut short"),
        ("no shard", "model-00002-of-00002.safetensors is missing"),
        ("half index", "model.safetensors.index.json is damaged"),
        ("no config", "no config.json"),
    ],
)
def test_what_was_being_saved_is_named_and_left_out(damage: str, reason: str, tmp_path: Path) -> None:
    """A last checkpoint without its last file, a shard or half of one is left out with a note; the others are used."""
    for step in (10, 20):
        with_state(sharded(tmp_path / f"checkpoint-{step}"), step)
    last = with_state(sharded(tmp_path / "checkpoint-30"), 30)
    shard = last / "model-00002-of-00002.safetensors"
    if damage == "no state":
        (last / "trainer_state.json").unlink()
    elif damage == "half state":
        (last / "trainer_state.json").write_text('{"global_step": 30, "log_hist')
    elif damage == "no weights":
        for file in (*last.glob("*.safetensors"), last / "model.safetensors.index.json"):
            file.unlink()
    elif damage == "cut weights":
        shard.write_bytes(shard.read_bytes()[:-4])
    elif damage == "no shard":
        shard.unlink()
    elif damage == "half index":
        (last / "model.safetensors.index.json").write_text("{")
    else:
        (last / "config.json").unlink()
    found = read_trainer_output(tmp_path)
    assert list(found.folders) == [10, 20]
    assert found.notes == (f"checkpoint-30: {reason} (an interrupted save?), left out",)


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Weights that are there only as a pickle end in one line that names the file; beside safetensors nothing but those is read."""
    whole(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointsError, match=f"checkpoint-2/{name}: expected safetensors, found a pickle"):
        read_trainer_output(tmp_path)
    for file in ("training_args.bin", "optimizer.pt", name):
        (tmp_path / "checkpoint-1" / file).write_bytes(b"\x80\x04.")
    (tmp_path / "checkpoint-2" / name).unlink()
    assert list(read_trainer_output(tmp_path).folders) == [1]


def test_the_newest_log_counts_and_nan_is_missing(tmp_path: Path) -> None:
    """The newest trainer_state.json holds the whole history; NaN (as transformers writes it) is kept as missing and named."""
    early = [{"step": 1, "loss": 9.0, "grad_norm": 1.0, "learning_rate": 0.1, "epoch": 0.1}]
    late = [*early, {"step": 2, "loss": 8.0, "grad_norm": float("nan"), "learning_rate": 0.1}, {"step": 2, "eval_loss": 7.0}]
    with_state(whole(tmp_path / "checkpoint-1"), 1, early)
    with_state(whole(tmp_path / "checkpoint-2"), 2, late)
    found = read_trainer_output(tmp_path)
    assert [row["step"] for row in found.training] == [1, 2]
    assert found.training[1] == {"step": 2, "loss": 8.0, "grad_norm": None, "learning_rate": 0.1}
    assert found.notes == ("training log: grad_norm is no number at 1 of 2 steps (first: step 2), kept as missing",)


def test_our_recorder_goes_before_the_trainer(tmp_path: Path) -> None:
    """Adapters of the recorder stand beside checkpoints, one for each step; its rows are laid over those of the Trainer."""
    with_state(adapter(tmp_path / "checkpoint-4", value=1.0), 4, [{"step": 4, "loss": 2.0, "grad_norm": 1.0}])
    for step in (2, 4):
        adapter(tmp_path / "adapters" / f"step-{step:06d}", value=2.0)
    (tmp_path / "training.jsonl").write_text('{"step": 3, "loss": 2.5}\n{"step": 4, "grad_norm": 3.0, "loss": null}\n{"st')
    found = read_trainer_output(tmp_path)
    assert {step: folder.parent.name for step, folder in found.folders.items()} == {2: "adapters", 4: "adapters"}
    assert found.training == ({"step": 3, "loss": 2.5}, {"step": 4, "loss": 2.0, "grad_norm": 3.0})


def test_nothing_to_read_is_one_line(tmp_path: Path) -> None:
    """No folder, a file, an empty folder: what was expected and what was found."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, words in (("none", "found nothing"), ("file", "found a file"), ("empty", "expected folders like checkpoint-200")):
        with pytest.raises(CheckpointsError, match=words) as caught:
            read_trainer_output(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_fingerprint_is_of_the_weights(tmp_path: Path) -> None:
    """Equal weights have one fingerprint wherever they lie, one changed bit gives another, a hub name stands for itself."""
    one, same, other = adapter(tmp_path / "a"), adapter(tmp_path / "b"), adapter(tmp_path / "c", value=1.0000001)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert fingerprint("someone/some-model") == "hub:someone/some-model"


def test_a_large_file_is_read_in_places(tmp_path: Path) -> None:
    """Of a file too large to be read whole, header, beginning and end decide, and samples between."""
    values = np.zeros(1 << 20, dtype=np.float32)
    prints = []
    for name, place in (("a", None), ("b", 0), ("c", -1), ("d", None)):
        folder = tmp_path / name
        folder.mkdir()
        changed = values.copy()
        if place is not None:
            changed[place] = 1
        save_file({"w": changed}, folder / "model.safetensors")
        prints.append(fingerprint(folder, whole=1 << 10))
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3
