"""What a run consists of, all of it from the seed: requests, faults by payment, kills by request number."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data

from headgate.x402.check import PERMIT2, UPTO_PROXY
from tests.devnet.paying import AUTHORIZATION_FIELDS, UPTO_PERMIT_FIELDS
from tests.torture.fakechain import ASSET, ChainFacilitator, FakeChain, permit_key
from tests.torture.sold import CEILING, DOC, PRICE, UNIT_PRICE
from tests.x402.buyer import PAY_TO, SEPOLIA, SETTLER
from tests.x402.scripted import Answer, Step, answering, drop, hang, late, lying, refusing, settle_and_lose

Json = dict[str, Any]
VALID_S = 285
KINDS = {
    "good": 20,
    "measured": 10,
    "streamed": 6,
    "prepaid": 6,
    "posted": 6,
    "copies": 8,
    "replayed": 16,
    "elsewhere": 3,
    "other body": 3,
    "unmeasured": 2,
    "seat": 7,
    "overage": 7,
    "held": 6,
    "unpaid": 6,
    "malformed": 7,
    "invalid": 3,
    "failing": 4,
    "hung up": 4,
    "canceled": 1,
    "underpaid": 1,
    "settled by others": 1,
}
"""Weights of what is asked; `sold.PLANS` are customers, all others payers."""
ON_CHAIN = frozenset({"canceled", "underpaid", "settled by others"})
"""Kinds in which somebody acts on the chain while the work is done."""


def settle_and_deny(facilitator: Any, endpoint: str, asked: Json) -> Answer:
    """Settle, and say that the nonce was used already (failure case 2)."""
    facilitator.yes(endpoint, asked)
    return refusing("invalid_exact_evm_nonce_already_used", 400)(facilitator, endpoint, asked)


def settle_and_fail(facilitator: Any, endpoint: str, asked: Json) -> Answer:
    """Settle, and say that the transaction failed: nobody waited for it (case 1)."""
    told = json.loads(facilitator.yes(endpoint, asked).body)
    return refusing("transaction_failed", transaction=told["transaction"])(facilitator, endpoint, asked)


FAULTS: dict[str, list[tuple[int, Step]]] = {
    "verify": [
        (6, drop),
        (1, hang),
        (6, answering({"error": "Traceback"}, 500)),
        (6, answering(b"<html>")),
        (8, refusing("insufficient_funds")),
        (3, late(0.6)),
    ],
    "settle": [
        (10, drop),
        (10, settle_and_lose),
        (1, hang),
        (6, answering({"error": "Traceback"}, 500)),
        (6, answering(b"")),
        (6, lying(transaction="")),
        (4, lying(network="eip155:1")),
        (4, lying(amount="1")),
        (8, refusing("insufficient_funds")),
        (10, settle_and_deny),
        (6, settle_and_fail),
        (3, refusing("transaction_failed")),
        (3, late(0.6)),
        (4, refusing("settlement_pending")),
    ],
}
"""In thousandths of the questions; each is asked with this chance three times at most for one payment."""


class FaultyFacilitator(ChainFacilitator):
    """Fails as the seed says: by payment, step and how often it was asked, whenever that is."""

    def __init__(self, chain: FakeChain, seed: int) -> None:
        super().__init__(chain)
        self.honest = ChainFacilitator(chain)
        self.faulty = True
        self.faults: Counter[str] = Counter()
        self._seed = seed
        self._times: Counter[str] = Counter()

    def yes(self, endpoint: str, asked: Json) -> Answer:
        """See ScriptedFacilitator."""
        self.asked.clear()
        self.headers.clear()
        step = self._fault(endpoint, asked)
        if step is None:
            return self.honest.yes(endpoint, asked)
        self.faults[endpoint] += 1
        return step(self.honest, endpoint, asked)

    def _fault(self, endpoint: str, asked: Json) -> Step | None:
        if not self.faulty or endpoint not in FAULTS:
            return None
        payload = asked["paymentPayload"]["payload"]
        nonce = (payload.get("authorization") or payload["permit2Authorization"])["nonce"]
        times = self._times[f"{endpoint} {nonce}"] = self._times[f"{endpoint} {nonce}"] + 1
        if times > 3:
            return None
        text = f"{self._seed} {endpoint} {nonce} {times}".encode()
        place = int.from_bytes(hashlib.sha256(text).digest()[:4], "big") % 1000
        for chance, step in FAULTS[endpoint]:
            place -= chance
            if place < 0:
                return step
        return None


@dataclass
class Payment:
    """One signed authorization, and the digests of what its payer was told. `key` names it on the chain.

    It is for one request; with a body that is a POST.
    """

    key: str
    header: str
    path: str
    query: str
    signed_s: float
    message: Json
    body: bytes | None = None
    answers: set[bytes] = field(default_factory=set)

    def forget(self) -> None:
        """It was answered and is not sent any more: what is left is what the audit needs."""
        self.header, self.message, self.body = "", {}, None


class Payers:
    """Signs payments; the same nonces for the same seed."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._accounts = [Account.from_key(chance.randbytes(32)) for _ in range(24)]

    def permit(self, path: str, query: str) -> Payment:
        """A payment of up to the ceiling (`upto`, Permit2)."""
        account, now_s = self._chance.choice(self._accounts), int(time.time())
        nonce = self._chance.getrandbits(200)
        ceiling = CEILING * UNIT_PRICE
        witness = {"to": PAY_TO, "facilitator": SETTLER, "validAfter": now_s - 60}
        message: Json = {
            "permitted": {"token": ASSET.address, "amount": ceiling},
            "spender": UPTO_PROXY,
            "nonce": nonce,
            "deadline": now_s + VALID_S,
            "witness": witness,
        }
        domain = {"name": "Permit2", "chainId": 84532, "verifyingContract": PERMIT2}
        typed = encode_typed_data(domain, UPTO_PERMIT_FIELDS, message)
        texts = {
            **message,
            "from": account.address,
            "permitted": {"token": ASSET.address, "amount": str(ceiling)},
            "nonce": str(nonce),
            "deadline": str(now_s + VALID_S),
            "witness": {**witness, "validAfter": str(now_s - 60)},
        }
        signature = "0x" + account.sign_message(typed).signature.hex().removeprefix("0x")
        payload = {"signature": signature, "permit2Authorization": texts}
        header = _header(_accepted("upto", ceiling, facilitatorAddress=SETTLER), payload)
        return Payment(permit_key(account.address, nonce), header, path, query, time.time(), texts)

    def sign(self, query: str, path: str = DOC, **changes: Any) -> Payment:
        """A payment of the price, with changes that make it invalid where wanted."""
        account = self._chance.choice(self._accounts)
        nonce = "0x" + self._chance.randbytes(32).hex()
        now_s = int(time.time())
        message = {
            "from": account.address,
            "to": PAY_TO,
            "value": PRICE,
            "validAfter": now_s - 60,
            "validBefore": now_s + VALID_S,
            "nonce": nonce,
            **changes,
        }
        domain = {"name": "USDC", "version": "2", "chainId": 84532, "verifyingContract": ASSET.address}
        typed = encode_typed_data(domain, {"TransferWithAuthorization": AUTHORIZATION_FIELDS}, message)
        signature = "0x" + account.sign_message(typed).signature.hex().removeprefix("0x")
        texts = {name: str(value) for name, value in message.items()}
        header = _header(_accepted("exact", PRICE), {"signature": signature, "authorization": texts})
        return Payment(nonce, header, path, query, time.time(), texts)


