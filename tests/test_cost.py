from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import ConfigError
from agent.estimates import estimate, estimate_score
from agent.judge import make_judge
from agent.llm.embedded import EmbeddedJudge, EmbeddedProposer
from agent.proposer import make_proposer
from agent.records import CostLine
from agent.spending import Limits, cost_lines, make_limits, null_runs_pay, paying, price_note
from agent.workbench import Workbench
from tests.llm_server import KEY
from tests.planted_recordings import config_of, planted
from tracing.cost import Price, Tokens, price_of, prices, summed

PRICED = "anthropic:claude-haiku-4-5"


def work_with(folder: Path, spec: str, **options: Any) -> Workbench:
    """A discovery whose roles ask this provider."""
    return Workbench(planted(0, n_prompts=6, n_each=5), config_of(**options), folder, make_proposer(spec), make_judge(spec))


def test_every_price_is_dated_and_positive() -> None:
    """Each line of the table has a day, and reading from a cache costs no more than reading anew."""
    for name, price in prices().items():
        assert name == price.name
        assert date.fromisoformat(price.as_of) < date(2030, 1, 1)
        assert 0 < price.cached <= price.input <= price.output


def test_a_dated_name_has_the_price_of_its_name_and_an_unknown_one_has_none() -> None:
    """A version's date does not matter, everything else does; a server of one's own has no price, which is not the same as free."""
    assert price_of(f"{PRICED}-20251001") == price_of(PRICED) is not None
    assert price_of("openai:gpt-4o-2024-08-06") == price_of("openai:gpt-4o")
    for name in (f"{PRICED}-fast", "openai:gpt-4o@http://127.0.0.1:1/v1", "openai:nobody", "anthropic:gpt-4o", ""):
        assert price_of(name) is None


def test_tokens_cost_what_the_table_says() -> None:
    """A million of each at 1, 5 and .1 dollars, a fifth of the input from the cache: .8 + .02 + 5."""
    price = Price("x", "2026-01-01", input=1.0, output=5.0, cached=0.1)
    assert price.usd(Tokens(1, 1_000_000, 1_000_000, 200_000)) == pytest.approx(5.82)


def test_usages_add_up_by_what_is_asked() -> None:
    """Calls and tokens of equal roles are one line; a field that is not there counts nothing."""
    usages: list[dict[str, Any]] = [
        {"role": "judge", "input_tokens": 3, "output_tokens": 1},
        {"role": "judge", "input_tokens": 4},
        {"role": "proposer"},
    ]
    assert summed(usages, "role") == {("judge",): Tokens(2, 7, 1, 0), ("proposer",): Tokens(1)}


def test_the_estimate_says_calls_tokens_and_cost_where_they_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a role, from two rounds to all of them; dollars with the day of the price, or the words that none is known."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    work = work_with(tmp_path, PRICED)
    confirm = {work.text_keys[i] for i in work.contrast.index[work.confirm_rows]}
    n, n_confirm, config = len(work.texts), len(confirm), work.config
    proposer, judge, what = estimate(work)
    most = config.candidates * config.rounds * (n + 2 * n_confirm)  # read, read again to decide, and in other words
    assert judge.startswith(f"judge {PRICED}: {2 * config.candidates * 32:,} to {most:,} calls, ")
    assert judge.endswith("at the list prices of 2025-10-15 (not verified)")
    assert proposer.startswith(f"proposer {PRICED}: 2 to 12 calls")
    assert what.startswith("least: two rounds without acceptance, candidates given up early; most: all 6 rounds")
    assert estimate(work_with(tmp_path, "openai:own@http://127.0.0.1:1/v1"))[1].endswith("price not known")


def test_the_estimate_counts_a_persons_hypotheses_and_what_is_read_to_the_end(tmp_path: Path) -> None:
    """A hypothesis that has to be worded is one more call of the proposer and all responses for the judge; no racing, no early end."""
    plain, mine = (
        work_with(tmp_path, "openai:own@http://127.0.0.1:1/v1", race="off", **more) for more in ({}, {"hypothesis": ("It warns more.",)})
    )
    n, config = len(plain.texts), plain.config
    assert estimate(plain)[1].startswith(f"judge openai:own@http://127.0.0.1:1/v1: {2 * config.candidates * n:,} to ")
    assert estimate(mine)[1].startswith(f"judge openai:own@http://127.0.0.1:1/v1: {(2 * config.candidates + 1) * n:,} to ")
    assert estimate(mine)[0].startswith("proposer openai:own@http://127.0.0.1:1/v1: 3 to 14 calls")
    assert estimate_score(plain, 100, 40_000, 3)[1].startswith("judge openai:own@http://127.0.0.1:1/v1: 300 to 600 calls")


