"""`headgate pay` against a real seller, and what the seller's commands then tell of the payment."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typer.testing import CliRunner

from headgate.app import Headgate
from headgate.cli.program import app
from headgate.devnet.wallets import payers
from headgate.model.payment import State
from headgate.x402.purchase import Outcome
from tests.cli.conftest import CONFIG, Result, Run, parsed
from tests.x402.selling import Seller, Step


async def process(request: Request) -> PlainTextResponse:
    body = await request.body()
    told = request.headers.get("content-type", "") if request.url.path == "/free" else f"{len(body)} bytes"
    tag = request.headers.get("x-tag")
    return PlainTextResponse(f"{tag}, {told}" if told else f"{tag}", 200 if body else 422)


@pytest.fixture
def seller(shop: Path) -> Iterator[str]:
    """The address of an application behind Headgate, with the embedded facilitator."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes early waits
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        (shop / "headgate.toml").write_text(CONFIG.replace("https://api.example.com", url))
        gate = Headgate.from_file("headgate.toml")
        served = Starlette(
            routes=[Route("/v1/documents/process", process, methods=["POST"]), Route("/free", process)]
        )
        served.add_middleware(gate.middleware)  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(served, log_level="warning", lifespan="on"))
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
    assert (bought["status"], bought["paid"], bought["body"]) == (200, True, "blue, 4 bytes")
    assert (bought["amount"], bought["scheme"], bought["network"]) == ("0.100000", "exact", "eip155:84532")
    assert bought["receipt"].startswith(seller)
    assert bought["payer"] == offered["payer"] == payers(1)[0].address
    assert list(bought) == members_in_the_readme()

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


def test_what_is_not_for_sale_is_not_paid_for(headgate: Run, seller: str) -> None:
    result = parsed(headgate("pay", f"{seller}/free", "--dev", code=1))
    assert (result["status"], result["paid"], result["outcome"], result["amount"]) == (
        422,
        False,
        "answered",
        "0.000000",
    )
    assert result["reason"] == "status 422"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("http://127.0.0.1:9/",), 1, "nothing was signed"),
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
        (("http://127.0.0.1:9/", "--dev", "-X", "G ET"), 2, "'G ET' is no method"),
        (("http://127.0.0.1:9/", "--dev", "-H", "X Y: 1"), 2, "'X Y' is no header name"),
        (("http://127.0.0.1:9/", "--dev", "-H", "X: 1\r\nY: 2"), 2, "the header X has control characters"),
        (("http://127.0.0.1:9/", "--dev", "-H", "payment-signature: x"), 2, "is the protocol's own"),
        (("http://127.0.0.1:9/", "--dev", "-H", "Content-Length: 1"), 2, "is the protocol's own"),
        (("http://127.0.0.1:9/", "--dev", "--network", "moon"), 2, "'moon' is no network"),
        (("http://127.0.0.1:9/", "--resume", "{}"), 2, "has no `payment`"),
        (("http://127.0.0.1:9/", "--resume", "@none"), 2, "--resume: cannot read none"),
    ],
)
def test_what_is_refused(headgate: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in headgate("pay", *arguments, code=code).stderr


def members_in_the_readme() -> list[str]:
    """Of what `headgate pay` prints there."""
    console = (Path(__file__).parents[2] / "README.md").read_text("utf-8").partition("$ headgate pay ")[2]
    return list(json.loads("{" + console.partition("\n{")[2].partition("\n}")[0] + "}"))


def test_without_a_key_is_shown_what_would_be_paid(headgate: Run, seller: str) -> None:
    target = ("pay", f"{seller}/v1/documents/process", "-X", "POST")
    offered = parsed(headgate(*target, "--dry-run"))
    assert (offered["outcome"], offered["amount"], offered["payer"]) == ("offered", "0.100000", None)
    assert parsed(headgate(*target, "--max-price", "0", code=1))["outcome"] == "too_expensive"
    assert "HEADGATE_WALLET_KEY is not set" in headgate(*target, code=2).stderr
    assert parsed(headgate("pay", f"{seller}/free", "--body", "x", "-X", "GET"))["outcome"] == "free"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ('{"a": 1}', (), "application/json"),
        ("[1]", (), "application/json"),
        ('{"a": 1}', ("-H", "content-type: text/plain"), "text/plain"),
        ("a document", (), "application/octet-stream"),
    ],
)
def test_a_body_that_is_json_says_so(
    headgate: Run, seller: str, body: str, headers: tuple[str, ...], expected: str
) -> None:
    told = parsed(headgate("pay", f"{seller}/free", "-X", "GET", "--body", body, "-H", "x-tag: y", *headers))
    assert told["body"].endswith(f"y, {expected}")


