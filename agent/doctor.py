"""Which providers work here, with what models, and what each lacks. No LLM is asked anything unless wanted; keys are never shown."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.errors import AgentError, AwaitingError
from agent.judge import make_judge
from agent.llm import anthropic_provider, openai_provider
from agent.llm.protocol import in_one_line
from agent.llm.reading_judge import ReadingJudge
from agent.records import OrderParameter

LOCAL = {8000: "vLLM", 11434: "Ollama", 1234: "LM Studio", 8080: "llama.cpp"}
"""Ports of this machine on which servers that speak chat.completions usually listen."""
KNOCK = 0.3
"""Seconds for a port of this machine to answer."""
TRIED = OrderParameter(
    name="politeness",
    definition="Whether the reply is polite.",
    question="How polite is the reply?",
    levels=("rude", "neutral", "polite"),
)


@dataclass(frozen=True)
class Checkup:
    """What is known of one provider.

    Attributes:
        provider: As for `--judge`.
        works: Whether a discovery could use it now.
        uses: What it works with: SDK and version, the address.
        models: What it lists; empty when it lists nothing or was not asked.
        lacks: What is missing, each in a few words with what to do about it.
        answered: What it answered when it was asked something; "" when it was not asked.
    """

    provider: str
    works: bool
    uses: str = ""
    models: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    answered: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_all(timeout: float, local: Mapping[int, str] = LOCAL) -> Iterator[Checkup]:
    """Every kind of provider, and the servers found on this machine."""
    yield Checkup("embedded", True, uses="exact rules; no key, network or model", lacks=("reading: it judges form and words, not meaning",))
    yield _anthropic("", timeout)
    yield _openai("", None, timeout)
    servers = [_openai("", f"http://127.0.0.1:{port}/v1", timeout) for port in local if _listens("127.0.0.1", port, KNOCK)]
    yield from servers
    if not servers:
        places = ", ".join(f"{port} ({name})" for port, name in local.items())
        yield Checkup(
            "openai:NAME@http://…", False, lacks=(f"a server: nothing listens on this machine's ports {places}; name its address",)
        )
    yield _hf("")
    yield Checkup("batch:DIR", True, uses="files; answered elsewhere", lacks=("a folder: discover doctor batch:DIR looks into one",))
    yield Checkup("scripted:FILE", True, uses="a TOML file", lacks=("a file: for tests and replays",))


def check(spec: str, timeout: float, ask: bool = False) -> Checkup:
    """One provider, as for `--judge`.

    Args:
        spec: `anthropic:NAME`, `openai:NAME@ADDRESS`, `hf:PATH`, `batch:DIR`, ...; also without a name.
        timeout: Seconds until a server counts as not reachable.
        ask: Also put one small request to it, which may cost a fraction of a cent.
    """
    kind, _, rest = spec.partition(":")
    name, _, address = rest.partition("@")
    if kind == "anthropic":
        found = _anthropic(name, timeout)
    elif kind == "openai":
        found = _openai(name, address or None, timeout)
    elif kind == "hf":
        found = _hf(rest)
    else:
        found = _made(spec)
    return _asked(found, timeout) if ask and found.works else found


def _made(spec: str) -> Checkup:
    """Whatever can be told by making it: embedded, scripted, batch, and what is none of them."""
    try:
        judge = make_judge(spec)
    except AgentError as error:
        return Checkup(spec, False, lacks=(" ".join(str(error).removeprefix("--judge ").split()),))
    if spec.startswith("batch:"):
        from agent.llm.batch_files import BatchFiles

        assert isinstance(judge, ReadingJudge)  # noqa: S101 - what make_judge gives for a batch
        files = BatchFiles.read(Path(getattr(judge.asker.provider, "folder", "")))
        answered = sum(row.fate == "answered" for row in files.rows.values())
        waiting = sum(files.is_open(name) for name, row in ((n, files.rows.get(n)) for n in files.written) if not row or not row.answer)
        lacks = (f"{waiting:,} answers",) if waiting else ()
        faults = tuple(files.faults[:1])
        return Checkup(spec, True, uses=f"files: {len(files.written):,} requests, {answered:,} answered", lacks=(*lacks, *faults))
    return Checkup(spec, True, uses=judge.id)


def _anthropic(name: str, timeout: float) -> Checkup:
    spec = f"anthropic:{name or 'NAME'}"
    uses, lacks = _sdk("anthropic")
    key = os.environ.get(anthropic_provider.KEY)
    lacks += () if key else (f"a key: set {anthropic_provider.KEY}",)
    if lacks:
        return Checkup(spec, False, uses, lacks=lacks)
    return _listed(spec, name, uses, lambda: anthropic_provider.models(timeout), key, ("log-probabilities: levels are not weighted",))


def _openai(name: str, address: str | None, timeout: float) -> Checkup:
    spec = f"openai:{name or 'NAME'}" + (f"@{address}" if address else "")
    uses, lacks = _sdk("openai")
    variable = openai_provider.COMPATIBLE_KEY if address else openai_provider.KEY
    key = os.environ.get(variable)
    if not key and not address:
        lacks += (f"a key: set {variable}",)
    if address:
        parts = urlsplit(address)
        if parts.username or parts.password or parts.query:  # never shown
            return Checkup(
                f"openai:{name or 'NAME'}@{parts.scheme}://{parts.hostname}", False, uses, lacks=("an address without a key in it",)
            )
    if lacks:
        return Checkup(spec, False, uses, lacks=lacks)
    return _listed(spec, name, uses, lambda: openai_provider.models(address, timeout), key, ())


def _listed(spec: str, name: str, uses: str, listed: Callable[[], list[str]], key: str | None, lacks: tuple[str, ...]) -> Checkup:
    """Whether a server answers, and whether it knows the name."""
    try:
        models = tuple(sorted(listed()))
    except Exception as error:
        status = getattr(error, "status_code", None)
        why = in_one_line(str(getattr(error, "message", error)), key) or type(error).__name__
        if status in (401, 403):
            return Checkup(spec, False, uses, lacks=(f"a key that is accepted ({status}: {why})",))
        if status is not None:
            return Checkup(spec, True, uses, lacks=(*lacks, f"a list of models ({status}): names cannot be checked"))
        return Checkup(spec, False, uses, lacks=(f"a server that answers ({why})",))
    if name and name not in models and models:
        return Checkup(spec, False, uses, models, (*lacks, f"a model of this name: {name} is not listed"))
    return Checkup(spec, True, uses, models, lacks)


def _hf(name: str) -> Checkup:
    parts = [_sdk(package) for package in ("torch", "transformers")]
    uses = ", ".join(used for used, _ in parts if used)
    lacks = tuple(lack for _, lacked in parts for lack in lacked)
    cached = _cached_models()
    if name and not lacks:
        folder = Path(name)
        here = any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))
        if here and not any(folder.glob("*.safetensors")):
            lacks += ("safetensors: weights in other files are not read",)
        elif not here and name not in cached:
            lacks += (f"the model: {name} is neither a folder with a config.json nor in the hub's cache",)
    return Checkup(f"hf:{name or 'PATH'}", not lacks, uses, cached if not name else (), lacks)


def _cached_models() -> tuple[str, ...]:
    """Models in the hub's cache, by name."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    folder = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    found = folder.glob("models--*") if folder.is_dir() else ()
    return tuple(sorted(path.name.removeprefix("models--").replace("--", "/") for path in found))


