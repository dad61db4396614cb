"""The `trl` trainer of a job."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tunepoint.arms.causal.distributed import is_leader, pad_last_batch, with_fixed_order, world_size
from tunepoint.arms.causal.hardware import device, half_precision
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.loading import load_base
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Row
from tunepoint.arms.causal.trained import CHECKPOINTS, last_whole_checkpoint

Watch = Callable[[int, int, float], None]
"""(step, steps of the whole run, loss)"""
CHECKPOINTS_KEPT = 3
"""The one with the lowest validation loss and the last ones; they race on the validation set."""


def build_trainer(job: TrainingJob, watch: Watch | None) -> Any:
    """Return a `trl` trainer on rows in tokens, so that it neither cuts nor rewords an example."""
    from datasets import Dataset
    from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    recipe = job.recipe
    _project_answers_only()
    model, tokenizer = load_base(job.where, recipe)
    callbacks: list[Any] = [_progress_callback(watch)] if watch is not None and is_leader() else []
    if job.dev:
        callbacks.append(EarlyStoppingCallback(recipe.patience))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries warn each other, not the user
        trainer = with_fixed_order(SFTTrainer, recipe, job.seed, len(job.rows))(
            model=model,
            args=_arguments(job),
            train_dataset=Dataset.from_list([asdict(row) for row in pad_last_batch(job.rows, recipe)]),
            eval_dataset=Dataset.from_list(_by_length(job.dev)) if job.dev else None,
            processing_class=tokenizer,
            peft_config=lora_config(recipe),
            callbacks=callbacks,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _project_answers_only() -> None:
    """Let `trl` compute logits of the answers' tokens alone, which is all that the loss needs.

    Without Triton it computes those of every token, for compilers that want the same shapes in each batch. On
    two cores that was 40% of the time of a step of SmolLM2.
    """
    from trl.trainer import utils

    # chooses only what is computed, not how
    utils._use_triton = lambda device: True  # type: ignore[attr-defined]


def _by_length(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows from the shortest to the longest: batches of like length need little padding."""
    return [asdict(row) for row in sorted(rows, key=lambda row: len(row.input_ids))]


def run_trainer(trainer: Any, job: TrainingJob) -> None:
    """Train from the last whole checkpoint, if there is one."""
    checkpoint = last_whole_checkpoint(job.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def lora_config(recipe: CausalRecipe) -> Any:
    """Return LoRA on every linear layer but the output; None for full fine-tuning."""
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


def _arguments(job: TrainingJob) -> Any:
    from trl.trainer.sft_config import SFTConfig

    recipe, examples = job.recipe, len(job.rows)
    cuda, steps = device() == "cuda", recipe.steps(examples)
    # At least once an epoch, or a short run would end without a validation loss to choose by.
    checkpoint_steps = min(recipe.checkpoint_steps, math.ceil(examples / recipe.batch))
    return SFTConfig(
        output_dir=str(job.folder / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=job.batch_size // world_size(),
        per_device_eval_batch_size=job.batch_size // world_size(),
        ddp_find_unused_parameters=False,
        gradient_accumulation_steps=recipe.batch // job.batch_size,
        learning_rate=recipe.rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(recipe.warmup * steps),
        weight_decay=0.0,
        max_length=None,
        packing=False,
        bf16=half_precision(),
        use_cpu=device() == "cpu",
        gradient_checkpointing=cuda,
        eval_strategy="steps" if job.dev else "no",
        eval_steps=checkpoint_steps,
        save_steps=checkpoint_steps,
        save_total_limit=CHECKPOINTS_KEPT,
        load_best_model_at_end=bool(job.dev),
        metric_for_best_model="eval_loss" if job.dev else None,
        logging_steps=max(1, min(10, steps // 10)),
        logging_nan_inf_filter=False,  # the filter would hide that a run diverged
        report_to=list(recipe.log_to) or "none",
        seed=job.seed,
        data_seed=job.seed,
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=cuda,
    )


def _progress_callback(watch: Watch) -> Any:
    from transformers.trainer_callback import TrainerCallback

    class ProgressCallback(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                watch(int(state.global_step), int(state.max_steps), float(logs["loss"]))

    return ProgressCallback()
