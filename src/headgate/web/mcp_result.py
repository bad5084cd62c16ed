"""What a priced MCP tool call answers with: `CallToolResult` objects as they go over the wire.

Offers and receipts are those of the x402 MCP transport (x402 specs, transports-v2/mcp.md): whoever must pay
gets `isError` with the `PaymentRequired` object as `structuredContent` and as text of `content[0]`; a paid
result carries the settlement under `_meta["x402/payment-response"]`. Headgate's other refusals have the same
form with the problem document that the HTTP side would answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headgate.model.catalog import Action
from headgate.service.pay import Receipt
from headgate.web.measure import Meter, measured
from headgate.web.problems import Reply
from headgate.web.usage import Usage

Result = dict[str, Any]
PAYMENT_RESPONSE = "x402/payment-response"
RECEIPT = "headgate/receipt"
_encode = msgspec.json.Encoder().encode


def refused(reply: Reply) -> Result:
    """A refusal of Headgate's own; `retry_after` (seconds) stands where HTTP has a `Retry-After`."""
    told = msgspec.json.decode(reply.body, type=dict[str, Any])
    for name, value in reply.headers:
        if name == b"retry-after":
            told["retry_after"] = int(value)
    return error_result(told)


def offered(challenge: bytes, failed: Mapping[str, Any] | None = None) -> Result:
    """The offer (a `PaymentRequired` object as JSON); `failed` is the settlement that was refused, if any."""
    told = msgspec.json.decode(challenge, type=dict[str, Any])
    if failed is not None:
        told[PAYMENT_RESPONSE] = dict(failed)
    return error_result(told)


def error_result(told: Mapping[str, Any]) -> Result:
    """One object said twice, for clients that read structured content and for those that read text."""
    text = _encode(told).decode()
    return {"content": [{"type": "text", "text": text}], "structuredContent": dict(told), "isError": True}


def with_receipt(result: Result, receipt: Receipt, url: str) -> Result:
    """A paid result with its settlement and the address of its receipt."""
    settled = msgspec.json.decode(base64.b64decode(receipt.header), type=dict[str, Any])
    meta = {**(result.get("_meta") or {}), PAYMENT_RESPONSE: settled, RECEIPT: url}
    return {**result, "_meta": meta}


def is_good(usage: Usage, result: Result) -> bool:
    """Whether a result is one that is paid for: no error, not void, and not a request for further input."""
    finished = result.get("resultType", "complete") == "complete"
    return finished and not result.get("isError") and usage.voided is None


def measured_result(action: Action, usage: Usage, result: Result) -> Meter:
    """The meter of a tool's result, to be read as of an answer with `billed_status`.

    A JSON pointer reads the structured content, or the first text where there is none; `bytes` counts the
    texts in UTF-8.
    """
    start = {"status": billed_status(action), "headers": []}
    return measured(action, usage, start, [{"body": _measured_body(action, result)}])


def billed_status(action: Action) -> int:
    """The status that stands for a result without `isError`, which is what is billed."""
    return action.bill_on[0][0]


def billable_units(action: Action, usage: Usage, result: Result) -> int | None:
    """The units a tool's result is billed for; None: nothing is, for it is an error, void or not the last."""
    if not is_good(usage, result):
        return None
    return measured_result(action, usage, result).billable(billed_status(action))


def _measured_body(action: Action, result: Result) -> bytes:
    if action.measure is None:
        return b""
    if action.measure.kind == "bytes":
        return "".join(_texts(result)).encode()
    structured = result.get("structuredContent")
    return _encode(structured) if structured is not None else "".join(_texts(result)[:1]).encode()


def _texts(result: Result) -> Sequence[str]:
    return [item.get("text", "") for item in result.get("content", ()) if item.get("type") == "text"]