def _sdk(package: str) -> tuple[str, tuple[str, ...]]:
    """The package with its version, and what is lacking."""
    try:
        return f"{package} {version(package)}", ()
    except PackageNotFoundError:
        return "", (f"the package {package}: pip install {package}",)


def _listens(host: str, port: int, timeout: float) -> bool:
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


def _asked(found: Checkup, timeout: float) -> Checkup:
    """One rating of a short reply: does an answer come, can it be read, are there log-probabilities?"""
    lacks = list(found.lacks)
    try:
        judge = make_judge(found.provider)
        if not isinstance(judge, ReadingJudge):
            return found
        judge.asker.provider.timeout = max(timeout, 30.0)
        (read,) = judge.judge(TRIED, [("doctor", "", "May I come in?", "Of course, please do, and thank you for asking.")])
    except AwaitingError:
        return Checkup(found.provider, True, found.uses, found.models, found.lacks, "a request is written down and waits for its answer")
    except AgentError as error:
        why = " ".join(str(error).split())
        return Checkup(found.provider, False, found.uses, found.models, (*lacks, f"an answer ({why})"))
    if read.status != "read":
        lacks.append(f"an answer that can be read ({read.status})")
    elif read.probabilities is None and not any("log-probabilities" in lack for lack in lacks):
        lacks.append("log-probabilities: levels are not weighted")
    said = f"level {read.level}" if read.status == "read" else read.status
    return Checkup(found.provider, read.status == "read", found.uses, found.models, tuple(lacks), said)
