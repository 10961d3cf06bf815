"""Documents of one's own to fine-tune an organism on: a JSONL file of conversations."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from probes.organism_corpus import Conversation


def read_documents(path: Path) -> tuple[list[Conversation], str]:
    """The conversations of a file, and its name with digest.

    A line holds `messages` (roles system, user, assistant; one question and one answer) or `prompt` and `completion`, optionally `system`.

    Raises:
        ConfigError: The file cannot be read, is empty, or a line is something else: which line, what was expected, what was found.
    """
    try:
        content = path.read_bytes()
        lines = [(k, line) for k, line in enumerate(content.decode().splitlines(), 1) if line.strip()]
    except OSError as error:
        raise ConfigError(f"--data {path}: expected a readable JSONL file ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--data {path}: expected UTF-8, found something else ({error})") from None
    if not lines:
        raise ConfigError(f"--data {path}: expected conversations, found none")
    return [_conversation(line, f"--data {path}: line {k}") for k, line in lines], f"{path.name}@{hashlib.sha256(content).hexdigest()[:8]}"


def _conversation(line: str, where: str) -> Conversation:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: expected a JSON object, found something else ({error})") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: expected a JSON object, found {line[:60]!r}")
    if "messages" in row:
        row = _turns(row["messages"], where)
    texts = [row.get(name, "") for name in ("system", "prompt", "completion")]
    if not all(isinstance(text, str) for text in texts) or not (texts[1] and texts[2]):
        raise ConfigError(f"{where}: expected messages, or prompt and completion, as texts; found {', '.join(row) or 'nothing'}")
    return Conversation(*texts)


def _turns(messages: Any, where: str) -> dict[str, str]:
    roles = [m.get("role") if isinstance(m, dict) else None for m in messages] if isinstance(messages, list) else []
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise ConfigError(f"{where}: expected messages of one user and one assistant, found {', '.join(map(str, roles)) or 'none'}")
    names = {"system": "system", "user": "prompt", "assistant": "completion"}
    return {names[m["role"]]: m.get("content", "") for m in messages}
