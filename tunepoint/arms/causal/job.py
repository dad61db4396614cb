"""A training job: all that one run of fine-tuning needs, in this process or in others."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunepoint.arms.causal.recipe import CausalRecipe
from tunepoint.arms.causal.rows import Row

JOB_FILE = "job.json"
"""In a run's folder: the job, for the processes that a launcher starts."""


@dataclass(frozen=True)
class TrainingJob:
    """One run of supervised fine-tuning."""

    where: str
    """Directory or hub name of the base."""
    rows: tuple[Row, ...]
    """Training examples in tokens."""
    dev: tuple[Row, ...]
    """Examples whose loss stops the run early; the best checkpoint is kept. May be empty."""
    recipe: CausalRecipe
    folder: Path
    """The run's own."""
    seed: int
    """Of the order of the examples and of the adapter's first weights."""
    batch: int | None = None
    """Examples computed at once, in all processes together; the recipe's batch if None."""

    @property
    def batch_size(self) -> int:
        """Examples computed at once, in all processes together."""
        return self.batch or self.recipe.batch

    def write(self) -> Path:
        """Write the job into the run's folder; return the path of the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / JOB_FILE
        content = {
            **asdict(self),
            "recipe": self.recipe.document(),
            "folder": str(self.folder.absolute()),
            "batch": self.batch_size,
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> TrainingJob:
        """Read what `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            content["where"],
            tuple(Row(**row) for row in content["rows"]),
            tuple(Row(**row) for row in content["dev"]),
            CausalRecipe.parse(content["recipe"]),
            Path(content["folder"]),
            content["seed"],
            content["batch"],
        )
