"""Message lists (`[{"role": "user", "content": "…"}, …]`) turned into system text, prompt and completion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tracing.importers.table import Table, shown

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Conversation:
    """What a message list says.

    Attributes:
        system: Its system texts, joined by an empty line; empty when there are none.
        turns: (role, text) of all others, in order.
    """

    system: str
    turns: tuple[tuple[str, str], ...]

    @property
    def prompt(self) -> str:
        """The one user turn as it is, or all turns, each after its role."""
        if len(self.turns) == 1:
            return self.turns[0][1]
        return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in self.turns)


def conversation(table: Table, row: int, name: str, value: Any) -> Conversation:
    """Read one message list.

    Raises:
        ImportFileError: It is no list of messages, or one has an unknown role or content that is no text.
    """
    if not isinstance(value, list) or not value:
        raise table.error(row, f"a list of messages in {name!r}", "an empty list" if value == [] else shown(value))
    system, turns = [], []
    for message in value:
        role = _ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
        if role is None:
            found = f"the role {message.get('role')!r}" if isinstance(message, dict) else shown(message)
            raise table.error(row, f"messages of the roles system, user and assistant in {name!r}", found)
        text = _content(table, row, name, message.get("content"))
        if role == "system":
            system.append(text)
        else:
            turns.append((role, text))
    return Conversation("\n\n".join(system), tuple(turns))


def split_completion(table: Table, row: int, name: str, whole: Conversation) -> tuple[Conversation, str]:
    """A conversation without its last assistant turn, and that turn.

    Raises:
        ImportFileError: The last turn is not the assistant's, or nothing stands before it.
    """
    if not whole.turns or whole.turns[-1][0] != "assistant":
        found = f"a message of the {whole.turns[-1][0]}" if whole.turns else "only system messages"
        raise table.error(row, f"the last message in {name!r} to be the assistant's response", found)
    return check_prompt(table, row, name, Conversation(whole.system, whole.turns[:-1])), whole.turns[-1][1]


def check_prompt(table: Table, row: int, name: str, prompt: Conversation) -> Conversation:
    """`prompt`, when it ends with the user's turn.

    Raises:
        ImportFileError: It does not.
    """
    if not prompt.turns or prompt.turns[-1][0] != "user":
        found = f"one of the {prompt.turns[-1][0]}" if prompt.turns else "none of the user"
        raise table.error(row, f"the prompt in {name!r} to end with a message of the user", found)
    return prompt


def unpacked(table: Table, value: Any) -> Any:
    """In formats without lists (CSV) a message list is written as JSON: read it; everything else, other JSON included, stays text."""
    if table.typed or not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if all(isinstance(message, dict) and "role" in message for message in read) else value


def _content(table: Table, row: int, name: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    raise table.error(row, f"text as the content of a message in {name!r}", shown(content))
