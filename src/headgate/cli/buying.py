"""`headgate pay`: pay for one request as an agent would, and print one JSON object."""

from __future__ import annotations

import json
import os
import signal
import sys
from base64 import b64encode
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.opened import awaited
from headgate.cli.output import note, print_json
from headgate.cli.values import money
from headgate.model.errors import InputError

if TYPE_CHECKING:
    from headgate.x402.purchase import PayResult

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
        bool, typer.Option("--dry-run", help="Show which offer would be paid; sign and send no payment.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", metavar="@FILE", help="Send a payment again: its `payment`, or all that was printed."
        ),
    ] = None,
) -> None:
    """Buy one answer; exit 0 if it is a 2xx, else 1.

    The wallet's private key is read from HEADGATE_WALLET_KEY when something
    is to be signed. A payment whose outcome is not known, because patience
    (120 s) ended or the command was stopped, is printed as `payment`: send
    the same one again with --resume, it is never charged twice.
    """
    content = None if body is None else _content(body, "--body")
    result = _bought(
        url,
        method=method or ("GET" if content is None else "POST"),
        body=content,
        headers=_headers(header or [], content),
        max_price_micros=money(max_price, "--max-price"),
        network=network,
        private_key=_private_key(dev=dev),
        dry_run=dry_run,
        resume=None if resume is None else _content(resume, "--resume"),
    )
    print_json(_shown(result))
    if not (result.served or result.outcome.value == "offered"):
        raise typer.Exit(1)


def _bought(url: str, **given: Any) -> PayResult:
    """What came of it. Whoever stops this after a payment was signed still gets that payment."""
    from asyncio import CancelledError

    from headgate.x402.client import KeyNeeded, SellerUnreachable
    from headgate.x402.client import pay as buy

    sent: list[PayResult] = []

    def keep(pending: PayResult) -> None:
        sent.append(pending)
        _tell_of_waiting(pending)

    try:
        return awaited(_until_stopped(buy(url, on_signed=keep, **given)))
    except SellerUnreachable as error:
        note(f"headgate: {error}")
        raise typer.Exit(1) from None
    except KeyNeeded:
        raise InputError(
            f"{_KEY} is not set; put the wallet's private key there, or use --dev for play money"
        ) from None
    except (KeyboardInterrupt, CancelledError):
        if sent:
            return sent[0]
        note("headgate: stopped; no payment was sent")
        raise typer.Exit(1) from None
    except Exception:
        if sent:  # a fault keeps its traceback, and the payment is not lost with it
            print_json(_shown(sent[0]))
        raise


async def _until_stopped(work: Coroutine[Any, Any, PayResult]) -> PayResult:
    with _cancelled_by_signals():
        return await work


@contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless it is ignored (nohup), cancel this task as Ctrl-C does."""
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    names = [each for each in ("SIGTERM", "SIGHUP") if hasattr(signal, each)]
    heard = []
    for number in (signal.Signals[name] for name in names):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            loop.add_signal_handler(number, task.cancel)
        except (NotImplementedError, RuntimeError, ValueError):  # on Windows, and outside the main thread
            continue
        heard.append(number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _tell_of_waiting(pending: PayResult) -> None:
    from headgate.model.money import format_usd

    if sys.stderr.isatty():
        amount = format_usd(pending.amount_micros)
        note(
            f"headgate: a payment of {amount} USD was sent; waiting for the answer, at most about 120 s. "
            "Ctrl-C prints the payment, to be sent again with --resume."
        )


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
    if result.worth_resuming and result.payment is not None:
        shown["payment"] = result.payment.decode()
    return shown


def _private_key(*, dev: bool) -> str | None:
    if dev:
        from headgate.devnet.wallets import payers

        return payers(1)[0].private_key
    return os.environ.get(_KEY, "").strip() or None


def _content(text: str, option: str) -> bytes:
    """TEXT as it is, or the content of @FILE."""
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise InputError(f"{option}: cannot read {text[1:]}: {error.strerror}; name a file") from error


def _headers(texts: list[str], body: bytes | None) -> dict[str, str]:
    """The headers as given; a body that is JSON says so, unless they say what it is."""
    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise InputError(f"--header: {text!r} is not NAME:VALUE")
        found[name.strip(" \t")] = value.strip(" \t")
    if body is not None and "content-type" not in map(str.lower, found) and _is_json(body):
        found["Content-Type"] = "application/json"
    return found


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
