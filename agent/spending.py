"""What a discovery may spend on its LLM roles, and what it has spent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, current_thread, main_thread
from types import FrameType

from agent.errors import BudgetError, ConfigError
from agent.llm.asker import Asker
from agent.llm.protocol import Answer, Request
from agent.records import CostLine
from agent.workbench import Workbench
from tracing.cost import Price, Tokens, price_of, summed


@dataclass(frozen=True)
class Limits:
    """What one call of `discover` may do.

    Attributes:
        budget_usd: Most dollars this discovery spends in all, what it spent before it was stopped included.
        max_calls: Most requests likewise.
        in_flight: Most requests of a role at a time.
        timeout: Seconds one attempt may take.
    """

    budget_usd: float | None = None
    max_calls: int | None = None
    in_flight: int = 16
    timeout: float = 120.0


def make_limits(budget_usd: float | None, max_calls: int | None, in_flight: int, timeout: float) -> Limits:
    """Checked limits.

    Raises:
        ConfigError: One of them is not possible.
    """
    if budget_usd is not None and not budget_usd >= 0:
        raise ConfigError(f"--budget-usd: expected 0 or more dollars, found {budget_usd:g}")
    if max_calls is not None and max_calls < 0:
        raise ConfigError(f"--max-calls: expected 0 or more calls, found {max_calls}")
    if not 1 <= in_flight <= 1000:
        raise ConfigError(f"--in-flight: expected 1 to 1000 requests at a time, found {in_flight}")
    if not 0 < timeout < float("inf"):
        raise ConfigError(f"--request-timeout: expected a positive number of seconds, found {timeout:g}")
    return Limits(budget_usd, max_calls, in_flight, timeout)


@dataclass
class _Account:
    """Counts what is spent; requests on their way are held as spent, so that many at once cannot overrun the limit."""

    limits: Limits
    prices: dict[str, Price | None]
    calls: int = 0
    usd: float = 0.0
    held: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def before(self, asker: Asker, request: Request) -> bool:
        """Hold the most a request may need; False while those on their way hold what it would need.

        Raises:
            BudgetError: It must not be made.
        """
        with self._lock:
            limit, budget = self.limits.max_calls, self.limits.budget_usd
            if limit is not None and self.calls >= limit:
                raise BudgetError(f"--max-calls {limit}: all calls are used; what was answered is kept, a higher limit goes on from there")
            price = self.prices[asker.provider.id]
            most = 0.0 if price is None else price.usd(_most(request))
            if budget is not None and self.usd + self.held + most > budget:
                if self.held > 0:
                    return False
                raise BudgetError(
                    f"--budget-usd {budget:g}: {self.usd:.4f} is spent and the next request may need {most:.4f}; "
                    "what was answered is kept, a larger budget goes on from there"
                )
            self.calls += 1
            self.held += most
            return True

    def after(self, asker: Asker, request: Request, answer: Answer | None) -> None:
        """Take back what was held, and count what the answer really used; None: it was not answered."""
        price = self.prices[asker.provider.id]
        with self._lock:
            most = 0.0 if price is None else price.usd(_most(request))
            self.held = max(self.held - most, 0.0) if self.held > most * (1 + 1e-9) else 0.0
            if answer is None:
                self.calls -= 1
            elif price is not None:
                self.usd += price.usd(Tokens(1, answer.input_tokens, answer.output_tokens, answer.cached_tokens))


@contextmanager
def null_runs_pay(work: Workbench) -> Iterator[None]:
    """What is asked in here stands in the ledger as the null runs'."""
    for asker in work.askers:
        asker.purpose = "null runs"
    try:
        yield
    finally:
        for asker in work.askers:
            asker.purpose = ""


@contextmanager
def paying(work: Workbench, limits: Limits, discovery: str) -> Iterator[None]:
    """Let the roles spend, within the limits, into the discovery's own store and ledger.

    Raises:
        ConfigError: A budget in dollars cannot be kept, because a price is not known.
    """
    roles = work.askers
    prices = {asker.provider.id: price_of(asker.provider.id) for asker in roles}
    for name, price in prices.items():
        if price is None and limits.budget_usd is not None:
            raise ConfigError(f"--budget-usd: the price of {name} is not known, so no budget can be kept; expected --max-calls instead")
    account = _Account(limits, prices)
    if roles:
        for (provider,), tokens in summed(_own(work, discovery), "provider").items():
            price = price_of(provider)
            account.calls += tokens.calls
            account.usd += 0.0 if price is None else price.usd(tokens)
    for asker in roles:
        asker.discovery = discovery
        asker.in_flight, asker.provider.timeout = limits.in_flight, limits.timeout
        asker.before, asker.after = account.before, account.after
    try:
        with _stopped_by_interrupt(roles):
            yield
    finally:
        # the loop does not wait for its other branches when one fails; the folder must not be let go before they are done
        for asker in roles:
            asker.close()


@contextmanager
def _stopped_by_interrupt(roles: list[Asker]) -> Iterator[None]:
    """Ctrl-C makes no further request, waits for those on their way and keeps them."""
    before = signal.getsignal(signal.SIGINT)
    if not roles or not callable(before) or current_thread() is not main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for asker in roles:
            asker.stop()
        before(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _own(work: Workbench, discovery: str) -> list[dict[str, object]]:
    return [usage for usage in work.store.usages() if usage.get("discovery") == discovery]


def cost_lines(work: Workbench) -> tuple[CostLine, ...]:
    """What this discovery paid for, by role, provider and round; nothing for roles that cost nothing.

    What other discoveries of the same folder paid for, and this one read from the store, is theirs.
    """
    roles = work.askers
    if not roles:
        return ()
    rounds = work.round_of
    usages = [u | {"round": u.get("round", rounds.get(str(u.get("about")), 0))} for u in _own(work, roles[0].discovery)]
    lines = []
    for (role, provider, turn), tokens in summed(usages, "role", "provider", "round").items():
        price = price_of(provider)
        usd = None if price is None else price.usd(tokens)
        lines.append(
            CostLine(
                role=role,
                provider=provider,
                round=turn,
                calls=tokens.calls,
                cached=tokens.cached,
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                usd=usd,
            )
        )
    return tuple(sorted(lines, key=lambda line: (line.round, line.role, line.provider)))


def price_note(lines: tuple[CostLine, ...]) -> list[str]:
    """Of which day the prices behind a ledger's dollars are; nothing where there are none."""
    known = [price for line in lines if line.usd and (price := price_of(line.provider)) is not None]
    dates = sorted({price.as_of for price in known})
    return [f"Dollars are at list prices of {', '.join(dates)} (tracing/prices.toml), which nobody has verified since."] if dates else []


def _most(request: Request) -> Tokens:
    # three bytes a token is more tokens than English, code or Chinese have
    return Tokens(1, request.n_bytes // 3 + 100, request.max_tokens)
