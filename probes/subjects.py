"""Subjects as they lie on disk: whole models and LoRA adapters, read from safetensors only, never by unpickling.

torch, transformers and peft are imported inside functions.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from safetensors import SafetensorError

from probes.errors import SampleError
from probes.lora_adapter import Adapted, LoraAdapter, is_plain_folder

REFUSED = ("adapter_model.bin", "pytorch_model.bin")
DTYPES = ("float32", "bfloat16", "float16")
PLAIN_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
"""How a subject without a chat template is asked: system text, question and "Answer:", each on a line."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
"""What transformers, peft and safetensors raise at files that are not what they should be."""
_loading = Lock()  # transformers changes torch's default dtype while it builds a model


def detected_device(wanted: str | None = None) -> str:
    """The device asked for, else the best one here.

    Raises:
        SampleError: It is not here.
    """
    import torch

    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here.insert(0, "cuda")
    if wanted is None:
        return here[0]
    if wanted.partition(":")[0] not in here:
        raise SampleError(f"expected a device among {', '.join(here)}, found {wanted}")
    return wanted


def load_subject(path: str | Path, base: str | Path | None = None, dtype: str = "float32", device: str | None = None) -> tuple[Any, Any]:
    """A subject and its tokenizer from a folder of a whole model or of a LoRA adapter, in evaluation mode.

    Args:
        path: Folder (or hub name, where the cache holds it).
        base: Base of an adapter; None: what its configuration names, also relative to the adapter's folder or the run directory above it.
        dtype: Of the weights; float32 scores exactly.
        device: None: the GPU if there is one.

    Raises:
        SampleError: It cannot be loaded, or only as a pickle.
    """
    folder = Path(path)
    is_adapter = (folder / "adapter_config.json").is_file()
    whole = base_of(folder, base) if is_adapter else folder
    subject, tokenizer = load_whole(str(whole), dtype), load_tokenizer(str(whole))
    if is_adapter:
        subject = with_adapter(subject, folder)
    return subject.eval().to(detected_device(device)), tokenizer


