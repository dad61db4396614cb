"""The machines of a Ray cluster: tasks that end, and processes that keep a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tunepoint.errors import ModelError, StudyError, TunepointError
from tunepoint.models.endpoints import Completion, Endpoint, Request, allow_all
from tunepoint.models.spreading import Answers, WorkerLost

Result = TypeVar("Result")
MAX_RETRIES = 5
"""Of a task whose process or machine dies."""
SAME_EVERYWHERE = ("tunepoint", "numpy", "torch", "transformers")
"""Packages whose versions change a result, where a machine has them."""


@dataclass(frozen=True)
class Resources:
    """What one process of a cluster takes of its machine."""

    cores: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    cores: float
    gpus: float


def nodes() -> list[Node]:
    """Return the machines that are alive and have processors to give."""
    listed = [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            float(node["Resources"].get("CPU", 0)),
            float(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    return [node for node in listed if node.cores > 0]


def check_nodes(listed: Sequence[Node]) -> None:
    """Check that every machine has the versions of this process.

    Raises:
        StudyError: one has others, or none of this package; its results would not be those of one machine.

    """
    remote: Any = ray.remote(_versions)
    checks = {
        node: _future(
            remote.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote()
        )
        for node in listed
    }
    own = _versions()
    for node, answer in checks.items():
        try:
            theirs: dict[str, str | None] = answer.result()
        except (TunepointError, WorkerLost) as error:
            raise StudyError(
                f"machine {node.address} of the cluster cannot run Tunepoint ({error}); install there "
                "what is installed here"
            ) from None
        other = [name for name, here in own.items() if here != theirs.get(name)]
        if other:
            words = ", ".join(f"{name} {theirs.get(name) or 'missing'}, here {own[name]}" for name in other)
            raise StudyError(f"machine {node.address} of the cluster has other versions ({words})")


def _versions() -> dict[str, str | None]:
    """Name of a package -> its version without the build; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in SAME_EVERYWHERE:
        try:
            versions[name] = version(name).partition("+")[0]
        except ImportError:
            versions[name] = None
    return versions


def send(value: Any) -> Any:
    """Return what stands for a value on all machines, each of which gets it once."""
    return ray.put(value)


def start_task(
    resources: Resources, function: Callable[..., Result], *arguments: Any
) -> tuple[Future[Result], Callable[[], None]]:
    """Run a function on a machine with room for it, once more where that machine dies.

    Returns:
        its result, and what cancels it.

    """
    remote: Any = ray.remote(function)
    reference = remote.options(
        num_cpus=resources.cores, num_gpus=resources.gpus, max_retries=MAX_RETRIES
    ).remote(*arguments)
    return _future(reference), partial(ray.cancel, reference, force=True)


class ModelProcess:
    """A process of the cluster that has a model; Ray runs it."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None

    def open(self, opening: Callable[[], Endpoint]) -> None:
        """Open the model."""
        self._endpoint = opening()

    def answer(self, requests: Sequence[Request]) -> Answers:
        """Complete requests; what arrived before a fault is kept."""
        assert self._endpoint is not None, "a model is opened before it is asked"
        completions: dict[int, Completion] = {}
        fault = None
        try:
            self._endpoint.complete(requests, completions.__setitem__, allow_all)
        except TunepointError as error:
            fault = str(error)
        return Answers(completions, fault, _taken(getattr(self._endpoint, "failures", {})))


def _taken(failures: dict[str, int]) -> dict[str, int]:
    """Return what is counted, and count anew; other threads count meanwhile."""
    return {name: failures.pop(name, 0) for name in list(failures)}


class RayWorker:
    """A `models.spreading.Worker`: one `ModelProcess`."""

    def __init__(self, opening: Callable[[], Endpoint], resources: Resources, at_once: int = 1) -> None:
        """Start the process as soon as a machine has room for it.

        Args:
            opening: opens the model, in the process.
            resources: that it takes while it lives.
            at_once: groups of requests that it answers side by side.

        """
        remote: Any = ray.remote(ModelProcess)
        self._actor = remote.options(
            num_cpus=resources.cores,
            num_gpus=resources.gpus,
            max_concurrency=at_once,
            scheduling_strategy="SPREAD",
        ).remote()
        self.started: Future[None] = _future(self._actor.open.remote(opening))

    def answer(self, requests: Sequence[Request]) -> Future[Answers]:
        """Complete requests; the future fails with `WorkerLost` if the process dies."""
        return _future(self._actor.answer.remote(list(requests)))

    def stop(self) -> None:
        """End the process."""
        ray.kill(self._actor)


def _future(reference: Any) -> Future[Any]:
    """The future of what a reference stands for; our own errors are raised as they were there."""
    outcome: Future[Any] = Future()
    outcome.set_running_or_notify_cancel()

    def settle(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            outcome.set_result(done.result())
        else:
            outcome.set_exception(_translated(error))

    reference.future().add_done_callback(settle)
    return outcome


def _translated(error: BaseException) -> BaseException:
    """Return an error of ours for one that Ray raises."""
    if isinstance(error, RayTaskError) and not isinstance(error, TaskCancelledError):
        cause = error.cause
        if isinstance(cause, TunepointError):
            return cause
        return ModelError(f"{type(cause).__name__}: {cause}")
    words = str(error).strip().splitlines() or [type(error).__name__]
    return WorkerLost(words[0]) if isinstance(error, RayError) else error
