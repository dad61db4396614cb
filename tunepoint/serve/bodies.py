"""Bodies of the endpoints besides chat: feedback, and changes of the routes."""

from __future__ import annotations

import time
from typing import Annotated, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from tunepoint.capture.records import Feedback
from tunepoint.serve.asgi import read_body as read_bytes
from tunepoint.serve.auth import Key
from tunepoint.serve.protocol import RequestError
from tunepoint.serve.routing import Router
from tunepoint.serve.settings import CanarySettings

MAX_TEXT_LENGTH = 100_000
"""Characters of a correction or a comment."""
MAX_BODY_BYTES = 2 * MAX_TEXT_LENGTH * 4
"""Both of them, at UTF-8's longest."""
Body = TypeVar("Body", bound=BaseModel)


class FeedbackBody(BaseModel):
    """The body of POST /v1/feedback."""

    model_config = ConfigDict(extra="forbid")
    request_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")]
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    thumbs: Literal["up", "down"] | None = None
    correction: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH)] | None = None
    comment: Annotated[str, Field(max_length=MAX_TEXT_LENGTH)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> FeedbackBody:
        if self.score is None and self.thumbs is None and not self.correction and not self.comment:
            raise ValueError("give score, thumbs, correction or comment")
        return self

    def feedback(self, key: Key | None) -> Feedback:
        """The feedback as the store keeps it, given now with a key."""
        return Feedback(
            request=self.request_id,
            at=time.time(),
            score=self.score,
            thumbs=None if self.thumbs is None else self.thumbs == "up",
            correction=self.correction,
            comment=self.comment,
            key=(key.name or None) if key else None,
        )


class RoutesChange(BaseModel):
    """The body of POST /v1/routes/TASK: one change."""

    model_config = ConfigDict(extra="forbid")
    promote: str | None = None
    roll_back: Literal[True] | None = None
    canary: CanarySettings | None = None
    shadow: str | None = None
    """The empty string ends it."""
    fallback: tuple[str, ...] | None = None
    why: Annotated[str, Field(max_length=1_000)] = "requested"

    @model_validator(mode="after")
    def _is_one_change(self) -> RoutesChange:
        changes = (self.promote, self.roll_back, self.canary, self.shadow, self.fallback)
        if sum(change is not None for change in changes) != 1:
            raise ValueError(
                'give exactly one of promote, roll_back, canary, shadow ("" ends it) and fallback'
            )
        return self

    def apply(self, router: Router, who: str) -> None:
        """Change the routes.

        Raises:
            RouteConflict: another process was faster.
            RouteError: the change makes no sense.
            StoreError: it could not be written.

        """
        if self.promote is not None:
            router.promote(self.promote, who, self.why)
        elif self.roll_back:
            router.roll_back(who, self.why)
        elif self.canary is not None:
            router.start_canary(self.canary.canary(), who)
        elif self.shadow is not None:
            router.set_shadow(self.shadow or None, who, self.why)
        else:
            router.set_fallback(self.fallback or (), who)


async def read_body(request: Request, model: type[Body]) -> Body:
    """Read the body as a model.

    Raises:
        RequestError: the body is too large, not JSON, or a field is wrong; names it.

    """
    body = await read_bytes(dict(request.scope["headers"]), request.receive, MAX_BODY_BYTES)
    try:
        return model.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise RequestError(400, f"{field}: {reason}" if field else reason, param=field or None) from None
