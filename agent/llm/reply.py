"""Reading a reply that should be one JSON object and may be anything."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from agent.errors import ReplyError

_WRAPPED = re.compile(r"\A```[a-zA-Z]*\s*\n(.*)\n```\Z", re.DOTALL)
LONGEST = 200_000
"""Characters of a reply that are looked at."""


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object a reply holds: alone, in a code block, or with words around it.

    A reply with several different objects, a broken one, or a key given twice is not read: part of it may be quoted from the text
    that was to be judged.

    Raises:
        ReplyError: There is none, there are several, or one is broken or cut short.
    """
    text = text.strip().lstrip("\ufeff")[:LONGEST]
    wrapped = _WRAPPED.match(text)
    found = _objects(wrapped.group(1) if wrapped else text)
    distinct = {json.dumps(one, sort_keys=True): one for one in found}
    if len(distinct) != 1:
        raise ReplyError(f"expected one JSON object, found {len(distinct) or 'none'}")
    return next(iter(distinct.values()))


def _objects(text: str) -> list[dict[str, Any]]:
    decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once)
    found, at = [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise ReplyError("expected one JSON object, found a broken one") from None
        found.append(value)
        at = text.find("{", end)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