def _accepted(scheme: str, amount: int, **extra: str) -> Json:
    return {
        "scheme": scheme,
        "network": SEPOLIA,
        "amount": str(amount),
        "asset": ASSET.address,
        "payTo": PAY_TO,
        "maxTimeoutSeconds": 300,
        "extra": {"name": "USDC", "version": "2", **extra},
    }


def _header(accepted: Json, payload: Json) -> str:
    text = json.dumps({"x402Version": 2, "accepted": accepted, "payload": payload})
    return base64.b64encode(text.encode()).decode()


def malformed(chance: random.Random, good: str) -> list[str]:
    """Header values that are no payment."""
    text = base64.b64decode(good)
    return chance.choice([
        [base64.b64encode(chance.randbytes(chance.randrange(1, 400))).decode()],
        [good[: chance.randrange(1, len(good))]],
        [good, good],
        ["%%%" + good],
        [base64.b64encode(text.replace(b'"x402Version": 2', b'"x402Version": 9')).decode()],
        [base64.b64encode(text[: chance.randrange(2, len(text))]).decode()],
        [base64.b64encode(b"[" * chance.randrange(1, 5000)).decode()],
        [base64.b64encode(b'{"x402Version": 2, "payload": {"a": "' + b"x" * 20_000 + b'"}}').decode()],
        [base64.b64encode(text.replace(b"validBefore", b"validBefor\xff")).decode()],
        [base64.b64encode(text.replace(str(PRICE).encode(), b"1e5")).decode()],
    ])  # fmt: skip
