"""Reading `accepts` blocks: offers in the shape sellers already write them, checked against the list price.

`{scheme, network, maxAmountRequired, description}` says again what the action says once; the price of the
action is the only one, so an amount that differs is refused (contract §2).
"""

from __future__ import annotations

import re

from headgate.config.networks import resolve_network
from headgate.config.reader import Section
from headgate.model.catalog import Accept, Action
from headgate.model.errors import InputError
from headgate.model.money import format_usd, parse_usd

_ATOMIC = re.compile(r"[0-9]{1,18}")


def read_accepts(
    entry: Section, action: Action | None, networks: tuple[str, ...] | None
) -> tuple[Accept, ...]:
    """The blocks of one action; `action` is None where its price could not be read."""
    accepts: list[Accept] = []
    for block in entry.tables("accepts"):
        scheme = block.choice("scheme", ("exact", "upto"), "exact")
        network = block.parsed("network", resolve_network, None)
        if not block.has("network"):
            block.problem("network", "is missing", 'write network = "base-sepolia" or a CAIP-2 id')
        _check_amount(block, action)
        _check_scheme(block, scheme, action)
        if network is not None and network not in (networks or ()):
            block.problem("network", f"{network} is not offered by [x402]", "add it to x402.network")
        accept = Accept(scheme, network or "", block.text("description") or "")
        block.finish()
        if any((accept.scheme, accept.network) == (other.scheme, other.network) for other in accepts):
            block.problem("network", "has a block with this scheme before", "keep one block per network")
        accepts.append(accept)
    if accepts and action is not None and action.free:
        entry.problem("accepts", "offers payment for a free action", "remove it, or give the action a price")
    return tuple(accepts)


def _check_scheme(block: Section, scheme: str, action: Action | None) -> None:
    if action is None:
        return
    right = "upto" if action.variable else "exact"
    if not block.has("scheme"):
        block.problem("scheme", "is missing", f'write scheme = "{right}"')
    elif scheme != right:
        kind = "variable (it has max_units)" if action.variable else "fixed (it has no max_units)"
        block.problem("scheme", f'is "{scheme}", but the cost is {kind}', f'write scheme = "{right}"')


def _check_amount(block: Section, action: Action | None) -> None:
    """A whole number counts the token's smallest unit, as the protocol does; one with a point is dollars."""
    value = block.raw("maxAmountRequired")
    if value is None:
        block.problem("maxAmountRequired", "is missing", "write the list price in millionths of a dollar")
        return
    micros = _amount_micros(value)
    if micros is None:
        block.problem(
            "maxAmountRequired",
            "is not an amount",
            'write "100000" (millionths of a dollar) or "0.10" (dollars)',
        )
    elif action is not None and not action.free and micros != action.x402_ceiling_micros:
        right = action.x402_ceiling_micros
        block.problem(
            "maxAmountRequired",
            f"says {format_usd(micros)} USD, but the list price is {format_usd(right)} USD",
            f'write "{right}", or change the price: there is one list price in every channel',
        )


def _amount_micros(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 10**18 else None
    if not isinstance(value, str):
        return None
    text = value.strip().removeprefix("$")
    if _ATOMIC.fullmatch(text) and not value.strip().startswith("$"):
        return int(text)
    try:
        return parse_usd(text)
    except InputError:
        return None
