"""Serving whoever must pay for a tool call: the offer, or the payment around the tool's work.

The same cashier, storefront and kept answers as over HTTP (`headgate.web.payer`); what differs is the frame:
the payment is a JSON object under `_meta["x402/payment"]`, bound to the tool's name and its arguments.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec

from headgate.model.booking import Billed
from headgate.model.errors import PaymentError, StoreError
from headgate.model.offer import Reason, SignedPayment
from headgate.model.payment import PaymentRow, State, binding_digest
from headgate.service.admit import Admitted
from headgate.service.pay import RETRY_AFTER_S, Declined, OpenPayment, Receipt, Why, receipt_of
from headgate.store.operations import KeptAnswer
from headgate.web.again import PaidBefore
from headgate.web.answer import STORE_DOWN
from headgate.web.mcp_result import (
    Result,
    billed_status,
    is_good,
    measured_result,
    offered,
    refused,
    with_receipt,
)
from headgate.web.paid import encode_headers
from headgate.web.payer import Payer
from headgate.web.payment_replies import NO_OFFERS, PENDING, used_reply, waiting
from headgate.web.prepaid import settles_first
from headgate.web.problems import problem
from headgate.web.usage import Usage
from headgate.x402 import wire

log = logging.getLogger("headgate.web")
Run = Callable[[Usage], Awaitable[Result]]
PAYMENT = "x402/payment"
TOOL_URL = "mcp://tool/"
_MOST_BYTES = wire.HEADER_BYTES


def tool_binding(tool: str, arguments: Any) -> tuple[bytes, bytes]:
    """What a payment for a tool call is bound to: (digest of name and arguments, digest of the arguments).

    The order of members makes no difference, and no arguments are the same as an empty object.
    """
    text = json.dumps(arguments or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return binding_digest("MCP", b"tools/call " + tool.encode() + b" " + digest), digest


def read_payment(found: Any) -> SignedPayment:
    """The payment under `_meta["x402/payment"]`: an object, or JSON text of one as some clients send it.

    Raises:
        PaymentError: as `headgate.x402.wire.parse`, which applies every bound that a header has.
    """
    try:
        text = found if isinstance(found, str) else json.dumps(found, allow_nan=False, separators=(",", ":"))
        encoded = text.encode()
    except (TypeError, ValueError, RecursionError):
        raise PaymentError("invalid_payload", "it is not a JSON object") from None
    if len(encoded) > _MOST_BYTES:
        raise PaymentError(
            "payment_header_too_large",
            f"the payment has {len(encoded)} bytes; at most {_MOST_BYTES} are read",
        )
    return wire.parse(encoded)


class ToolPayer:
    """Serves a payer of a tool with what `Payer` serves payers of routes.

    A tool's result is whole before it leaves, so a declared `stream` changes nothing about it, except that a
    fixed price settles before the work, as every stream's does. `client` is the caller's address.
    """

    def __init__(self, payer: Payer, client: str | None = None) -> None:
        self._payer = payer
        self._client = client

    async def serve(self, admitted: Admitted, tool: str, arguments: Any, payment: Any, run: Run) -> Result:
        """Answer a call of a tool that must be paid; `run` is the tool's work."""
        payer, action = self._payer, admitted.action.name
        if not payer.storefront.sells(action):
            return refused(NO_OFFERS)
        if payment is None:
            return self._offer(action, tool, Reason.PAYMENT_REQUIRED)
        try:
            signed = read_payment(payment)
        except PaymentError as error:
            # The decoder speaks of the header that HTTP buyers send.
            told = str(error).replace("PAYMENT-SIGNATURE", f'_meta["{PAYMENT}"]')
            told = told.replace("the header's content", "its content").replace("the header", "it")
            return refused(problem(400, error.code, told))
        binding, digest = tool_binding(tool, arguments)
        ask = payer.ask(admitted, TOOL_URL + tool, binding, self._client)
        try:
            opened = await payer.cashier.open(
                ask, signed, payer.storefront.quotes(action), payer.storefront.priced
            )
        except StoreError as error:
            log.error("a payment could not be claimed: %s", error)
            return refused(STORE_DOWN)
        if isinstance(opened, OpenPayment) and settles_first(opened.action):
            return await self._settle_first(opened, admitted, tool, digest, run)
        if isinstance(opened, OpenPayment):
            return await self._work(opened, admitted, tool, digest, run)
        try:
            if opened.row is not None and await payer.is_due_again(opened):
                return await self._work_again(opened.row, admitted, run)
            return await self._declined(opened, action, tool)
        except StoreError as error:
            log.error("what is kept for a payment could not be read: %s", error)
            return refused(PENDING)

    async def _work(
        self, opened: OpenPayment, admitted: Admitted, tool: str, digest: bytes, run: Run
    ) -> Result:
        cashier = self._payer.cashier
        usage = Usage(admitted, "x402", opened)
        try:
            result = await run(usage)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await cashier.release(opened, State.CLAIMED, "the tool failed, or its caller gave up")
            raise
        # From here on the caller's cancelling changes nothing: the work is done and will be kept for it.
        with anyio.CancelScope(shield=True):
            result = await self._conclude(opened, usage, tool, digest, result)
        return result  # noqa: RET504  for mypy a scope may swallow what is raised in it

    async def _settle_first(
        self, opened: OpenPayment, admitted: Admitted, tool: str, digest: bytes, run: Run
    ) -> Result:
        """Settle, then do the work: a payment that is settled opens it until it was served once."""
        cashier = self._payer.cashier
        try:
            outcome = await cashier.finish(opened, Billed(1, 0), None, digest)
            if isinstance(outcome, Declined):
                return await self._declined(outcome, admitted.action.name, tool)
            row = PaymentRow._make((await cashier.ledger.driver.rows("payment_read", (opened.id,)))[0])
        except StoreError as error:
            log.error("a payment could not be settled before its work: %s", error)
            return refused(PENDING)
        return await self._work_again(row, admitted, run, "served")

    async def _work_again(
        self, row: PaymentRow, admitted: Admitted, run: Run, note: str | None = None
    ) -> Result:
        """Serve a settled payment, uncharged: its work is owed, its result is gone, or it was reopened."""
        cashier = self._payer.cashier
        assert row.authorization_json is not None
        try:
            if not await cashier.begin_again(row):
                return refused(self._payer.reply_for(Why.RUNNING))
        except StoreError as error:
            log.error("a payment could not be served again: %s", error)
            return refused(PENDING)  # it is settled: never "nothing was billed"
        usage = Usage(
            admitted, "x402", PaidBefore(row.id, wire.parse_kept(row.authorization_json), admitted.action)
        )
        try:
            result = await run(usage)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await cashier.end_again(row, None, "the tool failed, or its caller gave up")
            raise
        with anyio.CancelScope(shield=True):
            result = await self._conclude_again(row, usage, result, note)
        return result  # noqa: RET504  for mypy a scope may swallow what is raised in it

    async def _conclude_again(
        self, row: PaymentRow, usage: Usage, result: Result, note: str | None
    ) -> Result:
        cashier = self._payer.cashier
        result = with_receipt(result, receipt_of(row), self._payer.receipts.url(row.id))
        try:
            if not is_good(usage, result):
                await cashier.end_again(row, None, _why_released(result, usage))
                return result
            rows = await cashier.ledger.driver.rows("answer_read", (row.id,))
            kept_until_us = int(rows[0][3]) if rows else 0
            # What is kept for its time is not kept for longer by being asked for.
            lasting = kept_until_us if kept_until_us >= cashier.now_us() else None
            await cashier.end_again(row, self._kept(result, lasting), note)
        except StoreError as error:
            log.error("a result served again is withheld: %s", error)
            return refused(PENDING)
        return result

    async def _conclude(
        self, opened: OpenPayment, usage: Usage, tool: str, digest: bytes, result: Result
    ) -> Result:
        """The work is done: settle and hand the result out, or charge nothing."""
        cashier, action = self._payer.cashier, opened.action
        settling = False
        try:
            try:
                billed = None
                if is_good(usage, result):
                    billed = measured_result(action, usage, result).billed(billed_status(action))
                kept = None if billed is None else self._kept(result)
            except BaseException:
                await cashier.release(opened, State.CLAIMED, "the result could not be measured")
                raise
            if billed is None:
                await cashier.release(opened, State.CLAIMED, _why_released(result, usage))
                return result
            settling = True
            outcome = await cashier.finish(opened, billed, kept, digest)
        except StoreError as error:
            log.error("a paid result is withheld: %s", error)
            return refused(PENDING if settling else STORE_DOWN)
        if isinstance(outcome, Receipt):
            return with_receipt(result, outcome, self._payer.receipts.url(opened.id))
        return await self._declined(outcome, action.name, tool)

    def _kept(self, result: Result, until_us: int | None = None) -> KeptAnswer:
        cashier, body = self._payer.cashier, msgspec.json.encode(result)
        headers = encode_headers([(b"content-type", b"application/json")])
        small = len(body) <= self._payer.limits.kept_answer_bytes
        until_us = cashier.now_us() + cashier.kept_answer_us if until_us is None else until_us
        return KeptAnswer(200, headers, body if small else None, until_us)

    # --- refusals and repeats ---------------------------------------------------------------------

    def _offer(self, action: str, tool: str, reason: str, failed: PaymentRow | None = None) -> Result:
        challenge = self._payer.storefront.tool_challenge(action, TOOL_URL + tool, reason)
        if failed is None:
            return offered(challenge.body)
        refusal = {
            "success": False,
            "errorReason": str(reason),
            "transaction": "",
            "network": failed.network,
            "payer": "0x" + failed.payer.hex(),
        }
        return offered(challenge.body, refusal)

    async def _declined(self, declined: Declined, action: str, tool: str) -> Result:
        if declined.why is Why.REFUSED:
            return self._offer(action, tool, declined.code, declined.row)
        if declined.why is Why.ANSWERED and declined.row is not None:
            return await self._again(declined.row)
        reply = self._payer.reply_for(declined.why)
        if declined.retry_after_s != RETRY_AFTER_S:
            reply = waiting(reply, declined.retry_after_s)
        return refused(reply)

    async def _again(self, row: PaymentRow) -> Result:
        """The result kept for a payment that settled before."""
        url = self._payer.receipts.url(row.id)
        kept = await self._payer.kept(row.id)
        body = None if kept is None else kept[2]
        result = refused(used_reply(url)) if body is None else msgspec.json.decode(body, type=Result)
        return with_receipt(result, receipt_of(row), url)


def _why_released(result: Result, usage: Usage) -> str:
    if usage.voided is not None:
        return f"voided: {usage.voided[:200]}"
    return "not billed: the result is " + ("an error" if result.get("isError") else "not the last one")
