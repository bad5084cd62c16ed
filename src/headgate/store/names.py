"""Short numbers for what events repeat: actions, routes, and rails (network, token, recipient, scheme)."""

from __future__ import annotations

from headgate.store.driver import Driver


class Names:
    """Looks numbers up in memory first; gives a new one in a transaction of its own, once."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known: dict[tuple[str, ...], int] = {}

    async def action(self, name: str) -> int:
        """The number of an action."""
        known = self._known.get(("action", name))
        return known or await self._number("action", ("action_read", "action_create"), (name,))

    async def route(self, name: str) -> int:
        """The number of a route (`POST /v1/documents/process`)."""
        known = self._known.get(("route", name))
        return known or await self._number("route", ("route_read", "route_create"), (name,))

    async def rail(self, network: str, asset: str, pay_to: str, scheme: str) -> int:
        """The number of a way to be paid. Addresses in lower case."""
        known = self._known.get(("rail", network, asset, pay_to, scheme))
        return known or await self._number(
            "rail", ("rail_read", "rail_create"), (network, asset, pay_to, scheme)
        )

    async def _number(self, kind: str, statements: tuple[str, str], name: tuple[str, ...]) -> int:
        read, create = statements
        async with self._driver.write() as tx:
            rows = await tx.rows(read, name) or await tx.rows(create, name)
        number = self._known[kind, *name] = int(rows[0][0])
        return number
