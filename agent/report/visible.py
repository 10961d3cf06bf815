"""Untrusted text made safe to look at: hidden characters become visible, long texts are cut with a stated count.

Responses, prompts and everything a proposer wrote may hold terminal escapes, right-to-left overrides and zero-width characters. Escaping
for HTML, Markdown or a terminal is done where each is written; here only what a reader could not see is brought to light.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT = 300
TEXT_LIMIT = 3000
QUOTE_LIMIT = 2000
COUNT_LENGTH = len("… (99 more characters)")

# Letters and marks that draw nothing, beside the control and format characters of Unicode (categories Cc, Cf, Zl, Zp, Cs).
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})


@dataclass(frozen=True)
class Segment:
    """A piece of text: `hidden` ones hold the code point's name ("U+202E") instead of the character, `marked` ones belong to a quote."""

    text: str
    hidden: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Excerpt:
    """A text cut to what is shown.

    Attributes:
        segments: What is shown, in order.
        before, after: How many characters are left out before and after it.
        quote_missing: A quote was given and does not occur in the text.
    """

    segments: tuple[Segment, ...]
    before: int = 0
    after: int = 0
    quote_missing: bool = False


def is_hidden(character: str) -> bool:
    """True for a character a reader cannot see and that is no space, tab or line break."""
    if character in "\n\t" or " " <= character <= "~":
        return False
    return character in _BLANK or unicodedata.category(character) in _HIDDEN_CATEGORIES


def segments(text: str, *, marked: bool = False) -> Iterator[Segment]:
    """Split `text` into runs of plain text and named hidden characters."""
    plain: list[str] = []
    for character in text.replace("\r\n", "\n"):
        if not is_hidden(character):
            plain.append(character)
            continue
        if plain:
            yield Segment("".join(plain), marked=marked)
            plain = []
        yield Segment(f"U+{ord(character):04X}", hidden=True, marked=marked)
    if plain:
        yield Segment("".join(plain), marked=marked)


def visible(text: str) -> str:
    """`text` with every hidden character written as <U+202E>."""
    return "".join(f"<{part.text}>" if part.hidden else part.text for part in segments(text))


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """`text` on one line with hidden characters visible; past `limit` characters it is cut and the count of the rest is stated."""
    flat, rest = flat_line(text, limit)
    return f"{visible(flat)}… ({rest:,} more characters)" if rest else visible(flat)


def flat_line(text: str, limit: int) -> tuple[str, int]:
    """The beginning of `text` on one line and how many characters are left out; a rest shorter than its count is kept."""
    if len(text) <= limit + COUNT_LENGTH:
        return " ".join(text.split()), 0
    return " ".join(text[:limit].split()), len(text) - limit


def excerpt(text: str, quote: str | None = None, limit: int = TEXT_LIMIT) -> Excerpt:
    """The first `limit` characters of `text`, or those around `quote` when it lies further on, with the quote marked."""
    span = find_quote(text, quote) if quote else None
    start = 0 if span is None or span[1] <= limit else max(0, span[0] - limit // 4)
    end = min(len(text), start + limit)
    parts: list[Segment] = []
    if span is None:
        parts += segments(text[start:end])
    else:
        first, last = span[0], min(span[1], end)
        parts += segments(text[start:first])
        parts += segments(text[first:last], marked=True)
        parts += segments(text[last:end])
    return Excerpt(tuple(parts), start, len(text) - end, bool(quote) and span is None)


def find_quote(text: str, quote: str) -> tuple[int, int] | None:
    """Where `quote` stands in `text`: exactly, else ignoring case and differences of white space; None when it does not."""
    words = quote.split()
    if not words:
        return None
    start = text.find(quote)
    if start >= 0:
        return start, start + len(quote)
    if len(quote) > QUOTE_LIMIT:
        return None
    found = re.search(r"\s+".join(re.escape(word) for word in words), text, re.IGNORECASE)
    return found.span() if found else None
