"""`python -m tests.answer_batch DIR [PART]`: the other side of `batch:DIR`, a process of its own that answers a part of what is open.

It speaks both batch formats, says what the test server's LLM says, and notes every request it answers in `DIR/paid.txt`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.llm_server import Seen, _completion, _message, reads_marks


def answer(folder: Path, part: float = 1.0) -> int:
    """Answer the first `part` of the open requests; returns how many were answered."""
    paid = folder / "paid.txt"
    done = paid.read_text().split() if paid.exists() else []
    rows = [json.loads(line) for path in sorted(folder.glob("requests-*.jsonl")) for line in path.read_text().splitlines()]
    still = list({row["custom_id"]: row for row in rows if row["custom_id"] not in done}.values())
    chosen = still[: max(round(part * len(still)), 1)]
    name = folder / f"answers-{len(list(folder.glob('answers-*.jsonl'))):03d}.jsonl"
    name.write_text("".join(json.dumps(_answered(row)) + "\n" for row in chosen))
    paid.write_text("\n".join([*done, *(row["custom_id"] for row in chosen)]) + "\n")
    return len(chosen)


def _answered(row: dict[str, Any]) -> dict[str, Any]:
    body = row.get("body") or row["params"]
    seen = Seen(row.get("url", "/v1/messages"), {}, body, json.dumps(body), None)
    say = reads_marks(seen)
    if "params" in row:
        return {"custom_id": row["custom_id"], "result": {"type": "succeeded", "message": _message(seen, say)}}
    response = {"status_code": 200, "request_id": "req_0", "body": _completion(seen, say)}
    return {"id": f"batch_req_{seen.digest[:16]}", "custom_id": row["custom_id"], "response": response, "error": None}


if __name__ == "__main__":
    print(answer(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))
