"""What every seller sells: `GET /v1/thing`, 200, about a hundred bytes of JSON."""

from __future__ import annotations

PATH = "/v1/thing"
THING = {
    "id": "thing_0001",
    "name": "A small thing",
    "colour": "green",
    "size": 42,
    "in_stock": True,
    "tags": ["a"],
}
PRICE = "0.10"
NETWORK = "eip155:84532"
ASSET = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PAY_TO = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
