"""The embedded facilitator over HTTP: x402's three endpoints, and what a developer wants to see besides.

    POST /verify, POST /settle     {"x402Version": 2, "paymentPayload": {…}, "paymentRequirements": {…}}
    GET  /supported                kinds, extensions, signers
    GET  /healthz                  alive, with the newest block
    GET  /wallets                  who has play money, with keys
    GET  /transfers                every signed transfer so far
    GET  /authorizations/ASSET/PAYER/NONCE    what became of one signed authorization
    POST /rpc                      read-only Ethereum JSON-RPC (headgate.devnet.rpc)

A payment that fails is an answer with status 200, as x402 has it; 400 means that no payment could be read.
Every answer carries `X-Play-Money`. Meant for loopback: it hands out private keys.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.devnet.chain import NETWORK, DevChain
from headgate.devnet.facilitator import PLAY_MONEY, EmbeddedFacilitator
from headgate.devnet.records import Transfer
from headgate.devnet.rpc import Rpc
from headgate.devnet.wallets import Wallet

MAX_BODY_BYTES = 128 * 1024
HEADERS = {"X-Play-Money": "this chain exists in one process only; its dollars are worth nothing"}

Json = dict[str, Any]


class BadRequest(Exception):
    """A body that cannot be read; answered with `status` and the message."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


def create_app(facilitator: EmbeddedFacilitator) -> Starlette:
    """The facilitator as an ASGI application. Whoever made the facilitator closes it."""
    endpoints = _Endpoints(facilitator)
    return Starlette(
        routes=[
            Route("/verify", endpoints.verify, methods=["POST"]),
            Route("/settle", endpoints.settle, methods=["POST"]),
            Route("/supported", endpoints.supported),
            Route("/healthz", endpoints.healthz),
            Route("/wallets", endpoints.wallets),
            Route("/transfers", endpoints.transfers),
            Route("/authorizations/{asset}/{payer}/{nonce}", endpoints.authorization),
            Route("/rpc", endpoints.rpc, methods=["POST"]),
        ],
        exception_handlers={BadRequest: _bad_request},
    )


def wallet_rows(wallets: tuple[Wallet, ...]) -> list[Json]:
    """Wallets as /wallets and the ready line of `headgate facilitator` write them."""
    return [{"address": wallet.address, "private_key": wallet.private_key} for wallet in wallets]


class _Endpoints:
    def __init__(self, facilitator: EmbeddedFacilitator) -> None:
        self._facilitator = facilitator
        self._chain: DevChain = facilitator.chain
        self._rpc = Rpc(self._chain)

    async def verify(self, request: Request) -> Response:
        payload, requirements = await _payment(request)
        return _answer(await self._facilitator.verify(payload, requirements))

    async def settle(self, request: Request) -> Response:
        payload, requirements = await _payment(request)
        return _answer(await self._facilitator.settle(payload, requirements))

    async def supported(self, _request: Request) -> Response:
        return _answer(await self._facilitator.supported())

    async def healthz(self, _request: Request) -> Response:
        head = await run_in_threadpool(self._chain.head)
        return _answer(
            {
                "status": "ok",
                "network": NETWORK,
                "block_number": head.number,
                "block_time": head.timestamp_s,
                "play_money": PLAY_MONEY,
            }
        )

    async def wallets(self, _request: Request) -> Response:
        def rows() -> list[Json]:
            return [
                {**row, "balance": str(self._chain.balance_of(row["address"]))}
                for row in wallet_rows(self._chain.wallets)
            ]

        wallets = await run_in_threadpool(rows)
        body = {"play_money": PLAY_MONEY, "network": NETWORK, "asset": self._chain.usdc, "wallets": wallets}
        return _answer(body)

    async def transfers(self, _request: Request) -> Response:
        return _answer({"network": NETWORK, "transfers": [_row(each) for each in self._chain.transfers()]})

    async def authorization(self, request: Request) -> Response:
        asset, payer, nonce = (request.path_params[name] for name in ("asset", "payer", "nonce"))
        try:
            found = await run_in_threadpool(self._chain.authorization, asset, payer, nonce)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        head = await run_in_threadpool(self._chain.head)
        return _answer(
            {
                "method": found.method,
                "state": found.state,
                "transfer": None if found.transfer is None else _row(found.transfer),
                "block_number": head.number,
                "block_time": head.timestamp_s,
            }
        )

    async def rpc(self, request: Request) -> Response:
        try:
            asked = await _json(request)
        except BadRequest as error:
            failure = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": str(error)}}
            return _answer(failure, error.status)
        return _answer(await run_in_threadpool(self._rpc.answer, asked))


def _row(transfer: Transfer) -> Json:
    return {**asdict(transfer), "value": str(transfer.value)}


async def _payment(request: Request) -> tuple[Json, Json]:
    body = await _json(request)
    if not isinstance(body, dict):
        raise BadRequest("the body is a JSON object with paymentPayload and paymentRequirements")
    payload, requirements = body.get("paymentPayload"), body.get("paymentRequirements")
    if not isinstance(payload, dict) or not isinstance(requirements, dict):
        raise BadRequest("paymentPayload and paymentRequirements are missing or not JSON objects")
    return payload, requirements


async def _json(request: Request) -> Any:
    """The body as JSON, at most MAX_BODY_BYTES of it, however it arrives."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes", status=413)
    except ClientDisconnect as error:
        raise BadRequest("the client went away before its body arrived") from error
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error


def _bad_request(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, BadRequest) else 400
    message = str(error)
    if request.url.path == "/verify":
        return _answer(
            {"isValid": False, "invalidReason": "invalid_payload", "invalidMessage": message}, status
        )
    if request.url.path == "/settle":
        failed = {"success": False, "errorReason": "invalid_payload", "errorMessage": message}
        return _answer({**failed, "transaction": "", "network": NETWORK}, status)
    return _answer({"error": message}, status)


def _answer(body: Any, status: int = 200) -> Response:
    return JSONResponse(body, status_code=status, headers=HEADERS)
