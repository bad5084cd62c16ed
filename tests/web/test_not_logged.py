"""Failure case 23: whoever reads the logs, however talkative, can neither pay nor call with what they say.

Every logger of the process is heard at DEBUG, tracebacks and arguments included. What must not be there is
looked for in every spelling that a careless line would leave: a header, hexadecimal digits, bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from eth_account import Account

from tests.web.shop import Shop, bearer, paid, problem_of, unpacked
from tests.x402.buyer import changed, sealed
from tests.x402.scripted import Answer, ScriptedFacilitator, Step, answering, drop, refusing

pytestmark = pytest.mark.timeout(60)


class Secrets:
    """What was sent and must not be read anywhere."""

    def __init__(self) -> None:
        self.spellings: set[str] = set()

    def payment(self, sent: dict[str, str]) -> dict[str, str]:
        """A payment header: as it is, and its signature, whole, in its two halves, and as bytes."""
        header = sent["PAYMENT-SIGNATURE"]
        digits = str(unpacked(header)["payload"]["signature"]).removeprefix("0x").lower()
        self.spellings |= {header, header.rstrip("="), digits, digits[:64], digits[64:128]}
        self.spellings.add(repr(bytes.fromhex(digits))[2:-1])
        return sent

    def key(self, key: str) -> dict[str, str]:
        """An API key, which names itself by what comes after its prefix."""
        self.spellings |= {key, key.rpartition("_")[2]}
        return bearer(key)

    def found_in(self, records: list[logging.LogRecord]) -> list[str]:
        """The lines that say one of them."""
        form = logging.Formatter("%(name)s %(message)s")
        lines = [f"{form.format(each)} {each.args!r}" for each in records]
        return [line for line in lines if any(each.lower() in line.lower() for each in self.spellings)]


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


def echoing(status: int, **said: Any) -> Step:
    """An answer that repeats the payment it was asked about, as error messages of nodes and proxies do."""

    def step(_facilitator: ScriptedFacilitator, _endpoint: str, asked: dict[str, Any]) -> Answer:
        payload = asked["paymentPayload"]["payload"]
        digits = payload["signature"].removeprefix("0x")
        halves = f"28, 0x{digits[:64]}, 0x{digits[64:128]}"
        in_words = f"reverted: args: ({payload['authorization']['nonce']}, {halves})"
        body = {**said, "message": in_words, "v": 28, "r": "0x" + digits[:64], "s": "0x" + digits[64:128]}
        return Answer(json.dumps({**body, "payload": payload}).encode(), status)

    return step


NO = {"isValid": False, "invalidReason": "insufficient_funds"}
UNPAID = {"success": False, "errorReason": "insufficient_funds"}
AT_FACILITATOR: dict[str, tuple[str, Step, int]] = {
    "it is good": ("verify", ScriptedFacilitator.yes, 200),
    "refused": ("verify", refusing("insufficient_funds"), 402),
    "refused, saying it all": ("verify", echoing(200, **NO), 402),
    "no usable answer": ("verify", echoing(500), 503),
    "the connection ends": ("verify", drop, 503),
    "refused at settlement": ("settle", refusing("insufficient_funds"), 402),
    "refused there, saying it all": ("settle", echoing(200, **UNPAID), 402),
    "no usable answer at settlement": ("settle", echoing(502), 503),
    "settled, with another payer": ("settle", echoing(200, success=True, transaction="0x" + "9" * 64), 502),
    "the connection ends at settlement": ("settle", drop, 503),
}


@pytest.mark.parametrize("case", AT_FACILITATOR)
async def test_no_payment_is_logged(
    case: str, secrets: Secrets, shop: Shop, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    step, does, status = AT_FACILITATOR[case]
    getattr(shop.facilitator.script, step).extend([does] * 2)
    payment = secrets.payment(paid(await client.get("/v1/doc")))
    assert (await client.get("/v1/doc", headers=payment)).status_code == status
    await client.get("/v1/doc", headers=payment)  # shown once more, and for something else
    await client.get("/v1/doc?page=2", headers=payment)
    await client.get("/v1/doc?raise=1", headers=secrets.payment(paid(await client.get("/v1/doc"))))
    assert caplog.records
    assert secrets.found_in(caplog.records) == []
    if case != "it is good":
        assert "headgate.facilitator" in {each.name for each in caplog.records} or "connection" in case


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "of somebody else": lambda sent: changed(sent, "payload.authorization.from", "0x" + "77" * 20),
    "of an old version": lambda sent: {**sent, "x402Version": 1},
    "at another price": lambda sent: changed(sent, "accepted.amount", "1"),
    "not whole": lambda sent: changed(sent, "payload.authorization", ...),
    "of a wallet that is a contract": lambda sent: changed(sent, "payload.signature", "0x" + "ab" * 96),
}


@pytest.mark.parametrize("case", TAMPERED)
async def test_nor_is_one_that_is_refused_here(
    case: str, secrets: Secrets, shop: Shop, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sent = TAMPERED[case](unpacked(paid(await client.get("/v1/doc"), Account.create())["PAYMENT-SIGNATURE"]))
    payment = secrets.payment({"PAYMENT-SIGNATURE": sealed(sent).decode()})
    shop.facilitator.script.verify.append(echoing(200, isValid=False, invalidReason="invalid_signature"))
    assert (await client.get("/v1/doc", headers=payment)).status_code in (400, 402)
    assert secrets.found_in(caplog.records) == []


Asking = Callable[[Shop, httpx.AsyncClient, dict[str, str]], Awaitable[httpx.Response]]


async def served(_shop: Shop, client: httpx.AsyncClient, key: dict[str, str]) -> httpx.Response:
    return await client.get("/v1/doc", headers=key)


async def failing_work(_shop: Shop, client: httpx.AsyncClient, key: dict[str, str]) -> httpx.Response:
    return await client.get("/v1/doc?raise=1", headers=key)


async def mistyped(_shop: Shop, client: httpx.AsyncClient, key: dict[str, str]) -> httpx.Response:
    return await client.get("/v1/doc", headers={"Authorization": key["Authorization"] + "x"})


async def two_that_differ(_shop: Shop, client: httpx.AsyncClient, key: dict[str, str]) -> httpx.Response:
    return await client.get("/v1/doc", headers={**key, "X-API-Key": "hg_test_another"})


async def store_away(shop: Shop, client: httpx.AsyncClient, key: dict[str, str]) -> httpx.Response:
    from headgate.model.booking import Use
    from tests.web.shop import failing

    with pytest.MonkeyPatch.context() as patch:
        failing(patch, shop, Use)
        return await client.get("/v1/doc", headers=key)


@pytest.mark.parametrize(
    ("asking", "status"),
    [(served, 200), (failing_work, 500), (mistyped, 401), (two_that_differ, 401), (store_away, 503)],
    ids=lambda given: getattr(given, "__name__", None),
)
async def test_no_api_key_is_logged(
    asking: Asking,
    status: int,
    secrets: Secrets,
    shop: Shop,
    client: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = secrets.key(await shop.customer("ada", "team", seat="ada.1"))
    answer = await asking(shop, client, key)
    assert answer.status_code == status
    if status in (401, 503):
        assert problem_of(answer)
    assert secrets.found_in(caplog.records) == []


async def test_a_key_and_a_payment_of_one_request(
    secrets: Secrets, shop: Shop, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A customer beyond its plan shows both, and its settlement fails."""
    caplog.set_level(logging.DEBUG)
    key = secrets.key(await shop.customer("ada", "agents"))
    await shop.use_up("ada", 2)
    shop.facilitator.script.settle.append(answering({"success": False, "errorReason": "No!"}))
    payment = secrets.payment(paid(await client.get("/v1/doc", headers=key)))
    answer = await client.get("/v1/doc", headers={**key, **payment})
    assert problem_of(answer) == "payment_pending"
    assert any("refused to settle" in each.getMessage() for each in caplog.records)
    assert secrets.found_in(caplog.records) == []


def test_what_would_be_found(secrets: Secrets) -> None:
    """The search sees a header, a signature's bytes, and an argument that no message shows."""
    digits = "5a01" * 32 + "1b"
    header = sealed({"payload": {"signature": "0x" + digits}}).decode()
    secrets.payment({"PAYMENT-SIGNATURE": header})
    secrets.key("hg_test_abc_0123456789")
    for said in (
        header,
        {"signature": digits.upper()},
        bytes.fromhex(digits),
        "the key hg_test_abc_0123456789",
    ):
        for form, args in ((str(said), ()), ("%.0s", (said,)), ("%s", (said,))):
            record = logging.LogRecord("x", logging.DEBUG, "", 1, form, args or None, None)
            assert secrets.found_in([record]), (said, form)
    harmless = logging.LogRecord("x", logging.DEBUG, "", 1, "payment pay_%s", ("5a01" * 8,), None)
    assert secrets.found_in([harmless]) == []
