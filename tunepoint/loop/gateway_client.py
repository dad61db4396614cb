"""The loop's side of the gateway's HTTP API."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.loop.state import LoopError
from tunepoint.serve.settings import DEFAULT_PORT

TIMEOUT_SECONDS = 120.0
"""Of a request: a reload fits a study's arms before it answers."""


@dataclass(frozen=True)
class Routes:
    """How a task is served."""

    arms: frozenset[str]
    champion: str
    has_canary: bool
    canary_decision: str | None
    """The latest decision on the canary, in words."""
    unclear: tuple[str, ...] = ()
    """Measures of the canary that a promotion still waits for, once nothing else is missing."""


@dataclass(frozen=True)
class GatewayClient:
    """Calls a gateway.

    Args:
        url: its address, without /v1.
        key: with the roles read and operate; none is needed on the gateway's own machine.
        settings: the serve.toml that it should be started with, for the advice in errors.

    """

    url: str
    key: str | None
    settings: Path

    @property
    def port(self) -> int:
        """The port in the address; the gateway's default if there is none."""
        port = self.url.rpartition(":")[2]
        return int(port) if port.isdigit() else DEFAULT_PORT

    def is_running(self) -> bool:
        """Whether a gateway answers."""
        return self._request("GET", "/healthz") is not None

    def routes(self, task: str) -> Routes:
        """Return how a task is served."""
        content = self._call("GET", _routes_path(task))
        policy, canary = content["policy"], content["canary"] or {}
        return Routes(
            arms=frozenset(content["arms"]),
            champion=policy["champion"],
            has_canary=policy["canary"] is not None,
            canary_decision=canary.get("why"),
            unclear=tuple(canary.get("unclear", ())),
        )

    def start_canary(self, task: str, settings: Mapping[str, Any]) -> None:
        """Start a canary; the settings are those of [tasks.canary] in serve.toml."""
        self._call("POST", _routes_path(task), {"canary": dict(settings)})

    def promote(self, task: str, arm: str, why: str) -> None:
        """Make an arm the champion."""
        self._call("POST", _routes_path(task), {"promote": arm, "why": why})

    def roll_back(self, task: str, why: str) -> None:
        """End the canary; the champion answers everybody."""
        self._call("POST", _routes_path(task), {"roll_back": True, "why": why})

    def reload(self) -> None:
        """Let the gateway read serve.toml again."""
        self._call("POST", "/v1/reload", {})

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        content = self._request(method, path, body)
        if content is None:
            raise LoopError(
                f"no gateway answers at {self.url}: start it with `tunepoint serve {self.settings}` and run "
                "the loop again; it resumes where it is"
            )
        return content

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return the gateway's answer; None if nobody answers.

        Raises:
            LoopError: the gateway rejects the request, or something else answers at its address.

        """
        headers = {"content-type": "application/json"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
                content: dict[str, Any] = json.load(reply)
                return content
        except urllib.error.HTTPError as error:  # before OSError, of which it is one
            reason = ""
            with error, contextlib.suppress(ValueError, AttributeError):
                reason = json.loads(error.read()).get("error", {}).get("message", "")
            raise LoopError(f"the gateway rejected {method} {path} (HTTP {error.code}): {reason}") from None
        except OSError:
            return None
        except (ValueError, http.client.HTTPException):
            raise LoopError(f"{self.url}: not a Tunepoint gateway; check --gateway") from None


def _routes_path(task: str) -> str:
    return f"/v1/routes/{urllib.parse.quote(task)}"
