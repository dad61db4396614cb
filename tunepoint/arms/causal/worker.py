"""One of the processes that train a run together: `python -m tunepoint.arms.causal.worker JOB.json`.

`tunepoint tune --launch` starts it, or a person does with `accelerate launch` or `torchrun` on every machine;
all of them see the job's folder.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

from tunepoint.arms.causal.job import TrainingJob
from tunepoint.errors import TunepointError

STEPS_FILE, FAULT_FILES = "steps.jsonl", "fault-*.json"
"""In a run's folder: the steps so far, and the errors by the rank of their process."""


def work(path: str) -> None:
    """Train as one of a job's processes; write down an error for the launcher, then raise it."""
    # Imports torch and trl, for which a launcher that only reads these file names need not wait.
    from tunepoint.arms.causal.memory import is_out_of_memory
    from tunepoint.arms.causal.sft import train

    job = TrainingJob.read(Path(path))

    def write_step(step: int, steps: int, loss: float) -> None:
        with (job.folder / STEPS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps([step, steps, loss]) + "\n")

    try:
        train(job, watch=write_step)
    except BaseException as error:
        ours = isinstance(error, TunepointError)
        kind = "memory" if is_out_of_memory(error) else "ours" if ours else "other"
        message = str(error) if kind == "ours" else f"{type(error).__name__}: {error}"
        fault = job.folder / FAULT_FILES.replace("*", os.environ.get("RANK", "0"))
        fault.write_text(json.dumps({"kind": kind, "said": message}), encoding="utf-8")
        raise


def main() -> None:
    """Entry point of `python -m tunepoint.arms.causal.worker`."""
    work(sys.argv[1])
    from torch import distributed

    gc.collect()  # an object that still holds the process group would abort the process at its end
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
