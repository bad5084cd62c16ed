"""What a contract negotiated apart from its plan, and its form in the store (JSON, integers only)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.model.catalog import Catalog
from headgate.model.errors import InputError
from headgate.model.subscription import NO_CAP, Price


@dataclass(frozen=True, slots=True)
class Negotiated:
    """Own allowances in units per billing period, overage prices, and a cap in micro-dollars.

    The cap is None where the plan's holds, and `NO_CAP` where none was agreed.
    """

    allowance: Mapping[str, int] = field(default_factory=dict)
    overage_price: Mapping[str, Price] = field(default_factory=dict)
    overage_cap_micros: int | None = None

    def check(self, catalog: Catalog) -> None:
        """Refuse what names no action of the catalog, or is negative.

        Raises:
            InputError: with what is wrong.
        """
        for action in (*self.allowance, *self.overage_price):
            if action not in catalog.actions:
                raise InputError(f"catalog {catalog.version} has no action {action!r}; publish it first")
        for action, units in self.allowance.items():
            if units < 0:
                raise InputError(f"the allowance of {action!r} cannot be negative")
        for action, price in self.overage_price.items():
            if price.micros < 0 or price.per < 1:
                raise InputError(
                    f"the overage price of {action!r} cannot be negative, nor per less than one unit"
                )
        if (
            self.overage_cap_micros is not None
            and self.overage_cap_micros < 0
            and self.overage_cap_micros != NO_CAP
        ):
            raise InputError("the overage cap cannot be negative")


NOTHING_NEGOTIATED = Negotiated()


def negotiated_to_json(negotiated: Negotiated) -> str:
    """Canonical JSON: sorted keys, only what was negotiated."""
    body: dict[str, object] = {}
    if negotiated.allowance:
        body["allowance"] = dict(negotiated.allowance)
    if negotiated.overage_price:
        prices = negotiated.overage_price.items()
        body["overage_price"] = {action: [price.micros, price.per] for action, price in prices}
    if negotiated.overage_cap_micros is not None:
        body["overage_cap"] = negotiated.overage_cap_micros
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def negotiated_from_json(text: str) -> Negotiated:
    """Read what `negotiated_to_json` wrote."""
    body = json.loads(text)
    prices = body.get("overage_price", {}).items()
    return Negotiated(
        allowance=body.get("allowance", {}),
        overage_price={action: Price(micros, per) for action, (micros, per) in prices},
        overage_cap_micros=body.get("overage_cap"),
    )
