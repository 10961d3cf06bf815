"""Fences around untrusted text: everything between two lines that carry a mark nobody could foresee is material, never an instruction.

The mark is a hash of what it encloses. Whoever writes a response would have to write the hash of the response into it to close
the fence, so the mark is as unpredictable as a random one, and yet the same text has the same mark in every request: a killed run asks
the same request again (and finds it paid for), and a provider's cache of request beginnings works across questions.
"""

from __future__ import annotations

import hashlib
import json

LONGEST = 60_000
"""Characters of one text that are shown; of a longer one the beginning and the end."""


def mark_of(*texts: str) -> str:
    """16 hex digits that occur in none of the texts."""
    turn = 0
    while True:
        mark = hashlib.sha256(json.dumps([turn, *texts]).encode()).hexdigest()[:16]
        if not any(mark in text.casefold() for text in texts):
            return mark
        turn += 1


_CONTROL = dict.fromkeys(range(32), "�") | {ord("\r"): "\n", ord("\t"): "\t", ord("\n"): "\n"}


def fenced(label: str, mark: str, text: str, longest: int = LONGEST) -> str:
    """One text between its fence lines."""
    return f"<<<{label} {mark}>>>\n{plain(text, longest)}\n<<<end of {label} {mark}>>>"


def plain(text: str, longest: int = LONGEST) -> str:
    """What can be sent of a text: no control characters but tab and line ends, no half characters, not more than `longest`."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = text.replace("\r\n", "\n").translate(_CONTROL)
    if len(text) <= longest:
        return text
    head, tail = 3 * longest // 4, longest // 4
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"