def usage(**fields: Any) -> dict[str, Any]:
    """A stored usage of the discovery "d"."""
    return {"provider": PRICED, "role": "judge", "discovery": "d", "round": 1, "input_tokens": 1000, "output_tokens": 10} | fields


def test_the_ledger_tells_the_providers_cache_and_null_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input tokens read from the provider's cache stand by themselves and cost less; what null runs asked for has a line of its own."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    work = work_with(tmp_path, PRICED)
    with null_runs_pay(work):
        assert {asker.purpose for asker in work.askers} == {"null runs"}
    assert {asker.purpose for asker in work.askers} == {""}
    work.askers[0].discovery = "d"
    stored = [usage(), usage(cached_tokens=800), usage(role="judge, null runs"), usage(discovery="another")]
    work.store.store_many((str(k), "{}", one) for k, one in enumerate(stored))
    main, null = cost_lines(work)
    assert (main.role, main.calls, main.input_tokens, main.cached) == ("judge", 2, 2000, 800)
    assert main.usd == pytest.approx((1200 * 1.0 + 800 * 0.1 + 20 * 5.0) / 1e6)
    assert (null.role, null.calls) == ("judge, null runs", 1)
    assert "2025-10-15" in price_note((main, null))[0]
    assert price_note(()) == []


def test_a_second_judge_is_estimated_by_what_it_reads(tmp_path: Path) -> None:
    """Nothing where nothing is accepted, at most `--reread` responses of every candidate."""
    work = work_with(tmp_path, "openai:own@http://127.0.0.1:1/v1")
    work.second_judge = make_judge("openai:other@http://127.0.0.1:1/v1", "--second-judge")
    work.config = work.config.model_copy(update={"reread": 10})
    most = 10 * work.config.candidates * work.config.rounds
    assert estimate(work)[2].startswith(f"second judge openai:other@http://127.0.0.1:1/v1: 0 to {most:,} calls, ")


def test_what_runs_in_this_process_is_free() -> None:
    """A model on one's own machine costs no dollars, whatever its name; another one without a price is unknown."""
    own = price_of("hf:tiny@01234567")
    assert own is not None
    assert own.usd(Tokens(10, 10_000, 10_000)) == 0.0
    assert price_note((CostLine(role="judge", provider="hf:tiny@01234567", round=1, usd=0.0),)) == []
    assert price_of("openai:own@http://127.0.0.1:1/v1") is None


def test_what_costs_nothing_has_no_ledger(tmp_path: Path) -> None:
    """The embedded roles ask nobody: no estimate, no cost."""
    work = Workbench(planted(0), config_of(), tmp_path, EmbeddedProposer(), EmbeddedJudge())
    with paying(work, Limits(max_calls=0), "d"):
        pass
    assert cost_lines(work) == ()
    assert estimate(work) == []


def test_a_budget_without_a_price_is_refused(tmp_path: Path) -> None:
    """Dollars that nobody can count cannot be limited."""
    work = work_with(tmp_path, "openai:own@http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="is not known, so no budget can be kept"), paying(work, Limits(budget_usd=1.0), "d"):
        pass


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((-1.0, None, 16, 60.0), "--budget-usd"),
        ((float("nan"), None, 16, 60.0), "--budget-usd"),
        ((None, -1, 16, 60.0), "--max-calls"),
        ((None, None, 0, 60.0), "--in-flight"),
        ((None, None, 16, 0.0), "--request-timeout"),
        ((None, None, 16, np.inf), "--request-timeout"),
    ],
)
def test_an_impossible_limit_is_one_line(limits: tuple[float | None, int | None, int, float], message: str) -> None:
    """Each limit says what it expects."""
    with pytest.raises(ConfigError, match=message):
        make_limits(*limits)
