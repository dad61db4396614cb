"""The results of other evaluation tools that can be read as trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tunepoint.trials.imported import ImportedResults
from tunepoint.trials.inspect_logs import inspect_log
from tunepoint.trials.promptfoo_results import promptfoo

TrialReader = Callable[[Path, str | None], ImportedResults]
"""(a file, name of the score to use, if it is not the first or only one) -> its trials."""
TRIAL_READERS: Mapping[str, TrialReader] = {"promptfoo": promptfoo, "inspect": inspect_log}
"""By the value of the option --from of `tunepoint import`."""
