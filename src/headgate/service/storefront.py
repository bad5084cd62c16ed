"""The shop window: what each action is offered for, now and a little while back, as ready 402 answers."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.model.catalog import Action, Catalog
from headgate.model.offer import NetworkOffer, Offer, Quotes
from headgate.x402.offer import (
    PAYMENT_IDENTIFIER,
    PAYMENT_IDENTIFIER_EXTENSION,
    Challenge,
    build_offers,
    payment_required,
)

_KEPT = 10_000
_EXTENSIONS = {PAYMENT_IDENTIFIER: PAYMENT_IDENTIFIER_EXTENSION}


class Storefront:
    """Offers by action, rebuilt when the catalog or the networks change; 402s are made once and reused."""

    def __init__(self, public_url: str, quote_ttl_us: int) -> None:
        self._public_url = public_url.rstrip("/")
        self._quote_ttl_us = quote_ttl_us
        self._catalogs: dict[int, Catalog] = {}
        self._quotes: dict[str, Quotes] = {}
        self._mime_types: dict[str, str] = {}
        self._made: dict[tuple[str, str, str], Challenge] = {}

    def stock(self, catalogs: Sequence[Catalog], networks: Sequence[NetworkOffer], now_us: int) -> None:
        """Offer what the catalogs in force up to now say; earlier prices are honoured for a while."""
        self._catalogs = {catalog.version: catalog for catalog in catalogs}
        names = {name for catalog in catalogs for name in catalog.actions}
        quotes = dict.fromkeys(names, Quotes())
        for catalog in catalogs:
            if catalog.effective_us > now_us and catalog is not catalogs[0]:
                break
            for name in names:
                action = catalog.actions.get(name)
                made = (
                    () if action is None else build_offers(action, networks, catalog_version=catalog.version)
                )
                quotes[name] = quotes[name].replaced(made, catalog.effective_us, self._quote_ttl_us)
            self._mime_types = {name: action.mime_type for name, action in catalog.actions.items()}
        self._quotes = quotes
        self._made.clear()

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

    def challenge(self, action: str, path: str, error: str) -> Challenge:
        """The 402 for an action asked for at a path."""
        known = self._made.get((action, path, error))
        if known is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            known = self._made[action, path, error] = payment_required(
                self._quotes[action].current,
                url=self._public_url + path,
                mime_type=self._mime_types.get(action, "application/json"),
                error=error,
                extensions=_EXTENSIONS,
            )
        return known
