"""An unknown payment that neither its facilitator nor a chain tells about is resolved by its seller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from headgate.cli.program import app as cli
from headgate.model.calendar import AccountingCalendar
from headgate.service.reopen import reopen_payment
from headgate.service.verify import verify
from tests.web.shop import ORIGIN, Row, Shop, client_of, config_text, opened_shop, paid, problem_of, unpacked
from tests.x402.buyer import PAYER
from tests.x402.scripted import refusing, settle_and_lose

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
USED = refusing("invalid_exact_evm_nonce_already_used")
TX = "0x" + "7" * 64
HOUR = 3_600_000_000


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened_shop(tmp_path) as opened:
        (tmp_path / "headgate.toml").write_text(config_text(store=str(tmp_path / "headgate.db")))
        yield opened


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shop.app, "asgi") as opened:
        yield opened


async def unknown(shop: Shop, client: httpx.AsyncClient) -> tuple[dict[str, str], str]:
    """A payment whose facilitator settled it, and forgot by what."""
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.extend([settle_and_lose, *[USED] * 1000])
    assert problem_of(await client.get("/v1/doc", headers=payment)) == "payment_pending"
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    return payment, f"pay_{identifier.hex()}"


async def resolve(folder: Path, *given: str) -> Any:
    command = ["payments", "resolve", *given, "-c", str(folder / "headgate.toml")]
    return await asyncio.to_thread(CliRunner().invoke, cli, command)


async def test_paid_by_a_transaction(shop: Shop, client: httpx.AsyncClient, tmp_path: Path) -> None:
    payment, name = await unknown(shop, client)
    done = await resolve(tmp_path, name, "--tx", TX, "--reason", "seen in the explorer", "--format", "json")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert (shown["state"], shown["transaction"], shown["charged_amount"]) == ("settled", TX, "0.100000")
    assert shown["timeline"][-1]["note"] == "by hand: seen in the explorer"
    assert await shop.ledger() == [SOLD]
    answer = await client.get("/v1/doc", headers=payment)  # kept since the work was done
    assert (answer.status_code, answer.json()["call"]) == (200, 1)
    assert (await resolve(tmp_path, name, "--tx", TX, "--reason", "twice")).exit_code != 0
    assert await shop.ledger() == [SOLD]
    assert shop.gate.store is not None
    assert (await verify(shop.gate.store.driver, calendar=AccountingCalendar("UTC"))).differences == ()


async def test_paid_long_ago_is_served_again(shop: Shop, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """The answer that was kept is gone: who has paid is served once more."""
    payment, name = await unknown(shop, client)
    async with shop.gate.store.driver.write() as tx:  # type: ignore[union-attr]
        await tx.run("answer_forget", ((await shop.sql("SELECT id FROM payments"))[0][0],))
    assert (await resolve(tmp_path, name, "--tx", TX, "--reason", "seen in the explorer")).exit_code == 0
    assert (await client.get("/v1/doc", headers=payment)).json()["call"] == 2
    assert await shop.ledger() == [SOLD]


async def test_unpaid(shop: Shop, client: httpx.AsyncClient, tmp_path: Path) -> None:
    payment, name = await unknown(shop, client)
    assert (await resolve(tmp_path, name, "--unpaid", "--reason", "canceled by its payer")).exit_code == 0
    assert (await shop.payments(), await shop.ledger()) == (["failed"], [])
    assert (await client.get("/v1/doc", headers=payment)).status_code == 402
    assert (await resolve(tmp_path, name, "--tx", TX, "--reason", "it came after all")).exit_code == 0
    assert (await shop.payments(), await shop.ledger()) == (["settled"], [SOLD])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tx", TX, "--reason", " "], "say how you know"),
        (["--tx", TX, "--unpaid", "--reason", "both"], "either --tx"),
        (["--reason", "neither"], "either --tx"),
        (["--tx", "0x12", "--reason", "short"], "transaction"),
    ],
)
async def test_what_is_not_said_well(
    given: list[str], said: str, shop: Shop, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    _, name = await unknown(shop, client)
    refused = await resolve(tmp_path, name, *given)
    assert refused.exit_code != 0
    assert said in refused.output + str(refused.exception)
    assert (await shop.payments(), await shop.ledger()) == (["unknown"], [])


async def test_what_is_not_open_to_it(shop: Shop, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """A settled payment stays settled, whatever is said."""
    await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    refused = await resolve(tmp_path, f"pay_{identifier.hex()}", "--unpaid", "--reason", "wishful")
    assert "is settled" in refused.output + str(refused.exception)
    assert await shop.payments() == ["settled"]
    missing = await resolve(tmp_path, "pay_" + "0" * 32, "--unpaid", "--reason", "no such thing")
    assert "there is no payment" in missing.output + str(missing.exception)


# --- what the payer may read of it ----------------------------------------------------------------

WORDS = ["Mr Meyer insisted", "no_money_back"]
"""What operators write: some of it looks like the protocol's own reasons."""


async def page(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    """The receipt of the only payment, at the address that its payer is given."""
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    found = await client.get(shop.gate.payer.receipts.url(identifier).removeprefix(ORIGIN))
    assert found.status_code == 200
    return found


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("how", ["paid", "unpaid", "reopened", "voided"])
async def test_a_receipt_never_shows_what_operators_wrote(
    how: str, words: str, shop: Shop, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The timeline tells its states; why the seller, or its application, decided so is for the seller."""
    if how == "voided":
        payment = paid(await client.get("/v1/doc"))
        assert (await client.get("/v1/doc", params={"void": words}, headers=payment)).status_code == 200
    elif how == "reopened":
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
        ((identifier,),) = await shop.sql("SELECT id FROM payments")
        assert shop.gate.store is not None
        driver = shop.gate.store.driver
        await reopen_payment(driver, f"pay_{identifier.hex()}", words, now_us=shop.clock())
    else:
        _, name = await unknown(shop, client)
        said = ["--unpaid"] if how == "unpaid" else ["--tx", TX]
        assert (await resolve(tmp_path, name, *said, "--reason", words)).exit_code == 0
    assert any(words in (note or "") for (note,) in await shop.sql("SELECT note FROM payment_steps"))
    receipt = await page(shop, client)
    assert words not in receipt.text
    states = {"paid": "settled", "unpaid": "failed", "reopened": "reopened", "voided": "released"}
    assert receipt.json()["state"] == receipt.json()["timeline"][-1]["state"] == states[how]
    assert receipt.json()["timeline"][-1]["note"] is None


@pytest.mark.parametrize("words", WORDS)
async def test_nor_does_the_answer_to_a_payment_that_was_given_up(
    words: str, shop: Shop, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    payment, name = await unknown(shop, client)
    assert (await resolve(tmp_path, name, "--unpaid", "--reason", words)).exit_code == 0
    refused = await client.get("/v1/doc", headers=payment)
    assert (refused.status_code, refused.json()["error"]) == (402, "settlement_failed")
    assert words not in json.dumps([refused.json(), unpacked(refused.headers["payment-required"])])


async def test_a_receipt_tells_the_protocols_own_reason(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.facilitator.script.settle.append(refusing("insufficient_funds"))
    assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 402
    receipt = (await page(shop, client)).json()
    assert (receipt["reason"], receipt["timeline"][-1]["note"]) == ("insufficient_funds",) * 2