# --- stopped, and sent again ---


async def started(url: str, *given: str, stderr: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headgate",
        "pay",
        url,
        "--dev",
        *given,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


def hanging(arrived: asyncio.Event) -> Step:
    async def hang(_request: web.Request) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    return hang  # type: ignore[return-value]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_who_is_stopped_after_paying_leaves_the_payment(number: signal.Signals) -> None:
    scripted, arrived = Seller(), asyncio.Event()
    async with scripted.server:
        scripted.script.append(hanging(arrived))
        process = await started(scripted.url)
        await asyncio.wait_for(arrived.wait(), 60)
        process.send_signal(number)
        out, err = await process.communicate()
    pending = json.loads(out)
    assert (process.returncode, err) == (1, b"")
    assert (pending["outcome"], pending["paid"], pending["amount"]) == ("pending", False, "0.100000")
    assert pending["payment"].encode() == scripted.payments[0]


async def test_a_payment_is_sent_again(headgate: Run, shop: Path) -> None:
    async def run(*arguments: str, code: int = 0) -> Result:
        return await asyncio.to_thread(headgate, "pay", *arguments, code=code)

    scripted = Seller()
    async with scripted.server:
        scripted.script.append(lambda _: web.Response(status=503, headers={"Retry-After": "3600"}))
        pending = await run(scripted.url, "--dev", code=1)
        (shop / "pending.json").write_text(pending.stdout)
        (shop / "payment").write_text(parsed(pending)["payment"] + "\n")

        offered = parsed(await run(scripted.url, "--resume", "@payment", "--dry-run"))
        assert (offered["outcome"], offered["amount"], "payment" in offered) == ("offered", "0.100000", False)
        dear = parsed(await run(scripted.url, "--resume", "@payment", "--max-price", "0.09", code=1))
        assert dear["outcome"] == "too_expensive"
        elsewhere = await run("http://127.0.0.1:9/", "--resume", "@payment", code=2)
        assert "no other origin" in elsewhere.stderr
        assert len(scripted.requests) == 2

        for kept in ("@pending.json", "@payment"):
            assert parsed(await run(scripted.url, "--resume", kept))["outcome"] == "paid"
    assert len(scripted.payments) == 3
    assert len(set(scripted.payments)) == 1


async def test_who_is_stopped_before_paying_has_paid_nothing() -> None:
    scripted, arrived = Seller(), asyncio.Event()
    async with scripted.server:
        scripted.unpaid = hanging(arrived)
        process = await started(scripted.url)
        await asyncio.wait_for(arrived.wait(), 60)
        process.terminate()
        out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err == b"headgate: stopped; no payment was sent\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
async def test_on_a_terminal_it_says_that_it_waits() -> None:
    import pty

    scripted, arrived = Seller(), asyncio.Event()
    shown, terminal = pty.openpty()
    try:
        async with scripted.server:
            scripted.script.append(hanging(arrived))
            process = await started(scripted.url, stderr=terminal)
            await asyncio.wait_for(arrived.wait(), 60)
            told = os.read(shown, 1000)
            process.terminate()
            out, _ = await process.communicate()
    finally:
        os.close(shown)
        os.close(terminal)
    assert told.startswith(b"headgate: a payment of 0.100000 USD was sent; waiting")
    assert json.loads(out)["outcome"] == "pending"


async def test_paid_and_not_served_leaves_the_payment(headgate: Run) -> None:
    scripted = Seller()
    async with scripted.server:
        scripted.script.append(
            lambda request: web.Response(status=422, headers=scripted.serve(request).headers)
        )
        told = parsed(await asyncio.to_thread(headgate, "pay", scripted.url, "--dev", code=1))
    assert (told["outcome"], told["paid"], told["status"]) == ("paid_unserved", True, 422)
    assert told["payment"].encode() == scripted.payments[0]


def test_a_fault_after_paying_keeps_its_traceback_and_the_payment(
    seller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("headgate.x402.paid_answers.pause_ms", fault)
    buy = ["pay", f"{seller}/v1/documents/process", "--dev", "--body", "x"]
    result = CliRunner().invoke(app, buy, prog_name="headgate")
    assert isinstance(result.exception, ZeroDivisionError)
    assert json.loads(result.stdout)["payment"]


def test_every_outcome_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "payments.md").read_text("utf-8").partition("## Buying")[2]
    page = page.partition("| member |")[0]
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(Outcome)


def test_a_broken_key_is_never_repeated(headgate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_WALLET_KEY", "0xsecret")
    result = headgate("pay", "http://127.0.0.1:9/", code=2)
    assert "private key" in result.stderr
    assert "secret" not in result.output
