"""A finished training run: its facts on disk, and what looks wrong with its losses."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.job import TrainingJob
from tunepoint.files.text import write_json

RUN_FILE = "run.json"
"""The facts of a finished run, beside its weights."""
UNFINISHED_RUN_FILE = f"{RUN_FILE}.part"
"""The same of a run whose best checkpoint is still to be chosen."""
CHECKPOINTS = "checkpoints"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
STALLED_SHARE = 0.98
"""A last loss above this share of the first one has not fallen."""


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    folder: Path
    """An adapter, or the whole model after full fine-tuning."""
    losses: tuple[float, ...]
    """Training loss of each epoch."""
    dev_losses: tuple[float, ...]
    """Validation loss at each checkpoint; empty without validation examples."""
    seconds: float
    tokens: int
    """Tokens that went through training, over all epochs."""
    batch: int
    """Examples computed at once; halved where memory ran out."""
    warnings: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Trained | None:
        """Read a finished run, or return None."""
        path = folder / RUN_FILE
        if not path.exists():
            return None
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tuples = {name: tuple(facts[name]) for name in ("losses", "dev_losses", "warnings")}
        return cls(**{**facts, **tuples, "folder": folder})

    def warning(self, more: Sequence[str]) -> Trained:
        """Return the run with further warnings in front of its own, which its file names too from now on."""
        warned = replace(self, warnings=(*more, *self.warnings))
        if more:
            write_json(self.folder / RUN_FILE, warned._facts())
        return warned

    def _facts(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "folder"}


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the checkpoints of a run in the order of training."""
    checkpoints = (folder / CHECKPOINTS).glob("checkpoint-*")
    return sorted(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint to resume from; None where none is whole.

    The trainer writes `trainer_state.json` last. A process killed while it writes leaves the file out
    or cut off, and training would fail on it at every later try.
    """
    for checkpoint in reversed(checkpoints_of(folder)):
        with suppress(OSError, ValueError):
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return checkpoint
    return None


def is_trained(folder: Path) -> bool:
    """Whether all weights are there, though the best checkpoint may not be chosen yet."""
    try:
        return bool(json.loads((folder / UNFINISHED_RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def write_run(trainer: Any, job: TrainingJob, seconds: float) -> None:
    """Write the weights of a `trl` trainer, then the facts under the name of an unfinished run."""
    history = trainer.state.log_history
    losses = _mean_by_epoch(history, "loss")
    dev_losses = tuple(float(entry["eval_loss"]) for entry in history if "eval_loss" in entry)
    first_loss = next((float(entry["loss"]) for entry in history if "loss" in entry), math.nan)
    warnings = _loss_warnings(first_loss, losses, dev_losses)
    if job.batch_size < job.recipe.batch:
        warnings.append(
            f"memory ran out with {job.recipe.batch} examples at once; {job.batch_size} were computed at a "
            "time"
        )
    trainer.model.save_pretrained(job.folder)
    trainer.processing_class.save_pretrained(job.folder)
    tokens = round(float(trainer.state.epoch or 0.0) * sum(len(row.input_ids) for row in job.rows))
    trained = Trained(job.folder, losses, dev_losses, seconds, tokens, job.batch_size, tuple(warnings))
    # After the weights: a run that is killed between the two has no facts, and is trained again.
    (job.folder / UNFINISHED_RUN_FILE).write_text(json.dumps(trained._facts()), encoding="utf-8")


def finish(folder: Path, checkpoint: Path | None) -> Trained:
    """Put a checkpoint's adapter in place, if one was chosen; name the facts and drop the checkpoints."""
    if checkpoint is not None:
        for name in ADAPTER_FILES:
            shutil.copy(checkpoint / name, folder / name)
    (folder / UNFINISHED_RUN_FILE).replace(folder / RUN_FILE)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    trained = Trained.read(folder)
    assert trained is not None, "its facts were written just now"
    return trained


def _mean_by_epoch(history: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    values_by_epoch: dict[int, list[float]] = {}
    for entry in history:
        if name in entry:
            # The last step of an epoch is logged as 2.0 with rounding on either side.
            epoch = math.ceil(entry["epoch"] - 1e-9)
            values_by_epoch.setdefault(epoch, []).append(float(entry[name]))
    return tuple(sum(values) / len(values) for values in values_by_epoch.values())


def _loss_warnings(first: float, losses: Sequence[float], dev_losses: Sequence[float]) -> list[str]:
    """Say what a person would notice in the loss curves."""
    if not losses or not math.isfinite(losses[-1]):
        return [f"training diverged: the loss is {losses[-1] if losses else 'missing'}"]
    if losses[-1] > STALLED_SHARE * first:
        return [f"the loss did not fall: {first:.3f} at the start, {losses[-1]:.3f} at the end"]
    if len(dev_losses) > 2 and min(dev_losses) == dev_losses[0]:
        return [
            "the validation loss only rose after its first measurement: use fewer epochs or a lower "
            "learning rate"
        ]
    return []
