"""`headgate pay`: pay for one request as an agent would, and print one JSON object."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.opened import awaited
from headgate.cli.output import note, print_json
from headgate.cli.values import money
from headgate.model.errors import InputError

if TYPE_CHECKING:
    from headgate.x402.client import PayResult

_KEY = "HEADGATE_WALLET_KEY"


def pay(
    url: Annotated[str, typer.Argument(metavar="URL", help="What to buy, from any x402 v2 seller.")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method", "-X", metavar="METHOD", help="How to ask.", show_default="GET; POST with a body"
        ),
    ] = None,
    body: Annotated[
        str | None, typer.Option("--body", metavar="TEXT|@FILE", help="What is sent with the request.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="K:V", help="May be repeated.")
    ] = None,
    max_price: Annotated[
        str, typer.Option("--max-price", metavar="USD", help="Nothing dearer is paid for.")
    ] = "1.00",
    network: Annotated[
        str | None, typer.Option("--network", metavar="NETWORK", help="Pay there only: base, eip155:137, …")
    ] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Pay with play money from a wallet of the embedded chain.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which offer would be paid; sign nothing.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="@FILE", help="Send a `payment` again whose outcome was pending."),
    ] = None,
) -> None:
    """Buy one answer; exit 0 if it is a 2xx, else 1.

    The wallet's private key is read from HEADGATE_WALLET_KEY. A payment whose
    outcome is not known when patience ends is printed as `payment`: send the
    same one again with --resume, it is never charged twice.
    """
    result = awaited(
        _pay(
            url,
            method=method,
            body=None if body is None else _content(body, "--body"),
            headers=_headers(header or []),
            max_price_micros=money(max_price, "--max-price"),
            network=network,
            private_key=_private_key(dev=dev),
            dry_run=dry_run,
            resume=None if resume is None else _content(resume, "--resume").strip(),
        )
    )
    print_json(_shown(result))
    if not (200 <= result.status < 300 or result.outcome.value == "offered"):
        raise typer.Exit(1)


async def _pay(url: str, *, method: str | None, body: bytes | None, **given: Any) -> PayResult:
    from headgate.x402.client import SellerUnreachable
    from headgate.x402.client import pay as buy

    try:
        return await buy(url, method=method or ("GET" if body is None else "POST"), body=body, **given)
    except SellerUnreachable as error:
        note(f"headgate: {error}")
        raise typer.Exit(1) from None


def _shown(result: PayResult) -> dict[str, Any]:
    from headgate.model.money import format_usd

    shown: dict[str, Any] = {
        "status": result.status,
        "paid": result.paid,
        "outcome": result.outcome.value,
        "amount": format_usd(result.amount_micros),
        "scheme": result.scheme or None,
        "network": result.network or None,
        "pay_to": result.pay_to or None,
        "payer": result.payer or None,
        "transaction": result.transaction or None,
        "receipt": result.receipt or None,
        "reason": result.reason or None,
    }
    try:
        shown["body"] = result.body.decode("utf-8")
    except UnicodeDecodeError:
        shown["body"] = b64encode(result.body).decode()
        shown["body_encoding"] = "base64"
    if result.outcome.value == "pending" and result.payment is not None:
        shown["payment"] = result.payment.decode()
    return shown


def _private_key(*, dev: bool) -> str:
    if dev:
        from headgate.devnet.wallets import payers

        return payers(1)[0].private_key
    key = os.environ.get(_KEY, "").strip()
    if not key:
        raise InputError(
            f"{_KEY} is not set; put the wallet's private key there, or use --dev for play money"
        )
    return key


def _content(text: str, option: str) -> bytes:
    """TEXT as it is, or the content of @FILE."""
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise InputError(f"{option}: cannot read {text[1:]}: {error.strerror}; name a file") from error


def _headers(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or not text.isprintable():
            raise InputError(f"--header: {text!r} is not NAME:VALUE")
        found[name.strip()] = value.strip()
    return found
