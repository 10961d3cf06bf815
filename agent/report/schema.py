"""The JSON Schema of `findings.json`, published beside this file.

`python -m agent.report.schema` writes it after a change of agent/records.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from agent.records import Findings

SCHEMA_PATH = Path(__file__).with_name("findings.schema.json")


def schema_text() -> str:
    """The schema as text (JSON Schema draft 2020-12), the same for the same `agent.records.Findings`."""
    return json.dumps(Findings.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
