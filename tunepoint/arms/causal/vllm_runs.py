"""Training runs that a vLLM server answers with: adapters beside their base, in one server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.errors import TaskError
from tunepoint.models.vllm import MAX_RANK, VllmServers
from tunepoint.task.sections import Tune

if TYPE_CHECKING:
    from tunepoint.arms.causal.base import CausalBase, RunEndpoints
    from tunepoint.models.endpoints import Endpoint
    from tunepoint.models.vllm_endpoint import VllmEndpoint


def check_engine(tune: Tune) -> None:
    """Check that vLLM can serve what a [[tune]] entry trains.

    Raises:
        TaskError: it trains no adapter, or one of too high a rank.

    """
    if tune.method != "lora" or tune.rank > MAX_RANK:
        raise TaskError(
            f"[[tune]] engine = 'vllm' serves adapters of method 'lora' and rank {MAX_RANK} at most, and "
            f"this one is {tune.method!r} of rank {tune.rank}; leave engine out"
        )


@dataclass
class VllmRuns:
    """Answers with the weights of training runs; satisfies `arms.causal.base.RunEndpoints`."""

    servers: VllmServers
    _endpoints: dict[Path, VllmEndpoint] = field(default_factory=dict)

    def of(self, base: CausalBase, run: str, requests: int) -> VllmEndpoint:
        """Return the endpoint of a run, whose adapter the server of its base holds."""
        from tunepoint.models.vllm_endpoint import VllmEndpoint

        path = base.keep / run
        if path not in self._endpoints:
            self._endpoints[path] = VllmEndpoint(self.servers, base.base, base.folder, path)
            self.servers.at_end.append(self._endpoints[path].close)
        return self._endpoints[path]

    def release(self) -> None:
        """Give the memory back that a training needs."""
        self.servers.release()


@dataclass
class BesideVllm:
    """Trainings of this machine while vLLM runs other models on it; satisfies `RunEndpoints`."""

    servers: VllmServers
    others: RunEndpoints | None
    """What answers with the weights of runs; this process does if None."""

    def of(self, base: CausalBase, run: str, requests: int) -> Endpoint | None:
        """Return what answers so many requests with a run's weights; None leaves them to this process."""
        return None if self.others is None else self.others.of(base, run, requests)

    def release(self) -> None:
        """Stop the servers that were started, whose memory a training needs."""
        self.servers.release()
