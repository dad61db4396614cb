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

    def take_over(self, previous: ServedTask) -> None:
        """Keep the routes and the canary's outcomes of the same task from before a reload.

        They hold unless serve.toml gives other routes now, or one of their arms no longer serves.
        """
        routes = previous.router.policy
        if routes.arms() <= set(self.arms) and previous.router.settings == self.router.settings:
            self.router.policy = routes
            self.monitor = previous.monitor
            self.monitor.router = self.router
