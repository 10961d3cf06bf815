"""Optional parts of the tests' world (shared data, Chromium, Ray, TRL): found, they are used; missing, the test says how to get them."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, how: str) -> NoReturn:
    """Skip this test with one line saying how to get what it needs; under CI=true fail, because there `.ci/run` must have provided it.

    Args:
        what: The part that was not found.
        how: What to type or set to have it.
    """
    line = f"{what} not found: {how}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)
