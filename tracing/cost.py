"""What requests cost: a dated table of prices, and sums over the usage that stands beside every stored reply."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("prices.toml")
IN_PROCESS = "hf:"
_DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}\Z")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        name: `provider:name` without a date.
        as_of: The day the price was true.
        input, output: Of tokens sent and written.
        cached: Of tokens sent that the provider read from its cache.
    """

    name: str
    as_of: str
    input: float
    output: float
    cached: float

    def usd(self, tokens: Tokens) -> float:
        """What these tokens cost, in dollars."""
        fresh = tokens.input - tokens.cached
        return (fresh * self.input + tokens.cached * self.cached + tokens.output * self.output) / 1e6


@dataclass(frozen=True)
class Tokens:
    """Calls and their tokens; `cached` is part of `input`."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.calls + other.calls, self.input + other.input, self.output + other.output, self.cached + other.cached)


@cache
def prices(path: Path = TABLE) -> dict[str, Price]:
    """The table of prices by name."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["price"]
    return {table["name"]: Price(**table) for table in tables}


def price_of(provider: str, path: Path = TABLE) -> Price | None:
    """The price of `provider:name`; None when it is not known, which is never the same as free. What runs in this process is free."""
    if provider.startswith(IN_PROCESS):
        return Price(provider, "any day", 0.0, 0.0, 0.0)
    table = prices(path)
    return table.get(provider) or table.get(_DATED.sub("", provider))


def summed(usages: Iterable[Mapping[str, Any]], *by: str) -> dict[tuple[Any, ...], Tokens]:
    """Calls and tokens of stored usages, by these fields, in the order of the fields' values."""
    totals: dict[tuple[Any, ...], Tokens] = {}
    for usage in usages:
        key = tuple(usage.get(name) for name in by)
        one = Tokens(1, *(int(usage.get(name) or 0) for name in ("input_tokens", "output_tokens", "cached_tokens")))
        totals[key] = totals.get(key, Tokens()) + one
    return dict(sorted(totals.items(), key=lambda item: [str(part) for part in item[0]]))
