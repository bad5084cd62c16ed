"""The store fails while a payment is taken: from the intent on something may have been settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.store.operations import ClaimPayment, IntendPayment, SettlePayment
from tests.web.shop import Row, client_of, failing, opened_shop, paid, problem_of, until
from tests.x402.buyer import PAYER

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
FAILS: list[tuple[type[Any], str, int, list[str]]] = [
    # (what cannot be written, the answer, how often the work is done, what the facilitator is asked)
    (ClaimPayment, "store_unavailable", 1, []),
    (IntendPayment, "payment_pending", 2, ["verify"]),
    (SettlePayment, "payment_pending", 1, ["verify", "settle"]),
]


@pytest.mark.parametrize("row", FAILS, ids=lambda row: row[0].__name__)
async def test_the_store_fails(
    row: tuple[type[Any], str, int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says which it is, and the same payment is served in the end, and charged once."""
    operation, code, worked, asked = row
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get("/v1/doc"))
        with monkeypatch.context() as patch:
            failing(patch, shop, operation)
            answer = await client.get("/v1/doc", headers=payment)
            assert (answer.status_code, problem_of(answer)) == (503, code)
            assert answer.headers["retry-after"].isdigit()
            assert "payment-required" not in answer.headers
            assert shop.asked == asked
            assert await shop.ledger() == []

        async def served() -> bool:
            return (await client.get("/v1/doc", headers=payment)).status_code == 200

        await until(served)
        assert (shop.calls.count, await shop.ledger()) == (worked, [SOLD])
        assert len(shop.facilitator.settled) == 1
