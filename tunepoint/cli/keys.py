"""The commands about API keys of the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunepoint.cli.options import DEFAULT_STORE, JsonOption, StoreOption
from tunepoint.cli.terminal import clear_errors, print_json

if TYPE_CHECKING:
    from tunepoint.capture.keys import StoredKey


def add_to(app: typer.Typer) -> None:
    """Add these commands to an application, as a group."""
    keys = typer.Typer(help="Create, list and revoke the gateway's API keys.", no_args_is_help=True)
    keys.command()(add)
    keys.command("list")(list_keys)
    keys.command()(revoke)
    app.add_typer(keys, name="keys")


def add(
    name: Annotated[str, typer.Argument(help="Name of the key in metrics and logs.")],
    role: Annotated[list[str] | None, typer.Option(help="call, read or operate; may be repeated.")] = None,
    usd_a_month: Annotated[float | None, typer.Option(help="Spending limit, dollars a month.", min=0)] = None,
    requests_a_minute: Annotated[
        int | None, typer.Option(help="Rate limit, requests a minute.", min=1)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Create a key. It is shown once and stored as a hash."""
    with clear_errors():
        from tunepoint.capture.opening import open_store
        from tunepoint.errors import TaskError, nearest
        from tunepoint.serve.auth import ROLES, make_key

        for wanted in role or ():
            if wanted not in ROLES:
                raise TaskError(f"--role {wanted!r}: {nearest(wanted, ROLES)}")
        roles = tuple(known for known in ROLES if known in (role or ["call"]))
        with open_store(store) as opened:
            token = make_key(
                opened, name, roles, usd_a_month=usd_a_month, requests_a_minute=requests_a_minute
            )
        typer.echo(token)


def list_keys(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List keys: name, roles, limits, and what each has spent this month."""
    with clear_errors():
        from tunepoint.capture.keys import active_keys
        from tunepoint.capture.opening import open_store
        from tunepoint.capture.records import NANO
        from tunepoint.capture.spending import spending

        with open_store(store, create=False) as opened:
            keys, spent = active_keys(opened), spending(opened)
        if as_json:
            print_json([_content(key, spent.get(key.name, 0)) for key in keys])
            return
        for key in keys:
            usd, requests = key.usd_a_month, key.requests_a_minute
            money = "" if usd is None else f", ${usd:,.2f} a month"
            rate = "" if requests is None else f", {requests} requests a minute"
            so_far = f", ${spent[key.name] * NANO:,.2f} spent this month" if spent.get(key.name) else ""
            typer.echo(f"{key.name}: {' and '.join(key.roles)}{money}{rate}{so_far}")


def _content(key: StoredKey, nanousd: int) -> dict[str, object]:
    limits = {"usd_a_month": key.usd_a_month, "requests_a_minute": key.requests_a_minute}
    return {"name": key.name, "roles": key.roles, **limits, "spent_usd": nanousd / 1e9}


def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")], store: StoreOption = DEFAULT_STORE
) -> None:
    """Revoke a key. A running gateway refuses it within seconds."""
    with clear_errors():
        from tunepoint.capture.keys import revoke_key
        from tunepoint.capture.opening import open_store

        with open_store(store, create=False) as opened:
            revoke_key(opened, name)
        typer.echo(f"revoked {name}")
