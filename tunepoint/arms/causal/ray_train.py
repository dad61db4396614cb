"""The processes of a training job on Ray Train."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.hardware import device, threads_per_process
from tunepoint.errors import MissingExtra
from tunepoint.files.ray_cluster import quiet_ray, ray_cluster


def run_on_ray(job: Path, processes: int) -> str | None:
    """Run a job's processes on a Ray cluster; return the first line of the error if one failed.

    The cluster is that of RAY_ADDRESS, else one that is started on this machine.
    """
    quiet_ray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns of its own deprecations
        try:
            from ray.train import LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
            from ray.train.torch import TorchTrainer
        except ImportError as error:
            raise MissingExtra(f"--launch ray needs {error.name}", "ray") from None
        with ray_cluster(processes), tempfile.TemporaryDirectory() as storage:
            trainer = TorchTrainer(
                _work,
                train_loop_config={"job": str(job.absolute()), "threads": threads_per_process(processes)},
                scaling_config=ScalingConfig(num_workers=processes, use_gpu=device() == "cuda"),
                run_config=RunConfig(
                    storage_path=storage,
                    name="run",
                    # Ray's type stubs are those of an earlier version, without this argument.
                    logging_config=LoggingConfig("ERROR"),  # type: ignore[call-arg]
                ),
            )
            try:
                trainer.fit()
            except TrainingFailedError as error:
                return str(error).strip().splitlines()[0]
    return None


def _work(config: dict[str, Any]) -> None:
    """Train as one of Ray's workers."""
    import torch

    from tunepoint.arms.causal.worker import work

    torch.set_num_threads(config["threads"])
    work(config["job"])
