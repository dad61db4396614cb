"""One run of supervised fine-tuning, by `trl` and `peft`.

It goes on where it was killed, halves a batch that does not fit into memory, and says what looks wrong.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tunepoint.arms.causal.distributed import alone_in, filled, in_order, leads, wait_for_all, world
from tunepoint.arms.causal.hardware import device, half_precision
from tunepoint.arms.causal.loading import load_base, put_adapter
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Row
from tunepoint.errors import ModelError

FACTS = "run.json"
"""What a finished run says of itself, beside its weights."""
UNFINISHED = f"{FACTS}.part"
STILL = 0.98
"""Share of the first loss above which the last one has not fallen."""
Watch = Callable[[int, int, float], None]
"""(step, steps of the whole run, loss)"""
Pick = Callable[[Any, Any, Sequence[Path]], Path]
"""(model, tokenizer, checkpoints in the order of training) -> the one to keep"""
Launch = Callable[[str, Sequence[Row], Sequence[Row], CausalRecipe, Path, int, Watch | None], None]
"""Has `train` run in other processes, with its arguments."""


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    folder: Path
    """An adapter, or the whole model after full fine-tuning."""
    losses: tuple[float, ...]
    """Training loss of each epoch."""
    dev_losses: tuple[float, ...]
    """Dev loss of each epoch; empty without dev examples."""
    seconds: float
    tokens: int
    """Tokens that went through training, over all epochs."""
    batch: int
    """Examples that were computed at once; halved where memory ran out."""
    warnings: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Trained | None:
        """A run that finished before, or None."""
        path = folder / FACTS
        if not path.exists():
            return None
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        many = {name: tuple(facts[name]) for name in ("losses", "dev_losses", "warnings")}
        return cls(**{**facts, **many, "folder": folder})


def fine_tune(
    where: str,
    rows: Sequence[Row],
    dev: Sequence[Row],
    recipe: CausalRecipe,
    folder: Path,
    *,
    seed: int,
    watch: Watch | None = None,
    pick: Pick | None = None,
    launch: Launch | None = None,
) -> Trained:
    """Train, or go on with a run that was killed; the weights appear in `folder` whole or not at all.

    Args:
        where: directory or hub name of the base.
        rows: training examples in tokens.
        dev: examples whose loss stops a run early; the best epoch is kept. May be empty.
        folder: the run's own.
        seed: of the order of the examples and of the adapter's first weights.
        watch: called at every logged step.
        pick: chooses among the last adapters; the one with the lowest loss on dev if None.
        launch: trains in processes of its own; this process if None.

    Raises:
        ModelError: not even one example at a time fits into memory.

    """
    finished = Trained.read(folder)
    if finished is not None:
        return finished
    model = tokenizer = None
    if _readable(folder / UNFINISHED):
        pass  # trained already, by processes that were started by hand or lost their launcher
    elif launch is None:
        trainer = train(where, rows, dev, recipe, folder, seed=seed, watch=watch)
        model, tokenizer = trainer.model, trainer.processing_class
    else:
        launch(where, rows, dev, recipe, folder, seed, watch)
    chosen = None
    found = _checkpoints(folder)
    if pick is not None and recipe.method != "full" and len(found) > 1:
        if model is None:
            base, tokenizer = load_base(where, recipe)
            model = put_adapter(base, folder)
        chosen = pick(model, tokenizer, found)
    return _kept(folder, chosen)


def _readable(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def train(
    where: str,
    rows: Sequence[Row],
    dev: Sequence[Row],
    recipe: CausalRecipe,
    folder: Path,
    *,
    seed: int,
    watch: Watch | None = None,
    batch: int | None = None,
) -> Any:
    """Train in this process and those that its launcher started with it; the trainer, its weights written.

    What it wrote is not finished before `fine_tune` has chosen among the checkpoints.

    Args:
        batch: examples at once, in all processes together; those of the recipe if None. Halved where
            memory runs out, but in one process only: the others would wait for each other.

    """
    batch, started = batch or recipe.batch, time.perf_counter()
    with alone_in(folder):
        while True:
            try:
                trainer = _trainer(where, rows, dev, recipe, folder, seed=seed, batch=batch, watch=watch)
                _train(trainer, folder)
                break
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or world() > 1:
                    raise
                smaller = smaller_batch(batch, recipe)
                if smaller is None:
                    raise too_large(where, rows) from None
                batch = smaller
                trainer = None
                gc.collect()
                torch.cuda.empty_cache()
        wait_for_all()
        if leads():
            _write(trainer, rows, recipe, folder, batch, time.perf_counter() - started)
    return trainer


ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""Files of an adapter."""


