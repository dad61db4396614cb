"""Converts what goes wrong behind the gateway into errors that clients can read."""

from __future__ import annotations

from contextlib import suppress

from tunepoint.serve.protocol import RequestError, read_json, server_sent_event
from tunepoint.serve.upstream import ArmFault, BadRequestFault


def stream_error(reason: str) -> bytes:
    """The event that ends an interrupted stream."""
    return server_sent_event(
        {
            "error": {
                "message": f"the answer was interrupted: {reason}",
                "type": "server_error",
                "code": "broken",
            }
        }
    )


def arm_fault(error: BaseException, timeout: float) -> ArmFault:
    """Convert an exception to an ArmFault.

    Args:
        timeout: of the arm, in seconds.

    """
    if isinstance(error, ArmFault):
        return error
    if isinstance(error, TimeoutError):
        return ArmFault(f"no reply within {timeout:g} s", status=504)
    # The exception's text may quote the request or name our servers, so clients get its type only.
    return ArmFault(f"it failed ({type(error).__name__})")


def bad_request_error(fault: BadRequestFault) -> RequestError:
    """Pass on why the server calls the request wrong, in its own words where there are any."""
    code = param = None
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        error = read_json(fault.body)["error"]
        code, param = (error[key] if isinstance(error.get(key), str) else None for key in ("code", "param"))
    words = fault.words or f"the server rejected the request (HTTP {fault.status})"
    return RequestError(fault.status, words[:2_000], code=code, param=param)


def no_answer_error(faults: list[ArmFault]) -> RequestError:
    """Why no arm answered; the status is that of the last one."""
    status = faults[-1].status if faults else 503
    waits = [fault.wait for fault in faults if fault.wait is not None]
    reasons = "; ".join(dict.fromkeys(str(fault) for fault in faults))
    kind = "rate_limit_error" if status == 429 else "server_error"
    return RequestError(
        status, f"no arm answered: {reasons}", kind=kind, code="no_answer", wait=min(waits, default=None)
    )
