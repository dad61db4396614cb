"""What goes wrong behind the gateway, as its callers read it."""

from __future__ import annotations

import orjson

from tunepoint.serve.protocol import RequestError, sse
from tunepoint.serve.upstream import ArmFault, CallersFault


def broken(why: str) -> bytes:
    """The event that ends a stream that broke off."""
    return sse(
        {"error": {"message": f"the answer broke off: {why}", "type": "server_error", "code": "broken"}}
    )


def fault_of(error: BaseException, timeout: float) -> ArmFault:
    """What went wrong with an arm, as a fault of its."""
    if isinstance(error, ArmFault):
        return error
    if isinstance(error, TimeoutError):
        return ArmFault(f"no reply within {timeout:g} s", status=504)
    return ArmFault(f"it failed ({type(error).__name__})")


def callers_refusal(fault: CallersFault) -> RequestError:
    """What the server says of the request, in its own words where they are readable."""
    try:
        said = orjson.loads(fault.body)["error"]
        return RequestError(
            fault.status, str(said["message"])[:2_000], code=said.get("code"), param=said.get("param")
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return RequestError(fault.status, f"the server refuses the request (HTTP {fault.status})")


def nobody_answered(faults: list[ArmFault]) -> RequestError:
    """Why no arm has answered; the worst thing last."""
    status = faults[-1].status if faults else 503
    waits = [fault.wait for fault in faults if fault.wait is not None]
    whys = "; ".join(dict.fromkeys(str(fault) for fault in faults))
    kind = "rate_limit_error" if status == 429 else "server_error"
    return RequestError(
        status, f"no arm answered: {whys}", kind=kind, code="no_answer", wait=min(waits, default=None)
    )
