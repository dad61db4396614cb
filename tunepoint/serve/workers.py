"""Several gateways on one machine: processes that listen on the same port, and the one that starts them.

The kernel shares new connections out among the workers (SO_REUSEPORT). What they have to agree on is in the
store, as for gateways on several machines.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf

from tunepoint.errors import TaskError
from tunepoint.files.machine import SHARE_OF_CORES, cores

WORKER = "TUNEPOINT_WORKER"
"""Environment variable of a worker: the file descriptor that it writes to when it is ready, a colon, and the
process that has started it."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: where the workers add up their metrics."""
START_SECONDS = 600.0
"""How long a worker may take to open its arms: some load language models."""
STOP_SECONDS = 30.0
"""How long workers may take to stop before they are killed."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
"""Before a worker that has died is started again; doubles each time, up to the second."""
STEADY_SECONDS = 60.0
"""After which a worker counts as started for good, and the pause begins anew."""
LOOK_SECONDS = 0.2


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    ready: int
    """File descriptor that becomes readable when it is ready, or ends."""
    started: float = field(default_factory=time.monotonic)
    pause: float = FIRST_PAUSE_SECONDS
    serves: bool = False
    """Whether it has said so; a signal before that would end it."""
    outdated: bool = False
    """Whether it may have read settings that have changed since, before it served."""
    stopping: bool = False
    """Whether it was asked to stop; asked again, it would hurry."""
    again: float = inf
    """`time.monotonic()` at which it is started again, once it has died."""


class Workers:
    """The processes that serve; whoever made them watches them.

    Args:
        command: arguments of the command line that start one.
        count: of processes.
        address: at which they answer, for the operator.
        echo: prints a line for the operator.
        drain: seconds in which they still take requests after they were asked to stop.

    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        address: str,
        echo: Callable[[str], None],
        drain: float = 0.0,
    ) -> None:
        self.command, self.count, self.address, self.echo = list(command), count, address, echo
        self.drain = drain
        self.stopping = False
        self._workers: list[_Worker] = []
        self._metrics = tempfile.TemporaryDirectory(prefix="tunepoint-metrics-")

    def run(self) -> int:
        """Start all, and watch them until they are asked to stop.

        Returns:
            The exit code: 0 after a stop, and that of a worker that could not start.

        """
        with self._metrics, _signals(self._pass_on):
            # The first alone: it brings the store up to date, and says what is wrong with the settings.
            for number in range(self.count):
                if self.stopping:
                    break
                self._workers.append(self._start())
                code = self._wait_until_ready(self._workers[-1]) if number in (0, self.count - 1) else None
                if code is not None:
                    self._stop_all()
                    return code
            if not self.stopping:
                self.echo(f"{self.address} is ready; {self.count} workers serve. Ctrl-C stops them.")
            while not self.stopping:
                time.sleep(LOOK_SECONDS)
                for place, worker in enumerate(self._workers):
                    self._workers[place] = self._looked_after(worker)
            self._stop_all()
        return 0

    def _start(self, pause: float = FIRST_PAUSE_SECONDS) -> _Worker:
        ready, write = os.pipe()
        environment = {
            **os.environ,
            WORKER: f"{write}:{os.getpid()}",
            METRICS_FOLDER: self._metrics.name,
            SHARE_OF_CORES: str(self.count),
        }
        command = [sys.executable, "-m", "tunepoint", *self.command]
        process = subprocess.Popen(command, env=environment, pass_fds=(write,), start_new_session=True)
        os.close(write)
        return _Worker(process, ready, pause=pause)

    def _wait_until_ready(self, worker: _Worker) -> int | None:
        """Wait until a worker serves; its exit code if it ends before."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and not self.stopping:
            readable, _, _ = select.select([worker.ready], [], [], LOOK_SECONDS)
            if readable and os.read(worker.ready, 1):
                _note_serving(worker)
                return None
            if worker.process.poll() is not None:
                return worker.process.returncode or 1
        return None

    def _looked_after(self, worker: _Worker) -> _Worker:
        """Return the worker; another one if it has died and its pause is over."""
        now = time.monotonic()
        if worker.process.poll() is None:
            if not worker.serves and select.select([worker.ready], [], [], 0)[0] and os.read(worker.ready, 1):
                _note_serving(worker)
            return worker
        if worker.again == inf:
            if now - worker.started > STEADY_SECONDS:
                worker.pause = FIRST_PAUSE_SECONDS
            worker.again = now + worker.pause
            ended = worker.process.returncode
            self.echo(f"a worker has ended ({ended}); another one starts in {worker.pause:g} s")
            self._forget_metrics(worker.process.pid)
        if now < worker.again:
            return worker
        os.close(worker.ready)
        return self._start(min(MAX_PAUSE_SECONDS, worker.pause * 2))

    def _forget_metrics(self, process: int) -> None:
        """Take what a dead worker was doing out of the sums; what it has done stays in them."""
        from prometheus_client import multiprocess

        with suppress(OSError):
            multiprocess.mark_process_dead(process, path=self._metrics.name)  # type: ignore[no-untyped-call]

    def _pass_on(self, number: int) -> None:
        """Hand a signal to the workers; any but SIGHUP stops them, and that waits until they serve."""
        stop = number != signal.SIGHUP
        self.stopping = self.stopping or stop
        for worker in self._workers:
            with suppress(ProcessLookupError):
                if stop or worker.serves:
                    worker.stopping = worker.stopping or stop
                    worker.process.send_signal(signal.SIGTERM if stop else signal.SIGHUP)
                else:
                    worker.outdated = True

    def _stop_all(self) -> None:
        for worker in self._workers:
            if not worker.stopping:
                with suppress(ProcessLookupError):
                    worker.process.terminate()
        until = time.monotonic() + self.drain + STOP_SECONDS
        for worker in self._workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.1, until - time.monotonic()))
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
            os.close(worker.ready)


def _note_serving(worker: _Worker) -> None:
    worker.serves = True
    if worker.outdated:
        worker.outdated = False
        with suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGHUP)


@contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Hand signals over while the block runs."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, frame: handle(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_ready() -> None:
    """Tell the process that has started this worker that it serves; nothing where there is none."""
    if is_worker():
        descriptor = int(os.environ[WORKER].partition(":")[0])
        with suppress(OSError):
            os.write(descriptor, b"1")
            os.close(descriptor)


def is_worker() -> bool:
    """Whether this process is one of several that share a port."""
    return WORKER in os.environ


def has_parent() -> bool:
    """Whether the process that has started this worker still runs."""
    return os.getppid() == int(os.environ[WORKER].partition(":")[2])


def reload_others() -> bool:
    """Let the process that has started this worker hand SIGHUP to all of them; whether there is one."""
    if not is_worker() or not has_parent():
        return False
    os.kill(os.getppid(), signal.SIGHUP)
    return True


def default_workers() -> int:
    """Return how many workers a machine has room for: one a core, where they can share a port."""
    return cores() if hasattr(socket, "SO_REUSEPORT") else 1


def free_port(host: str, port: int) -> int:
    """Return the port, or one that nobody listens on if it is 0.

    Raises:
        TaskError: somebody listens on it, or the host is no address of this machine.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        try:
            # Not shared: workers of another gateway that listen on the port are noticed.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise TaskError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
            ) from None
        return int(probe.getsockname()[1])
