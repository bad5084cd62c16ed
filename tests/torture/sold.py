"""What the seller of a run sells, to whom and at what price: its configuration, and the numbers in it."""

from __future__ import annotations

from pathlib import Path

from tests.x402.buyer import PAY_TO

PRICE = 100_000
CEILING = 100
UNIT_PRICE = 1_000
DOC, WORDS, FLOW, FIRST = "/v1/doc", "/v1/words", "/v1/flow", "/v1/first"
"""A fixed price; a measured one (`upto`); a measured stream; work that is settled before it is done."""
ACTIONS = {DOC: "doc.read", WORDS: "words", FLOW: "flow", FIRST: "doc.first"}
PRICES = {DOC: PRICE, WORDS: UNIT_PRICE, FLOW: UNIT_PRICE, FIRST: PRICE}
MEASURED = frozenset({WORDS, FLOW})
PLENTY = 1_000_000_000
PLANS = {"seat": "overage", "overage": "overage", "held": "block"}
"""A customer on each, called as its plan, and what comes beyond: never reached, reached, and never served."""
HANDLED = "handled"
"""The file beside the configuration in which handlers note which customer's request they work on."""
CONFIG = """mode = "test"
[seller]
name = "Acme"
public_url = "https://api.example.com"
[store]
url = "sqlite:///{store}"
[x402]
pay_to = "{pay_to}"
network = "base-sepolia"
facilitator = "{facilitator}"
rpc_url = "{rpc}"
[actions."doc.read"]
title = "Document read"
unit = "document"
price = "0.10"
routes = ["GET /v1/doc", "POST /v1/doc"]
[actions."doc.first"]
title = "Paid first"
unit = "document"
price = "0.10"
settle = "before"
routes = ["GET /v1/first", "POST /v1/first"]
[actions."words"]
title = "Words"
unit = "word"
price = "0.001"
max_units = 100
measure = "header"
routes = ["GET /v1/words", "POST /v1/words"]
[actions."flow"]
title = "A stream"
unit = "byte"
price = "0.001"
max_units = 100
measure = "bytes"
stream = true
routes = ["GET /v1/flow"]
"""


def included(plan: str, path: str, requests: int) -> int:
    """The units of a route's action in a plan, for a run of so many requests.

    Those of `overage` are used up early; those of `held` are not, so that processes die with units held.
    """
    if plan == "seat":
        return PLENTY
    if plan == "overage":
        return max(1, requests // 8 if path in MEASURED else requests // 200)
    return max(1, requests // 4 if path in MEASURED else requests // 50)


def configuration(store: Path, facilitator: str, rpc: str, requests: int) -> str:
    """The seller's `headgate.toml`."""
    text = CONFIG.format(store=store, pay_to=PAY_TO, facilitator=facilitator, rpc=rpc)
    for plan, beyond in PLANS.items():
        units = ", ".join(
            f'"{action}" = {included(plan, path, requests)}' for path, action in ACTIONS.items()
        )
        text += f'[plans.{plan}]\nincluded = {{ {units} }}\nbeyond = "{beyond}"\n'
    return text
