"""A Ray cluster: one that is named, that of RAY_ADDRESS, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunepoint.errors import MissingExtra, StudyError

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a cluster on this machine: weights go through files."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


def quiet_ray() -> None:
    """Set what keeps Ray from sending statistics and changing folders, before it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_cluster(
    processes: int, address: str | None = None, *, store_bytes: int = OBJECT_STORE_BYTES
) -> Iterator[None]:
    """Connect to a Ray cluster for a while; keep a connection that is there already.

    Args:
        processes: of a cluster that is started on this machine, one for each core that it may use.
        address: `ray://HOST:10001`, or `HOST:6379` from a machine of the cluster; that of RAY_ADDRESS, else
            a cluster on this machine, if None.
        store_bytes: memory for what processes of a cluster on this machine hand each other.

    Raises:
        MissingExtra: Ray is not installed.
        StudyError: there is no cluster at this address.

    """
    quiet_ray()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray warns of its own deprecations
            import ray
    except ImportError as error:
        raise MissingExtra(f"a cluster needs {error.name}", "ray") from None
    if ray.is_initialized():
        yield
        return
    interrupt_handler = signal.getsignal(signal.SIGINT)  # Ray replaces it, and never puts it back
    address = address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {"num_cpus": processes, "object_store_memory": store_bytes, "include_dashboard": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Ray warns of here, the error says
            ray.init(address=address or "local", **settings)
    except (ConnectionError, ValueError) as error:
        ray.shutdown()
        words = str(error).strip().splitlines()[0]
        where = address or "this machine"
        raise StudyError(f"{where}: no Ray cluster answers ({words}); start one, or name another") from None
    try:
        yield
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt_handler)
