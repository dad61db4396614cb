"""One of the processes that train a run together: `python -m tunepoint.arms.causal.worker JOB.json`.

Started by `tunepoint tune --launch`, or by hand with `accelerate launch` or `torchrun` on every machine;
all of them see the job's folder.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Row
from tunepoint.errors import TunepointError

JOB, STEPS, FAULTS = "job.json", "steps.jsonl", "fault-*.json"
"""In a run's folder: what is to be done, how far it is, and what went wrong in which process."""


@dataclass(frozen=True)
class Job:
    """What `train` is called with, in every process."""

    where: str
    rows: list[Row]
    dev: list[Row]
    recipe: CausalRecipe
    folder: Path
    seed: int
    batch: int

    def write(self) -> Path:
        """Put it into the run's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / JOB
        content = {**asdict(self), "folder": str(self.folder.absolute())}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        """What `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        recipe = content["recipe"]
        many = {name: tuple(recipe[name]) for name in ("diet", "log_to")}
        return cls(
            content["where"],
            [Row(**row) for row in content["rows"]],
            [Row(**row) for row in content["dev"]],
            CausalRecipe(**{**recipe, **many}),
            Path(content["folder"]),
            content["seed"],
            content["batch"],
        )


def work(path: str) -> None:
    """Do a job's share of this process; what goes wrong is written down for the launcher, then raised."""
    from tunepoint.arms.causal.sft import out_of_memory, train

    job = Job.read(Path(path))

    def watch(step: int, steps: int, loss: float) -> None:
        with (job.folder / STEPS).open("a", encoding="utf-8") as file:
            file.write(json.dumps([step, steps, loss]) + "\n")

    try:
        train(
            job.where, job.rows, job.dev, job.recipe, job.folder, seed=job.seed, watch=watch, batch=job.batch
        )
    except BaseException as error:
        kind = "memory" if out_of_memory(error) else "ours" if isinstance(error, TunepointError) else "other"
        fault = {"kind": kind, "said": f"{error}" if kind == "ours" else f"{type(error).__name__}: {error}"}
        place = job.folder / FAULTS.replace("*", os.environ.get("RANK", "0"))
        place.write_text(json.dumps(fault), encoding="utf-8")
        raise


def main() -> None:
    """Entry point of `python -m tunepoint.arms.causal.worker`."""
    work(sys.argv[1])
    from torch import distributed

    gc.collect()  # what still holds the group would abort the process at its end
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
