"""A facilitator that says yes at once, in a process of its own.

Raw asyncio over uvloop, because it must never be what the sellers wait for: `__main__` measures its ceiling
and prints it. It answers `GET /supported`, `POST /verify` and `POST /settle` as x402 v2 has them, with the
payer and amount read from the payment and a transaction hash that was never given before, and it counts
what it was asked (`GET /counts`), so that the harness can compare payments settled with answers served.
It checks nothing: what a check costs is the seller's part.

`python -m benchmarks.facilitator READY_FILE`
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.ready import announce

NETWORK = "eip155:84532"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SUPPORTED = json.dumps(
    {
        "kinds": [{"x402Version": 2, "scheme": "exact", "network": NETWORK}],
        "extensions": [],
        "signers": {"eip155:*": ["0x00000000000000000000000000000000000000fa"]},
    }
).encode()


class YesToAll:
    """What the facilitator answers, and what it has been asked."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(16)
        self.verified = 0
        self.settled = 0
        self._nonces: set[str] = set()
        self._routes: dict[bytes, Callable[[bytes], bytes]] = {
            b"GET /supported": lambda _: _SUPPORTED,
            b"GET /counts": lambda _: self.counts(),
            b"POST /verify": self.verify,
            b"POST /settle": self.settle,
        }

    def answer(self, method_and_path: bytes, body: bytes) -> bytes:
        """The whole HTTP answer to one request."""
        handle = self._routes.get(method_and_path)
        if handle is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        payload = handle(body)
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
            + payload
        )

    def verify(self, body: bytes) -> bytes:
        """`POST /verify` → `{"isValid": true, "payer"}`."""
        self.verified += 1
        return b'{"isValid":true,"payer":"%s"}' % _authorization(body)["from"].encode()

    def settle(self, body: bytes) -> bytes:
        """`POST /settle` → `{"success": true, "transaction", "network", "payer", "amount"}`."""
        authorization = _authorization(body)
        self.settled += 1
        self._nonces.add(authorization["nonce"])
        return json.dumps(
            {
                "success": True,
                "transaction": f"0x{self._run}{self.settled:032x}",
                "network": NETWORK,
                "payer": authorization["from"],
                "amount": authorization["value"],
            }
        ).encode()

    def counts(self) -> bytes:
        """What was asked so far; `payments` counts distinct nonces."""
        asked = {"verified": self.verified, "settled": self.settled, "payments": len(self._nonces)}
        return json.dumps(asked).encode()


def _authorization(body: bytes) -> dict[str, Any]:
    authorization: dict[str, Any] = json.loads(body)["paymentPayload"]["payload"]["authorization"]
    return authorization


class _Connection(asyncio.Protocol):
    """One keep-alive connection: requests in, answers out, in order."""

    def __init__(self, answers: YesToAll) -> None:
        self._answers = answers
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        while (head_end := data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(data, 0, head_end)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            request_line = data[: data.find(b"\r\n")].rpartition(b" ")[0]
            self._transport.write(self._answers.answer(request_line, data[head_end + 4 : end]))
            data = data[end:]
        self._buffer = data


async def _serve(ready: Path) -> None:
    answers = YesToAll()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers), "127.0.0.1", 0, backlog=1024)
    gc.freeze()
    announce(ready, server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
