"""A run: what is to be trained, in the form in which each provider takes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tunepoint.arms.hosted.providers import TuningProvider
from tunepoint.arms.hosted.rows import Row
from tunepoint.errors import ModelError

SUFFIX_CHARACTERS = 15
"""Of the name by which a job is found again: 12 of them of the fingerprint."""


@dataclass(frozen=True)
class TuningRun:
    """What is to be trained; the same run is the same job, on any machine.

    The fingerprint hashes the fields by their names: a new name would start finished jobs again.
    """

    base: str
    rows: Sequence[Row]
    validation: Sequence[Row] = ()
    epochs: int = 3
    learning_rate_multiplier: float | None = None
    seed: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, the base model, the hyperparameters and the seed."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def suffix(self) -> str:
        """What the tuned model's name ends in; it finds the job again where metadata is not taken."""
        return f"tp-{self.fingerprint}"[:SUFFIX_CHARACTERS]

    def file_name(self, part: str) -> str:
        """Return the name of the file with the `train` or the `validation` rows."""
        return f"tunepoint-{self.fingerprint[:32]}-{part}.jsonl"

    def hyperparameters(self, provider: TuningProvider) -> dict[str, Any]:
        """Return the hyperparameters of the job.

        Raises:
            ModelError: the run has a learning-rate multiplier and the provider takes none.

        """
        chosen: dict[str, Any] = {"n_epochs": self.epochs, **provider.fixed}
        if self.learning_rate_multiplier is not None:
            if "learning_rate_multiplier" not in provider.takes:
                raise ModelError(f"{provider.name} takes no learning-rate multiplier: leave it out")
            chosen["learning_rate_multiplier"] = self.learning_rate_multiplier
        return chosen

    def request(self, provider: TuningProvider, *, file: str, validation: str | None) -> dict[str, Any]:
        """Return the request for the job in the form of an OpenAI-style API.

        Args:
            provider: says where hyperparameters stand, and which fields it takes.
            file: id of the uploaded training rows.
            validation: id of the uploaded validation rows.

        Raises:
            ModelError: the run has a learning-rate multiplier and the provider takes none.

        """
        chosen = self.hyperparameters(provider)
        body: dict[str, Any] = {"model": self.base, "training_file": file, "suffix": self.suffix}
        if validation is not None:
            body["validation_file"] = validation
        if "seed" in provider.takes:
            body["seed"] = self.seed
        if "metadata" in provider.takes:
            body["metadata"] = {"tunepoint": self.fingerprint}
        if provider.settings == "method":
            return {**body, "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}}}
        if provider.settings == "hyperparameters":
            return {**body, "hyperparameters": chosen}
        return {**body, **chosen}
