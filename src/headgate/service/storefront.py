"""The shop window: what each action is offered for, now and a little while back, as ready 402 answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from headgate.model.catalog import Action, Catalog, Route
from headgate.model.offer import NetworkOffer, Offer, Quotes, Reason
from headgate.model.routing import RouteTable
from headgate.x402.bazaar import BAZAAR, declaration
from headgate.x402.offer import (
    EIP2612_GAS_SPONSORING,
    EIP2612_GAS_SPONSORING_EXTENSION,
    PAYMENT_IDENTIFIER,
    PAYMENT_IDENTIFIER_EXTENSION,
    Challenge,
    build_offers,
    payment_required,
    resource_url,
)

KEPT = 2_000
"""How many ready 402s are kept. A stranger chooses the paths below a pattern: their length is bounded too."""
KEPT_PATH = 256
T = TypeVar("T")


class Storefront:
    """Offers by action, rebuilt when the catalog or the networks change; 402s are made once and reused.

    `edition` counts the changes, for whoever makes something of the offers.
    """

    def __init__(self, public_url: str, quote_ttl_us: int) -> None:
        self._public_url = public_url.rstrip("/")
        self._quote_ttl_us = quote_ttl_us
        self._catalogs: dict[int, Catalog] = {}
        self._quotes: dict[str, Quotes] = {}
        self._mime_types: dict[str, str] = {}
        self._made: dict[tuple[str, str, str, str], Challenge] = {}
        self._routes: RouteTable | None = None
        self.edition = 0

    def stock(
        self, catalogs: Sequence[Catalog], networks: Sequence[tuple[int, Sequence[NetworkOffer]]], now_us: int
    ) -> None:
        """Offer what is in force now, and honour for a while what was offered before.

        Both histories are walked in time: at each instant at which catalog or networks changed, the offers of
        that instant replace the ones before it.
        """
        self._catalogs = {catalog.version: catalog for catalog in catalogs}
        names = {name for catalog in catalogs for name in catalog.actions}
        quotes = dict.fromkeys(names, Quotes())
        changes = {catalog.effective_us for catalog in catalogs} | {since_us for since_us, _ in networks}
        for at_us in sorted(change for change in changes if change <= now_us):
            catalog = _last([(each.effective_us, each) for each in catalogs], at_us)
            offered = _last(networks, at_us)
            if catalog is None or offered is None:
                continue
            for name in names:
                action = catalog.actions.get(name)
                made = (
                    () if action is None else build_offers(action, offered, catalog_version=catalog.version)
                )
                quotes[name] = quotes[name].replaced(made, at_us, self._quote_ttl_us)
            self._mime_types = {name: action.mime_type for name, action in catalog.actions.items()}
        self._quotes = quotes
        self._made.clear()
        self.edition += 1

    def declare(self, routes: RouteTable) -> None:
        """Let offers say how their route is called (the Bazaar extension), from now on."""
        self._routes = routes
        self._made.clear()
        self.edition += 1

    def sells(self, action: str) -> bool:
        """Whether the action has an offer."""
        quotes = self._quotes.get(action)
        return quotes is not None and bool(quotes.current)

    def quotes(self, action: str) -> Quotes:
        """The offers of an action, and those still honoured."""
        return self._quotes[action]

    def priced(self, offer: Offer) -> Action:
        """The action as it was when the offer was made."""
        return self._catalogs[offer.catalog_version].actions[offer.action]

    def challenge(self, action: str, method: str, path: str, error: str) -> Challenge:
        """The 402 for an action asked for by a method at a path."""
        known = self._made.get((action, method, path, error))
        if known is None:
            known = written_offers(
                self._quotes[action].current,
                resource_url(self._public_url, path),
                mime_type=self._mime_types.get(action, "application/json"),
                error=error,
                declared=self.declared(action, method, path),
            )
            if len(self._made) >= KEPT:
                self._made.clear()
            if len(path) <= KEPT_PATH:
                self._made[action, method, path, error] = known
        return known

    def tool_challenge(self, action: str, url: str, error: str) -> Challenge:
        """The offer for an action that is sold as an MCP tool; `url` is the tool's own, not a route's."""
        known = self._made.get((action, "MCP", url, error))
        if known is None:
            if len(self._made) >= KEPT:
                self._made.clear()
            known = self._made[action, "MCP", url, error] = written_offers(
                self._quotes[action].current,
                url,
                mime_type=self._mime_types.get(action, "application/json"),
                error=error,
            )
        return known

    def declared(self, action: str, method: str, path: str) -> Mapping[str, Any]:
        """How a route is called (the Bazaar extension); empty where that cannot be said."""
        match = None if self._routes is None else self._routes.match(method, path)
        if match is None or match.route is None or match.action is None or match.action.name != action:
            return {}
        return route_declared(match.route, path, match.action.mime_type)


def written_offers(
    offers: Sequence[Offer],
    url: str,
    *,
    mime_type: str,
    error: str = Reason.PAYMENT_REQUIRED,
    declared: Mapping[str, Any] | None = None,
) -> Challenge:
    """The 402 for an action's offers, with all that is declared beside them; `declared` is the route's own.

    Raises:
        InputError: it cannot fit into a header.
    """
    extensions: dict[str, Any] = {PAYMENT_IDENTIFIER: PAYMENT_IDENTIFIER_EXTENSION}
    if offers and all(offer.gas_sponsored for offer in offers):
        extensions[EIP2612_GAS_SPONSORING] = EIP2612_GAS_SPONSORING_EXTENSION
    extensions.update(declared or {})  # the last is dropped first where the header would grow too long
    return payment_required(offers, url=url, mime_type=mime_type, error=error, extensions=extensions)


def route_declared(route: Route, path: str, mime_type: str) -> Mapping[str, Any]:
    """What the 402 of a route declares of it: how it is called; empty where that cannot be said."""
    declared = declaration(route, path, mime_type)
    return {} if declared is None else {BAZAAR: declared}


def _last(history: Sequence[tuple[int, T]], at_us: int) -> T | None:
    """What held at an instant: the last entry at or before it."""
    found = None
    for since_us, entry in history:
        if since_us <= at_us:
            found = entry
    return found
