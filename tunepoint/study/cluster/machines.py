"""The machines of a cluster, as a study uses them: they train, run models, and call those of providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tunepoint.arms.contract import KeepsTrainingRuns
from tunepoint.files.machine import cores
from tunepoint.files.ray_cluster import ray_cluster
from tunepoint.models.abilities import Abilities
from tunepoint.models.endpoints import Allow, Done, Endpoint, Request
from tunepoint.models.gguf.endpoint import MAX_SERVERS
from tunepoint.models.named_models import NamedModel, OwnModel, open_here, open_hosted
from tunepoint.models.providers import LOCAL_PREFIX, VLLM_PREFIX, is_gguf
from tunepoint.models.spreading import Sharing, SpreadEndpoint, Worker
from tunepoint.study.cluster.training import (
    RunFiles,
    TrainingAhead,
    TrainingOrder,
    modules_beside,
    read_files,
)
from tunepoint.task.task import Task

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tunepoint.arms.causal.base import CausalBase
    from tunepoint.models.hosted_endpoint import HostedEndpoint
    from tunepoint.study.cluster.ray_workers import Node, Resources

STORE_BYTES = 2 * 2**30
"""Memory for the encoder and its states, which every process of a cluster on this machine reads."""
GROUP = 32
"""Requests that a process gets at once: several batches of a model, so that none is half empty."""
RAY = "ray"
"""Names the cluster of RAY_ADDRESS, else one on this machine."""


@contextmanager
def open_cluster(on: str) -> Iterator[StudyMachines]:
    """Connect to a cluster for the time of a study.

    Args:
        on: `ray`, or the address of a cluster as in `ray://HOST:10001`.

    Raises:
        MissingExtra: Ray is not installed.
        StudyError: there is no such cluster, or a machine of it has other versions of packages.

    """
    with ray_cluster(cores(), None if on == RAY else on, store_bytes=STORE_BYTES):
        from tunepoint.study.cluster.ray_workers import check_nodes, nodes

        listed = nodes()
        check_nodes(listed)
        machines = StudyMachines(listed)
        try:
            yield machines
        finally:
            machines.close()


@dataclass
class StudyMachines:
    """The machines of a Ray cluster; they satisfy `models.named_models.OtherMachines`."""

    nodes: list[Node]
    _models: list[_OwnModel] = field(default_factory=list)
    _runs: dict[Path, SpreadEndpoint] = field(default_factory=dict)
    _calls: list[_SpreadCalls] = field(default_factory=list)
    _ahead: TrainingAhead | None = None
    _tunes: bool = False
    """Whether adapters that were trained here answer too."""
    _sent: dict[int, tuple[KeepsTrainingRuns, Any]] = field(default_factory=dict)
    """Identity of an arm -> the arm, and what stands for it on all machines."""

    @property
    def cores(self) -> float:
        """Processors of all machines."""
        return sum(node.cores for node in self.nodes)

    @property
    def gpus(self) -> float:
        """Accelerators of all machines."""
        return sum(node.gpus for node in self.nodes)

    def hour_usd(self, task: Task) -> float:
        """Return what an hour of the cluster costs."""
        given = task.costs.cluster_hour_usd
        return self.cores * task.costs.core_hour_usd.likely if given is None else given

    # -- training --------------------------------------------------------------------------

    def training(self, task: Task) -> TrainingAhead:
        """Return what trains the runs of a study; the same one each time."""
        if self._ahead is None:
            from tunepoint.arms.causal.hardware import threads_in_use

            self._tunes = any(tune.provider is None for tune in task.tune)
            threads = int(min(threads_in_use(), max(node.cores for node in self.nodes)))
            modules = {}
            if ":" in task.score.metric:  # a user's scorer may choose among the checkpoints of a run
                modules = modules_beside(task.folder)
            self._ahead = TrainingAhead(self._start_run, task, threads, modules, release=self.release)
        return self._ahead

    def _start_run(
        self, arm: KeepsTrainingRuns, order: TrainingOrder
    ) -> tuple[Future[RunFiles], Callable[[], None]]:
        from tunepoint.study.cluster.ray_workers import Resources, send, start_task

        if id(arm) not in self._sent:  # an encoder is 90 MB, and goes once to each machine
            self._sent[id(arm)] = arm, send(arm.keeping(Path()))
        _, sent = self._sent[id(arm)]
        takes = Resources(order.threads)
        if self.gpus and arm.base_model is not None:
            takes = Resources(min(order.threads, self._cores_of_gpu()), 1.0)
        return start_task(takes, TrainingOrder.carry_out, order, sent)

    def _cores_of_gpu(self) -> float:
        """Cores of a machine for each of its accelerators."""
        return max(1.0, min(node.cores // node.gpus for node in self.nodes if node.gpus))

    # -- models ----------------------------------------------------------------------------

    def own_model(self, model: NamedModel) -> OwnModel:
        """Return a model whose weights are ours: a process on each machine runs it."""
        opened = _OwnModel(model, self._spread(model.name, partial(self._open_own, model)))
        self._models.append(opened)
        return opened

    def run_of(self, base: CausalBase, run: str) -> SpreadEndpoint:
        """Return what answers with the weights of a training run; the processes of the last run end."""
        path = base.keep / run
        if path not in self._runs:
            for other in self._runs.values():
                other.close()
            files = {f"{run}/{name}": content for name, content in read_files(path).items()}
            opening = partial(_open_run, base.keeping(Path()), run, files)
            takes = self._shared(self._resources(gguf=False))
            self._runs = {path: self._spread(base.base, lambda: (opening, takes))}
        return self._runs[path]

    def calls(self, model: NamedModel, hosted: HostedEndpoint) -> Endpoint:
        """Return a provider's model that every machine calls; with a single one, this process does."""
        if len(self.nodes) == 1 or model.name.startswith(VLLM_PREFIX):
            return hosted  # its server is where it was started, and batches by itself
        self._calls.append(_SpreadCalls(hosted, model, len(self.nodes)))
        return self._calls[-1]

    def release(self) -> None:
        """End the processes that run models, so that training has their cores; requests start new ones."""
        for endpoint in (*self._runs.values(), *(model.endpoint for model in self._models)):
            endpoint.close()

    def close(self) -> None:
        """End all that runs for the study."""
        self.release()
        for calls in self._calls:
            calls.close()
        if self._ahead is not None:
            self._ahead.cancel()

    def _open_own(self, model: NamedModel) -> tuple[Callable[[], Endpoint], Resources]:
        """How a process opens a model, and what it takes; models take turns, so they share a machine."""
        resources = self._resources(gguf=is_gguf(model.name))
        return partial(open_here, model, int(resources.cores)), self._shared(resources)

    def _resources(self, *, gguf: bool) -> Resources:
        from tunepoint.study.cluster.ray_workers import Resources

        if self.gpus and not gguf:
            return Resources(self._cores_of_gpu(), 1.0)
        fewest = min(node.cores for node in self.nodes)
        return Resources(min(fewest, MAX_SERVERS) if gguf else fewest)

    def _shared(self, resources: Resources) -> Resources:
        """What each of several models asks for, that all have room: a study asks one at a time."""
        from tunepoint.study.cluster.ray_workers import Resources

        models = max(1, len(self._models) + self._tunes)
        return Resources(resources.cores / models, resources.gpus / models)

    def _spread(
        self, name: str, prepare: Callable[[], tuple[Callable[[], Endpoint], Resources]]
    ) -> SpreadEndpoint:
        def start() -> Worker:
            from tunepoint.study.cluster.ray_workers import RayWorker

            opening, resources = prepare()
            return RayWorker(opening, resources)

        gguf = is_gguf(name)
        needs = self._resources(gguf=gguf)
        places = self.gpus if needs.gpus else sum(node.cores // needs.cores for node in self.nodes)
        sharing = Sharing(2, 2 * MAX_SERVERS if gguf else GROUP)
        return SpreadEndpoint(name, start, max(1, int(places)), sharing, busy=self._trains)

    def _trains(self) -> bool:
        return self._ahead is not None and self._ahead.under_way


class _OwnModel:
    """A model that processes of the cluster run."""

    def __init__(self, model: NamedModel, endpoint: SpreadEndpoint) -> None:
        self.name = model.name
        self.model = model
        self.endpoint = endpoint

    @property
    def parameters(self) -> int:
        """Numbers in the model, by its files on this machine."""
        if not self.name.startswith(LOCAL_PREFIX):
            return open_here(self.model).parameters
        from tunepoint.arms.causal.hardware import size_of

        return size_of(self.name.removeprefix(LOCAL_PREFIX), self.model.folder).parameters

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        self.endpoint.complete(requests, done, allow)

    def close(self) -> None:
        self.endpoint.close()


class _SpreadCalls:
    """A provider's model, called from every machine; the first call is made here and shows what it takes."""

    def __init__(self, hosted: HostedEndpoint, model: NamedModel, machines: int) -> None:
        self.name = hosted.name
        self._hosted = hosted
        width = max(1, model.concurrency // machines)

        def start() -> Worker:
            from tunepoint.study.cluster.ray_workers import RayWorker, Resources

            return RayWorker(partial(_open_calls, model, width, hosted.abilities), Resources(0), width)

        workers = min(machines, model.concurrency)
        self._spread = SpreadEndpoint(hosted.name, start, workers, Sharing(width, 1), hosted.failures)

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        first = 0 if self._hosted.abilities is not None else 1
        self._hosted.complete(requests[:first], done, allow)
        self._spread.complete(requests[first:], lambda at, answer: done(at + first, answer), allow)

    def close(self) -> None:
        self._spread.close()


def _open_calls(model: NamedModel, width: int, abilities: Abilities | None) -> Endpoint:
    """Open a provider's model in a process of the cluster, with its share of the calls at once."""
    return open_hosted(replace(model, concurrency=width), abilities)


def _open_run(base: CausalBase, run: str, files: RunFiles) -> Endpoint:
    """Open a base with the weights of a run, in a process of the cluster."""
    with TemporaryDirectory() as keep:
        for name, content in files.items():
            path = Path(keep, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return base.keeping(Path(keep)).endpoint(run)  # which reads them into memory


@dataclass
class RunsElsewhere:
    """Answers with training runs on the machines; satisfies `arms.causal.base.RunEndpoints`."""

    machines: StudyMachines

    def of(self, base: CausalBase, run: str, requests: int) -> SpreadEndpoint | None:
        """Return what answers many requests; a single one is timed, on this machine."""
        return None if requests == 1 else self.machines.run_of(base, run)

    def release(self) -> None:
        """Keep all: nothing of it is in the memory of this machine's trainings."""
