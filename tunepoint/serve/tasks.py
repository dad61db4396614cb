"""A task as it serves: its arms, its routes, and the canary that runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunepoint.models.chat import Prompt
from tunepoint.serve.backends import ServedArm
from tunepoint.serve.canary_monitor import CanaryMonitor
from tunepoint.serve.routing import Router


@dataclass
class ServedTask:
    """One task as it serves."""

    arms: dict[str, ServedArm]
    timeouts: Mapping[str, float]
    """Arm -> seconds that its answer may take."""
    router: Router
    template: Prompt | None
    """How answers are parsed; None where the settings name no study and so no kind of answer."""
    monitor: CanaryMonitor
