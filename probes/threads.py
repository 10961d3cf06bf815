"""One BLAS thread while many small matrices are multiplied.

A second thread gains nothing on matrices of tens by thousands, and on a machine that is busy elsewhere the two wait for each
other: exact Shapley parts took 45 s instead of 2.5 s (10 parameters, 5000 responses, 2 cores at load 8). Sums then also come
out the same whatever the number of cores.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Context in which numpy's linear algebra uses one thread; what was set before is restored. OpenMP (torch) is left alone."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit
