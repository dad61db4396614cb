"""How a causal language model is fine-tuned: the settings, and where they come from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Method = Literal["lora", "qlora", "full"]
METHODS: tuple[Method, ...] = ("lora", "qlora", "full")
RATES: Mapping[Method, float] = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}
"""Learning rates. LoRA's best one is near ten times that of full fine-tuning, whatever the rank
("LoRA Without Regret", Thinking Machines 2025)."""


@dataclass(frozen=True)
class CausalRecipe:
    """Settings of supervised fine-tuning of a causal language model."""

    method: Method = "lora"
    rank: int = 16
    """Of the adapters, which sit on all linear layers: without those of the MLP LoRA learns less."""
    alpha: int = 32
    learning_rate: float | None = None
    """By the method if None."""
    epochs: int = 3
    batch: int = 8
    """Examples of an optimiser step; small batches cost LoRA less than large ones."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    most_steps: int = 3_000
    """Epochs are cut so that no run takes more optimiser steps than this."""
    patience: int = 1
    """Epochs without a lower loss on dev before a run stops."""
    diet: tuple[float, float, float] = (0.4, 0.3, 0.3)
    """Shares of the examples that are trained with the full, the short and no prompt: one model for all."""
    checkpoint_steps: int = 100
    """Steps between checkpoints, from which a killed run goes on."""
    log_to: tuple[str, ...] = ()
    """`tensorboard`, `mlflow`, where the user has them."""

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate if self.learning_rate is not None else RATES[self.method]

    def steps(self, examples: int) -> int:
        """Optimiser steps of a whole run."""
        an_epoch = math.ceil(examples / self.batch)
        return max(1, min(self.epochs * an_epoch, self.most_steps))

    def digest(self) -> str:
        """Tells recipes apart that give other weights."""
        content = {k: v for k, v in asdict(self).items() if k not in ("checkpoint_steps", "log_to")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
