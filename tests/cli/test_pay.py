"""`headgate pay` against a real seller, and what the seller's commands then tell of the payment."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate.app import Headgate
from headgate.model.payment import State
from tests.cli.conftest import CONFIG, Run, parsed


async def process(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(f"{len(body)} bytes, {request.headers.get('x-tag')}", 200 if body else 422)


@pytest.fixture
def seller(shop: Path) -> Iterator[str]:
    """The address of an application behind Headgate, with the embedded facilitator."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes early waits
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        (shop / "headgate.toml").write_text(CONFIG.replace("https://api.example.com", url))
        gate = Headgate.from_file("headgate.toml")
        app = Starlette(
            routes=[Route("/v1/documents/process", process, methods=["POST"]), Route("/free", process)]
        )
        app.add_middleware(gate.middleware)  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield url
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def test_a_purchase_and_its_trace(headgate: Run, seller: str, shop: Path) -> None:
    (shop / "body.txt").write_text("four")
    target = f"{seller}/v1/documents/process"
    buy = ("pay", target, "--dev", "--body", "@body.txt", "-H", "X-Tag: blue")

    offered = parsed(headgate(*buy, "--dry-run"))
    assert (offered["status"], offered["paid"], offered["amount"]) == (402, False, "0.100000")
    too_dear = parsed(headgate(*buy, "--max-price", "0.09", code=1))
    assert (too_dear["outcome"], too_dear["paid"], too_dear["transaction"]) == ("too_expensive", False, None)

    bought = parsed(headgate(*buy))
    assert (bought["status"], bought["paid"], bought["body"]) == (200, True, "4 bytes, blue")
    assert (bought["amount"], bought["scheme"], bought["network"]) == ("0.100000", "exact", "eip155:84532")
    assert bought["receipt"].startswith(seller)
    assert "payment" not in bought

    unserved = parsed(headgate("pay", target, "--dev", "--method", "POST", code=1))
    assert (unserved["status"], unserved["paid"]) == (422, False)

    [settled] = parsed(headgate("payments", "list", "--state", "settled", "--format", "json"))
    assert settled["transaction"] == bought["transaction"]
    assert settled["payer"] == bought["payer"].lower()
    for how, what in (
        ("--tx", bought["transaction"]),
        ("--payer", bought["payer"]),
        ("--request", settled["request_id"]),
    ):
        found = parsed(headgate("payments", "find", how, what, "--format", "json"))
        assert settled["payment_id"] in [one["payment_id"] for one in found], how
    shown = headgate("payments", "show", settled["payment_id"]).stdout
    assert "0.100000 USD (1 × 0.100000)" in shown
    assert [word for word in ("claimed", "verified", "settled") if word not in shown] == []
    assert "timeline" not in settled  # a list has none; one payment has
    assert parsed(headgate("payments", "show", settled["payment_id"], "--format", "json"))["timeline"]
    head, *rows = headgate("payments", "list").stdout.splitlines()
    assert head.split()[:4] == ["payment", "state", "action", "payer"]
    (row,) = [row for row in rows if settled["payment_id"] in row]
    assert settled["payer"] in row
    assert settled["action"] in row

    explained = headgate("explain", settled["event_id"]).stdout
    assert settled["payment_id"] in explained
    assert "wallet:x402" in explained
    assert (
        headgate("report", "--format", "csv", "--by", "channel")
        .stdout.splitlines()[1]
        .endswith("x402,1,1,0.100000,0.100000,0.000000,0.000000,0.100000,0.100000")
    )
    assert parsed(headgate("status", "--format", "json"))["open_payments"] == 0
    assert headgate("verify").stdout.startswith("ledger verified: 1 event ")


def test_finding_says_what_it_needs(headgate: Run) -> None:
    for options in ([], ["--tx", "0x" + "1" * 64, "--request", "r"]):
        said = headgate("payments", "find", *options, code=2).stderr
        assert "--tx 0x…, --payer 0x… or --request ID" in said


def test_every_state_is_named_where_one_is_asked_for(headgate: Run) -> None:
    words = re.findall(r"[a-z]+", headgate("payments", "list", "-h").stdout)
    assert {state.name.lower() for state in State} <= set(words)


def test_what_is_free_is_not_paid_for(headgate: Run, seller: str) -> None:
    result = parsed(headgate("pay", f"{seller}/free", "--dev", code=1))
    assert (result["status"], result["paid"], result["outcome"], result["amount"]) == (
        422,
        False,
        "free",
        "0.000000",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("http://127.0.0.1:9/",), 2, "HEADGATE_WALLET_KEY is not set"),
        (("http://127.0.0.1:9/", "--dev"), 1, "nothing was signed"),
        (("ftp://x/", "--dev"), 2, "no http or https URL"),
        (
            ("http://127.0.0.1:9/", "--dev", "--max-price", "cheap"),
            2,
            "--max-price: 'cheap' is not an amount",
        ),
        (
            ("http://127.0.0.1:9/", "--dev", "--header", "nonsense"),
            2,
            "--header: 'nonsense' is not NAME:VALUE",
        ),
        (("http://127.0.0.1:9/", "--dev", "--body", "@none"), 2, "--body: cannot read none"),
    ],
)
def test_what_is_refused(headgate: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in headgate("pay", *arguments, code=code).stderr


def test_a_broken_key_is_never_repeated(headgate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_WALLET_KEY", "0xsecret")
    result = headgate("pay", "http://127.0.0.1:9/", code=2)
    assert "private key" in result.stderr
    assert "secret" not in result.output
