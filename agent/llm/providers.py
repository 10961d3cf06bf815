"""From `provider:name` to a provider that can be asked."""

from __future__ import annotations

import re

from agent.errors import ConfigError
from agent.llm.protocol import Provider

KNOWN = "embedded, scripted:FILE, anthropic:NAME, openai:NAME[@http://HOST:PORT/v1], hf:PATH or batch:DIR"
_NAME = re.compile(r"[\w.:/+-]{1,200}")


def make_provider(spec: str, option: str) -> Provider:
    """The provider behind `anthropic:NAME`, `openai:NAME`, `openai:NAME@ADDRESS` or `batch:DIR`.

    Raises:
        ConfigError: There is no such provider, its name is missing, or its key is not in the environment.
    """
    kind, _, rest = spec.partition(":")
    if kind == "batch":
        from agent.llm.batch_provider import make_batch

        return make_batch(rest, option)
    if kind == "hf" and rest:
        from agent.llm.hf_provider import HfProvider

        return HfProvider(rest)
    if kind not in ("anthropic", "openai"):
        raise ConfigError(f"{option} {spec}: expected {KNOWN}, found {kind!r}")
    name, _, address = rest.partition("@")
    if not _NAME.fullmatch(name) or (address and kind != "openai"):
        raise ConfigError(f"{option} {spec if not address else kind}: expected {kind}:NAME with a name as the provider lists it")
    if kind == "anthropic":
        from agent.llm.anthropic_provider import AnthropicProvider

        return AnthropicProvider(name)
    from agent.llm.openai_provider import OpenAIProvider

    return OpenAIProvider(name, address or None)
