"""The settings files of other training tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tunepoint.arms.causal.recipe import CausalRecipe

Files = Mapping[str, str]
Form = Callable[[str, "CausalRecipe"], tuple[Files, str]]
"""(base, recipe) -> (contents of the settings files by name, the command that trains)"""


def _upload(provider: str, advice: str) -> Form:
    command = f"upload {{folder}}/train.jsonl to {provider}, {advice}"
    return lambda base, recipe: ({}, command)


def _dataset(base: str, recipe: CausalRecipe) -> tuple[Files, str]:
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: train.jsonl\n  - split: validation\n    path: dev.jsonl\n---\n"
    )
    return {"README.md": card}, 'datasets.load_dataset("{folder}")'


def _yaml(settings: Mapping[str, Any]) -> str:
    """Write flat YAML without a YAML library: every JSON value is a YAML value."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())


def _adapter(recipe: CausalRecipe) -> str | None:
    return None if recipe.method == "full" else recipe.method


def _axolotl(base: str, recipe: CausalRecipe) -> tuple[Files, str]:
    """Write Axolotl's settings, by its configuration reference; the chat template is the tokenizer's own."""
    data = {
        "type": "chat_template",
        "field_messages": "messages",
        "ds_type": "json",
        "roles_to_train": ["assistant"],
    }
    settings = {
        "base_model": base,
        "chat_template": "tokenizer_default",
        "datasets": [{"path": "train.jsonl", **data}],
        "test_datasets": [{"path": "dev.jsonl", "split": "train", **data}],
        "train_on_inputs": False,
        "adapter": _adapter(recipe),
        "load_in_4bit": recipe.method == "qlora",
        "lora_r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": 0.0,
        "lora_target_linear": True,
        "sequence_len": 2048,
        "sample_packing": False,
        "micro_batch_size": recipe.batch,
        "gradient_accumulation_steps": 1,
        "num_epochs": recipe.epochs,
        "learning_rate": recipe.rate,
        "lr_scheduler": "linear",
        "warmup_ratio": recipe.warmup,
        "optimizer": "adamw_torch",
        "bf16": "auto",
        "evals_per_epoch": 1,
        "output_dir": "out",
    }
    return {"axolotl.yaml": _yaml(settings)}, "cd {folder} && axolotl train axolotl.yaml"


def _llama_factory(base: str, recipe: CausalRecipe) -> tuple[Files, str]:
    """Write LLaMA-Factory's settings, by its dataset and training references."""
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    data = {
        f"tunepoint_{name}": {
            "file_name": f"{name}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        }
        for name in ("train", "dev")
    }
    settings = {
        "model_name_or_path": base,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full" if recipe.method == "full" else "lora",
        "lora_target": "all",
        "lora_rank": recipe.rank,
        "lora_alpha": recipe.alpha,
        "dataset_dir": ".",
        "dataset": "tunepoint_train",
        "eval_dataset": "tunepoint_dev",
        "template": "default",
        "cutoff_len": 2048,
        "per_device_train_batch_size": recipe.batch,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.rate,
        "lr_scheduler_type": "linear",
        "warmup_ratio": recipe.warmup,
        "bf16": True,
        "eval_strategy": "epoch",
        "output_dir": "out",
    }
    if recipe.method == "qlora":
        settings["quantization_bit"] = 4
    note = "# template: the one that LLaMA-Factory has for your base; 'default' is its plain one\n"
    files = {
        "dataset_info.json": json.dumps(data, indent=2) + "\n",
        "llama_factory.yaml": note + _yaml(settings),
    }
    return files, "cd {folder} && llamafactory-cli train llama_factory.yaml"


def _unsloth(base: str, recipe: CausalRecipe) -> tuple[Files, str]:
    """Write a script; trl leaves what is in `prompt` out of the loss."""
    script = f'''"""Fine-tune {base} with Unsloth on train.jsonl; written by tunepoint export."""

from unsloth import FastLanguageModel  # before trl and transformers, which it changes

from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

model, tokenizer = FastLanguageModel.from_pretrained(
    model_name={base!r}, max_seq_length=2048, load_in_4bit={recipe.method == "qlora"},
    full_finetuning={recipe.method == "full"},
)
if not {recipe.method == "full"}:
    model = FastLanguageModel.get_peft_model(
        model, r={recipe.rank}, lora_alpha={recipe.alpha}, lora_dropout=0, random_state=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
data = load_dataset("json", data_files={{"train": "train.jsonl", "dev": "dev.jsonl"}}).map(
    lambda row: {{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}},
    remove_columns=["messages"],
)
trainer = SFTTrainer(
    model=model, processing_class=tokenizer, train_dataset=data["train"], eval_dataset=data["dev"],
    args=SFTConfig(
        output_dir="out", num_train_epochs={recipe.epochs}, learning_rate={recipe.rate},
        per_device_train_batch_size={recipe.batch}, lr_scheduler_type="linear", eval_strategy="epoch",
        completion_only_loss=True, seed=0,
    ),
)
trainer.train()
trainer.save_model("out/adapter")
'''
    return {"unsloth_train.py": script}, "cd {folder} && python unsloth_train.py"


FORMS: Mapping[str, Form] = {
    "openai": _upload("openai", "or let [[tune]] provider do it"),
    "together": _upload("together", "or let [[tune]] provider do it"),
    "fireworks": _upload("fireworks", "as a dataset of its own API"),
    "huggingface": _dataset,
    "axolotl": _axolotl,
    "llama-factory": _llama_factory,
    "unsloth": _unsloth,
}
"""By the name on the command line."""
