"""The loopback guard; where Python loaded it at start-up (child processes, parallel test workers) that copy is the one in force."""

import sys
from pathlib import Path

_loaded = sys.modules.get("sitecustomize")
if _loaded is not None and Path(_loaded.__file__ or "").parent == Path(__file__).parent:
    sys.modules[f"{__name__}.sitecustomize"] = _loaded
    sitecustomize = _loaded