def _checkpoints(folder: Path) -> list[Path]:
    """Those of a run, in the order of training."""
    found = (folder / "checkpoints").glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


WARM_UP = 3
"""Steps of the measured warm-up; the first one is slower and not counted."""


def warm_up(where: str, rows: Sequence[Row], recipe: CausalRecipe) -> float:
    """Seconds that training takes for a token on this machine, measured on a few real steps."""
    from transformers.trainer_callback import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

    some = rows[: WARM_UP * recipe.batch]
    short = replace(recipe, most_steps=WARM_UP, epochs=WARM_UP, log_to=())
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(where, some, (), short, Path(folder), seed=0, batch=recipe.batch, watch=None)
        trainer.add_callback(Clock())
        _train(trainer, Path(folder))
    tokens = sum(len(row.input_ids) for row in some) / len(some) * recipe.batch * (len(ends) - 1)
    return (ends[-1] - ends[0]) / tokens


def smaller_batch(batch: int, recipe: CausalRecipe, processes: int = 1) -> int | None:
    """The next smaller batch that makes up those of the recipe; None if there is none."""
    half = range(batch // 2, processes - 1, -1)
    return next((size for size in half if recipe.batch % size == 0 and size % processes == 0), None)


def too_large(where: str, rows: Sequence[Row]) -> ModelError:
    """What is said when not even one example at a time fits."""
    longest = max(len(row.input_ids) for row in rows)
    return ModelError(
        f"{where}: memory ran out with one example at a time ({longest} tokens the longest); "
        "take a smaller base, method 'lora', or shorter inputs"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        word in str(error).lower() for word in words
    )


def _trainer(
    where: str,
    rows: Sequence[Row],
    dev: Sequence[Row],
    recipe: CausalRecipe,
    folder: Path,
    *,
    seed: int,
    batch: int,
    watch: Watch | None,
) -> Any:
    """A `trl` trainer on rows that are in tokens already, so that nothing is cut or put in other words."""
    from datasets import Dataset
    from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    model, tokenizer = load_base(where, recipe)
    callbacks: list[Any] = [_Watching(watch)] if watch is not None and leads() else []
    if dev:
        callbacks.append(EarlyStoppingCallback(recipe.patience))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say to each other
        trainer = in_order(SFTTrainer, recipe, seed, len(rows))(
            model=model,
            args=_arguments(recipe, folder, len(rows), seed=seed, batch=batch, dev=bool(dev)),
            train_dataset=Dataset.from_list([asdict(row) for row in filled(rows, recipe)]),
            eval_dataset=Dataset.from_list([asdict(row) for row in dev]) if dev else None,
            processing_class=tokenizer,
            peft_config=_adapter(recipe),
            callbacks=callbacks,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _adapter(recipe: CausalRecipe) -> Any:
    """LoRA on every linear layer but the output; None for full fine-tuning."""
    if recipe.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _arguments(recipe: CausalRecipe, folder: Path, examples: int, *, seed: int, batch: int, dev: bool) -> Any:
    from trl.trainer.sft_config import SFTConfig

    cuda, steps = device() == "cuda", recipe.steps(examples)
    every = min(recipe.checkpoint_steps, math.ceil(examples / recipe.batch))
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=batch // world(),
        per_device_eval_batch_size=batch // world(),
        ddp_find_unused_parameters=False,
        gradient_accumulation_steps=recipe.batch // batch,
        learning_rate=recipe.rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(recipe.warmup * steps),
        weight_decay=0.0,
        max_length=None,
        packing=False,
        bf16=half_precision(),
        use_cpu=device() == "cpu",
        gradient_checkpointing=cuda,
        eval_strategy="steps" if dev else "no",
        eval_steps=every,
        save_steps=every,
        save_total_limit=3,
        load_best_model_at_end=dev,
        metric_for_best_model="eval_loss" if dev else None,
        logging_steps=max(1, min(10, steps // 10)),
        logging_nan_inf_filter=False,
        report_to=list(recipe.log_to) or "none",
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=cuda,
    )


def _train(trainer: Any, folder: Path) -> None:
    """Train from the last whole checkpoint, if there is one."""
    from transformers.trainer_utils import get_last_checkpoint

    kept = folder / "checkpoints"
    last = get_last_checkpoint(str(kept)) if kept.is_dir() else None  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=last)


def _write(
    trainer: Any, rows: Sequence[Row], recipe: CausalRecipe, folder: Path, batch: int, seconds: float
) -> None:
    """Write the weights, then the facts under another name: a run without facts is not finished."""
    history = trainer.state.log_history
    losses = _by_epoch(history, "loss")
    dev_losses = tuple(float(entry["eval_loss"]) for entry in history if "eval_loss" in entry)
    trainer.model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    epochs = float(trainer.state.epoch or 0.0)
    first = next((float(entry["loss"]) for entry in history if "loss" in entry), math.nan)
    said = _warnings(first, losses, dev_losses)
    if batch < recipe.batch:
        said.append(f"memory ran out with {recipe.batch} examples at once; {batch} were computed at a time")
    tokens = round(epochs * sum(len(row.input_ids) for row in rows))
    found = Trained(folder, losses, dev_losses, seconds, tokens, batch, tuple(said))
    facts = {name: value for name, value in asdict(found).items() if name != "folder"}
    (folder / UNFINISHED).write_text(json.dumps(facts), encoding="utf-8")


def _kept(folder: Path, chosen: Path | None) -> Trained:
    """A run whose weights are all there: its facts get their name, its checkpoints go."""
    if chosen is not None:
        for name in ADAPTER:
            shutil.copy(chosen / name, folder / name)
    (folder / UNFINISHED).replace(folder / FACTS)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    found = Trained.read(folder)
    assert found is not None, "its facts were written just now"
    return found


def _by_epoch(history: Sequence[dict[str, Any]], name: str) -> tuple[float, ...]:
    """Mean of what was logged in each epoch."""
    found: dict[int, list[float]] = {}
    for entry in history:
        if name in entry:
            found.setdefault(math.ceil(entry["epoch"] - 1e-9), []).append(float(entry[name]))
    return tuple(sum(values) / len(values) for values in found.values())


def _warnings(first: float, losses: Sequence[float], dev_losses: Sequence[float]) -> list[str]:
    """What a person would notice in the loss curve."""
    if not losses or not math.isfinite(losses[-1]):
        return [f"training diverged: the loss is {losses[-1] if losses else 'missing'}"]
    if losses[-1] > STILL * first:
        return [f"the loss did not fall: {first:.3f} at first, {losses[-1]:.3f} at last"]
    if len(dev_losses) > 2 and min(dev_losses) == dev_losses[0]:
        return ["the loss on dev only rose after its first look: fewer epochs, or a lower learning rate"]
    return []


class _Watching:
    """A callback that tells how far a run is."""

    def __new__(cls, watch: Watch) -> Any:
        from transformers.trainer_callback import TrainerCallback

        class Watching(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
                if logs and "loss" in logs:
                    watch(int(state.global_step), int(state.max_steps), float(logs["loss"]))

        return Watching()
