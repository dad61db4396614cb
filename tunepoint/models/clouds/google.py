"""Google Cloud: its project and region, its credentials, and the faults of its clients in our form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import google.auth
from google.auth.exceptions import GoogleAuthError, TransportError
from google.genai import Client, types
from google.genai.errors import APIError
from google.oauth2.credentials import Credentials

from tunepoint.errors import ModelError
from tunepoint.models.clouds.errors import CloudConnectionError, CloudError, CloudTimeout, refusal
from tunepoint.models.clouds.regions import google_place

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class GoogleCloud:
    """A project in a region, and what opens it."""

    project: str
    location: str
    credentials: Any

    @classmethod
    def from_environment(cls, name: str, token: str | None) -> GoogleCloud:
        """Return the project and the region that the environment names.

        Args:
            name: what needs them, for the message.
            token: an access token; the machine's own credentials if None.

        Raises:
            ModelError: no project, region or credentials.

        """
        project, location = google_place(name)
        if token is not None:
            return cls(project, location, Credentials(token=token))  # type: ignore[no-untyped-call]
        try:
            credentials, _ = google.auth.default(scopes=[SCOPE])
        except GoogleAuthError as error:
            raise ModelError(
                f"{name}: no credentials of Google Cloud ({error}); set VERTEX_ACCESS_TOKEN, or run "
                "gcloud auth application-default login"
            ) from None
        return cls(project, location, credentials)

    def open(self, timeout: float) -> Client:
        """Return Google's client, which counts no attempts; `timeout` is in seconds."""
        options = types.HttpOptions(
            timeout=round(timeout * 1_000), retry_options=types.HttpRetryOptions(attempts=1)
        )
        return Client(
            vertexai=True,
            project=self.project,
            location=self.location,
            credentials=self.credentials,
            http_options=options,
        )


@contextmanager
def faults_in_our_form() -> Iterator[None]:
    """Raise the faults of Google's clients as `CloudError`."""
    try:
        yield
    except APIError as error:
        headers: Mapping[str, str] = getattr(error.response, "headers", {})
        raise refusal(error.message or str(error), int(error.code), headers) from None
    except TransportError as error:
        raise CloudConnectionError(str(error)) from None
    except GoogleAuthError as error:
        raise CloudError(f"no valid credentials: {error}", 401) from None
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        late = "timeout" in type(error).__name__.casefold()
        raise (CloudTimeout if late else CloudConnectionError)(str(error)) from None
