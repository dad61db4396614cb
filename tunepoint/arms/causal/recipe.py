"""How a causal language model is fine-tuned: the settings, and where they come from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Method = Literal["lora", "qlora", "full"]
METHODS: tuple[Method, ...] = ("lora", "qlora", "full")
LEARNING_RATES: Mapping[Method, float] = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}
"""LoRA's best learning rate is near ten times that of full fine-tuning, whatever the rank
("LoRA Without Regret", Thinking Machines 2025)."""
LORA_RATE, LORA_WIDTH, LORA_POWER, MAX_LORA_RATE = 5e-4, 2_000, 0.78, 1e-3
"""LoRA's best learning rate is 5e-4 (2000 / width)^0.78 for Llama models (the same source)."""
FILE_KEYS = {"prompt_shares": "diet"}
"""Settings that files keep under another key, which stays: files on disk and names of runs depend on it."""


def learning_rate_for(method: Method, width: int) -> float:
    """Return the usual learning rate for a base model whose tokens have states of this width."""
    if method == "full":
        return LEARNING_RATES[method]
    return float(f"{min(MAX_LORA_RATE, LORA_RATE * (LORA_WIDTH / width) ** LORA_POWER):.1e}")


@dataclass(frozen=True)
class CausalRecipe:
    """Settings of supervised fine-tuning of a causal language model."""

    method: Method = "lora"
    rank: int = 16
    """Of the adapters, which sit on all linear layers: LoRA learns less without those of the MLP."""
    alpha: int = 32
    learning_rate: float | None = None
    """None for that of the method, whatever the width of the base."""
    epochs: int = 3
    batch: int = 8
    """Examples of one optimizer step; LoRA loses less with small batches than with large ones."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    most_steps: int = 3_000
    """A run takes no more optimizer steps than this, whatever the epochs."""
    patience: int = 1
    """A run stops after so many checkpoints in a row without a lower validation loss."""
    prompt_shares: tuple[float, float, float] = (0.4, 0.3, 0.3)
    """Shares of the examples that are trained with the full, the short and no prompt: one model for all."""
    checkpoint_steps: int = 100
    """Steps between checkpoints, from which a killed run resumes; never more than an epoch has."""
    log_to: tuple[str, ...] = ()
    """Experiment trackers that the user has, such as `tensorboard` or `mlflow`."""

    @property
    def rate(self) -> float:
        """The learning rate: the recipe's own, else that of the method."""
        return self.learning_rate if self.learning_rate is not None else LEARNING_RATES[self.method]

    def steps(self, examples: int) -> int:
        """Return the optimizer steps of a whole run."""
        steps_per_epoch = math.ceil(examples / self.batch)
        return max(1, min(self.epochs * steps_per_epoch, self.most_steps))

    def document(self) -> dict[str, Any]:
        """Return the settings under the keys that files keep."""
        return {FILE_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> CausalRecipe:
        """Read what `document` returned, also after a round trip through JSON."""
        attributes = {key: name for name, key in FILE_KEYS.items()}
        settings = {attributes.get(key, key): value for key, value in content.items()}
        tuples = {name: tuple(settings[name]) for name in ("prompt_shares", "log_to")}
        return cls(**{**settings, **tuples})

    def digest(self) -> str:
        """Return eight hex digits that tell apart recipes with other weights."""
        # How often a run is saved and where it is logged leaves the weights as they are.
        content = {k: v for k, v in self.document().items() if k not in ("checkpoint_steps", "log_to")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
