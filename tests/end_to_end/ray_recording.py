"""Runs `discover record --ray` with the words given on a real local cluster of two machines, and kills one in mid-run.

Prints one line: {"code": exit code, "lost": whether the machine was killed while pieces of work were missing, "alive": machines left}.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from agent.cli import main


def run(out: Path, words: list[str]) -> dict[str, object]:
    """Record into `out`; the second machine dies once the first piece of work has arrived."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=1)
    lost = []

    def kill() -> None:
        while not list(out.glob("responses/*.parquet")):
            time.sleep(0.01)
        cluster.remove_node(doomed, allow_graceful=False)
        lost.append(not list(out.glob("likelihoods/*.npy")))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    sys.argv = ["discover", "record", *words, "--out", str(out), "--ray", cluster.address, "--quiet"]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    killer.join(timeout=10)
    ray.init(address=cluster.address, log_to_driver=False)
    alive = _alive()
    for _ in range(300):  # the head notices a machine that says nothing any more after a while
        if alive < 2:
            break
        time.sleep(0.1)
        alive = _alive()
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    return {"code": code, "lost": lost == [True], "alive": alive}


def _alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    found = run(Path(sys.argv[1]), sys.argv[2:])
    print(json.dumps(found), flush=True)
