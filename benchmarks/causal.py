"""Speed of fine-tuning a causal language model, against a plain `trl` run of the same settings.

python benchmarks/causal.py [--examples 256] [--width 256] [--layers 6]

Builds a Llama of random weights, so that nothing is downloaded; both runs train the same adapter on the same
conversations for as many steps, in turn, in one process. On a CUDA device it also prints the share of the
measured matrix-multiplication ceiling (model FLOP utilisation, bf16) for the shape of a billion parameters.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_callback import TrainerCallback
from transformers.utils.logging import disable_progress_bar

from tunepoint import Example, Task
from tunepoint.arms.causal.job import TrainingJob
from tunepoint.arms.causal.loading import load_base, load_tokenizer
from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import rows_of
from tunepoint.arms.causal.trainer import build_trainer, lora_config, run_trainer
from tunepoint.arms.templates import chat_rows

CUDA = torch.cuda.is_available()
SPECIAL_TOKENS = ["<|end|>", "<|pad|>", "<|user|>", "<|system|>", "<|assistant|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BILLION = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
"""Shape of Llama 3.2 1B."""


def base(folder: Path, **shape: int) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["which queue should handle this message about an invoice"] * 4,
        trainers.BpeTrainer(vocab_size=2_000, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=32_000 if CUDA else 2_048,
        num_key_value_heads=shape["num_attention_heads"] // 4,
        max_position_embeddings=2_048,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
        **shape,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16 if CUDA else torch.float32)
    model.save_pretrained(folder)
    return folder


def examples(count: int, rng: np.random.Generator) -> list[Example]:
    words = ["which", "queue", "should", "handle", "this", "message", "about", "an", "invoice"]
    return [
        Example(str(i), " ".join(rng.choice(words, int(rng.integers(5, 60)))), ("billing", "device")[i % 2])
        for i in range(count)
    ]


class Clock(TrainerCallback):
    """Seconds from the end of the first step, which is slower, to that of the last."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        if CUDA:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def ours(
    base_model: str, task: Task, train: list[Example], recipe: CausalRecipe, folder: Path
) -> tuple[float, int]:
    rows = rows_of(task, train, ["full"] * len(train), load_tokenizer(base_model), 2_048).rows
    job = TrainingJob(base_model, rows, (), recipe, folder, seed=0)
    trainer = build_trainer(job, watch=None)
    clock = Clock()
    trainer.add_callback(clock)
    run_trainer(trainer, job)
    tokens = sum(len(row.input_ids) for row in rows)
    return clock.ends[-1] - clock.ends[0], tokens


def plain(base_model: str, task: Task, train: list[Example], recipe: CausalRecipe, folder: Path) -> float:
    """Train as the documentation of trl shows: prompt and completion, batches in random order."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    model, tokenizer = load_base(base_model)
    conversations = [row["messages"] for row in chat_rows(task, train, train)]
    clock = Clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=str(folder),
                max_steps=recipe.steps(len(train)),
                learning_rate=recipe.rate,
                per_device_train_batch_size=recipe.batch,
                lr_scheduler_type="linear",
                max_length=None,
                bf16=CUDA,
                use_cpu=not CUDA,
                gradient_checkpointing=CUDA,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=10_000,
                seed=0,
                dataloader_pin_memory=CUDA,
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": m[:-1], "completion": m[-1:]} for m in conversations]
            ),
            processing_class=tokenizer,
            peft_config=lora_config(recipe),
            callbacks=[clock],
        )
        trainer.train()
    return clock.ends[-1] - clock.ends[0]


def ceiling() -> float:
    """Measure the FLOP/s of large bf16 matrix products on this device."""
    a = torch.randn(8_192, 8_192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 8_192**3 / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    disable_progress_bar()
    shape = {
        "hidden_size": options.width,
        "intermediate_size": 4 * options.width,
        "num_hidden_layers": options.layers,
        "num_attention_heads": 8,
    }
    labels = {"answer": {"labels": {"billing": "charges", "device": "pairing"}}}
    task = Task.parse({"name": "t", "instruction": "Say which queue should handle the message.", **labels})
    train, recipe = examples(options.examples, np.random.default_rng(0)), CausalRecipe(epochs=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base_model = str(base(folder / "base", **(BILLION if CUDA else shape)))
        times: dict[str, list[float]] = {"ours": [], "plain trl": []}
        for turn in range(3):  # in turn, so that a busy machine slows both
            seconds, tokens = ours(base_model, task, train, recipe, folder / f"ours{turn}")
            times["ours"].append(seconds)
            times["plain trl"].append(plain(base_model, task, train, recipe, folder / f"plain{turn}"))
    speeds = {name: tokens / min(seconds) for name, seconds in times.items()}
    for name, speed in speeds.items():
        print(f"{name:<12} {speed:>12,.0f} tokens/s")
    ratio = speeds["ours"] / speeds["plain trl"]
    result: dict[str, Any] = {
        "benchmark": "causal",
        "tokens_a_second": speeds,
        "ratio": ratio,
    }
    print(f"ratio        {ratio:>12.2f}")
    if CUDA:
        shaped = LlamaForCausalLM(LlamaConfig(vocab_size=32_000, **BILLION))
        parameters = sum(weight.numel() for weight in shaped.parameters())
        # forward 2, backward through activations 2, and 2 more for the recomputation of checkpointing
        result["mfu"] = speeds["ours"] * 6 * parameters / ceiling()
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"utilisation  {result['mfu']:>12.0%} of the measured ceiling, peak {result['peak_gib']:.1f} GiB"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