def load_whole(path: str, dtype: str = "float32") -> Any:
    """A whole causal language model from a folder (one file or shards) or the hub's cache.

    Raises:
        SampleError: It is none, is incomplete, or only there as a pickle.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    refuse_pickles(Path(path))
    logging.disable_progress_bar()
    try:
        with _loading:
            subject, found = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
            )
    except UNREADABLE as error:
        raise SampleError(
            f"{path}: expected a causal language model in safetensors, found none ({_first_line(error)}){_hub(path)}"
        ) from error
    if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
        raise SampleError(f"{path}: expected all weights of the model, found {len(missing)} missing, {missing[0]} among them")
    return subject.eval()


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a folder or of the hub's cache.

    Raises:
        SampleError: There is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except UNREADABLE as error:
        raise SampleError(f"{path}: expected a tokenizer, found none ({_first_line(error)}){_hub(path)}") from error


def with_adapter(subject: Any, folder: str | Path) -> Any:
    """A subject wrapped by peft with the adapter of a folder.

    Raises:
        SampleError: The adapter is another architecture's, or only there as a pickle.
    """
    from peft import PeftModel

    refuse_pickles(Path(folder))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by the old name
            return PeftModel.from_pretrained(subject, str(folder)).eval()
    except UNREADABLE as error:
        raise SampleError(f"{folder}: expected a LoRA adapter of its base, found another ({_first_line(error)})") from error


def refuse_pickles(folder: Path) -> None:
    """Refuse weights that are only there as a pickle.

    Raises:
        SampleError: They are.
    """
    for name in REFUSED:
        if (folder / name).exists() and not any(folder.glob("*.safetensors*")):
            raise SampleError(f"{folder / name}: expected safetensors, found a pickle, which can run code when it is loaded")


def base_of(folder: Path, base: str | Path | None = None) -> Path:
    """The base of an adapter: the one given, or the one its configuration names, found also relative to the folders above it.

    Raises:
        SampleError: It names none.
    """
    if base is not None:
        return Path(base)
    try:
        named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise SampleError(f"{folder}/adapter_config.json: expected a JSON object, found something else") from error
    if not isinstance(named, str) or not named:
        raise SampleError(f"{folder}: expected an adapter that names its base, found none; give --base-model")
    places = [parent / named for parent in (folder, *folder.resolve().parents[:3])]
    return next((place for place in places if (place / "config.json").is_file()), Path(named))


class AdapterFolders:
    """:class:`probes.checkpoints.Subjects` of one base and a folder of adapter weights for each step; a step without one is the base."""

    def __init__(self, base: str, folders: Mapping[int, Path | None], dtype: str = "float32", device: str | None = None) -> None:
        """Name them; nothing is read before the first :meth:`at`.

        Args:
            base: Folder or hub name of the base.
            folders: Adapter's folder by step; None: the base itself.
            dtype: Of the base's weights.
            device: None: the GPU if there is one.
        """
        self.steps: tuple[int, ...] = tuple(sorted(folders))
        self.base, self.folders, self._how = base, dict(folders), (dtype, device)
        self._subject: Any = None

    def at(self, step: int) -> Any:
        """The base with the adapter of a step; adapters are read when they are asked for, so memory holds one."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        folder = self.folders[step]
        if self._subject is None:
            first = next((each for each in self.folders.values() if each is not None), None)
            whole = load_whole(self.base, self._how[0])
            self._subject = (whole if first is None else with_adapter(whole, first)).to(detected_device(self._how[1]))
        if folder is None:
            if hasattr(self._subject, "base_model") and hasattr(self._subject, "peft_config"):
                self._subject.base_model.disable_adapter_layers()
            return self._subject
        self._subject.base_model.enable_adapter_layers()
        try:
            weights = load_file(folder / "adapter_model.safetensors", device=str(self._subject.device))
            found = set_peft_model_state_dict(self._subject, weights)
        except UNREADABLE as error:
            raise SampleError(f"{folder}: expected the adapter of step {step}, found another ({_first_line(error)})") from error
        if wrong := [*found.unexpected_keys, *(name for name in found.missing_keys if "lora_" in name or "modules_to_save." in name)]:
            raise SampleError(f"{folder}: expected the modules of the other adapters of this run, found a difference at {wrong[0]}")
        return self._subject

    def adapted(self) -> Adapted | None:
        """The base and its adapters; None where an adapter is more than plain LoRA, or there is none at all."""
        there = [folder for folder in self.folders.values() if folder is not None]
        if not there or not all(is_plain_folder(folder) for folder in there):
            return None
        subject = load_whole(self.base, self._how[0]).to(detected_device(self._how[1]))
        return Adapted(subject, {step: folder or LoraAdapter() for step, folder in self.folders.items()})

    def copy(self) -> AdapterFolders:
        """Another one, with a subject of its own."""
        another = AdapterFolders(self.base, self.folders, *self._how)
        another._subject = copy.deepcopy(self._subject)
        return another


class WholeFolders:
    """:class:`probes.checkpoints.Subjects` of a folder with a whole model for each step (a stage may be an adapter with its base, too)."""

    def __init__(self, folders: Mapping[int, Path], base: str | None = None, dtype: str = "float32", device: str | None = None) -> None:
        """Name them; nothing is read before the first :meth:`at`.

        Args:
            folders: By step.
            base: Base of those that are adapters.
            dtype: Of the weights.
            device: None: the GPU if there is one.
        """
        self.steps: tuple[int, ...] = tuple(sorted(folders))
        self.folders, self._base, self._how = dict(folders), base, (dtype, device)
        self._held: tuple[int, Any] | None = None

    def at(self, step: int) -> Any:
        """The model of a step; only one is held."""
        if self._held is None or self._held[0] != step:
            self._held = None  # freed before the next one is read
            folder = self.folders[step]
            if (folder / "adapter_config.json").is_file():
                whole = with_adapter(load_whole(str(base_of(folder, self._base)), self._how[0]), folder)
            else:
                whole = load_whole(str(folder), self._how[0])
            self._held = step, whole.eval().to(detected_device(self._how[1]))
        return self._held[1]

    def copy(self) -> WholeFolders:
        """Another one, which reads its own."""
        return WholeFolders(self.folders, self._base, *self._how)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _hub(path: str) -> str:
    if Path(path).exists():
        return ""
    return "; give --base-model PATH, or set HF_HUB_OFFLINE=0 to have it downloaded"
