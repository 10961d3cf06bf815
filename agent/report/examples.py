"""Goes away: the findings written by hand are in tests/report_findings.py; tests/end_to_end/forked_discover.py still asks here for them."""

from __future__ import annotations

from tests.report_findings import full

__all__ = ["full"]
