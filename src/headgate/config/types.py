"""The configuration as frozen objects. What a key means is said here; how it is read, in the other files.

Times are integer microseconds (`*_us`), money integer micro-dollars. Secrets have `repr=False`: a
configuration can be logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.model.assets import Asset
from headgate.model.catalog import Catalog
from headgate.model.duration import DAY_US, MINUTE_US, SECOND_US
from headgate.model.offer import NetworkOffer

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class Seller:
    """`public_url` has no trailing slash and is the only origin ever written into an offer ("" if unset).

    `no_subscription` (`pass`, `x402`, `block`) says what a customer without any contract gets;
    `renewal_grace_us` how long one is served after its contract ended.
    """

    name: str = ""
    public_url: str = ""
    time_zone: str = "UTC"
    no_subscription: str = "pass"
    renewal_grace_us: int = 14 * DAY_US


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """`url` is `sqlite:///path` or `postgresql://…`; `on_failure` is `refuse` or `serve`."""

    url: str = field(default="sqlite:///headgate.db", repr=False)
    on_failure: str = "refuse"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One network payments are taken on.

    `facilitator_url` is a URL without trailing slash, or `embedded`. `facilitator_headers` are sent with
    every request to it, and may hold its API key.
    """

    caip2: str
    pay_to: str
    facilitator_url: str
    asset: Asset
    facilitator_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    rpc_url: str | None = field(default=None, repr=False)

    @property
    def embedded(self) -> bool:
        """Whether the facilitator and its chain of play money run inside this process."""
        return self.facilitator_url == EMBEDDED


@dataclass(frozen=True, slots=True)
class X402Config:
    """`networks` in the order they are offered (Polygon first).

    `min_validity_s` must be left on a payment when its work begins; `blocked_payers` are 20-byte addresses;
    `payer_in_flight` is how many requests of one payer one process works on at a time, `client_refusals` how
    many payments from one address it lets the facilitator refuse per minute (0: any number). A payment that
    settles before its work is to be refunded if that was not done within `refund_after_us`.
    """

    networks: tuple[NetworkConfig, ...]
    quote_ttl_us: int = 5 * MINUTE_US
    max_timeout_seconds: int = 300
    min_validity_s: int = 30
    clock_skew_s: int = 30
    blocked_payers: frozenset[bytes] = frozenset()
    payer_in_flight: int = 64
    client_refusals: int = 100
    refund_after_us: int = 60 * MINUTE_US

    def offers(self) -> tuple[NetworkOffer, ...]:
        """What is taken where, as offers are built from it (facilitator addresses still unknown)."""
        return tuple(
            NetworkOffer(network.asset, network.pay_to, self.max_timeout_seconds) for network in self.networks
        )


@dataclass(frozen=True, slots=True)
class Auth:
    """Who callers are: a JWT (by `jwks_url` or `secret`), the seller's endpoint (`forward_url`), or neither.

    `credentials` names what on a request counts as credentials, in lower case: header names, or
    `cookie:NAME` with the cookie's own case.
    """

    jwks_url: str | None = None
    secret: str | None = field(default=None, repr=False)
    forward_url: str | None = None
    issuer: str | None = None
    audience: str | None = None
    customer_claim: str = "sub"
    seat_claim: str | None = None
    algorithms: tuple[str, ...] = ()
    leeway_us: int = 30 * SECOND_US
    credentials: tuple[str, ...] = ("authorization", "x-api-key")


@dataclass(frozen=True, slots=True)
class OverageConfig:
    """Where booked overage goes. `export` is `none` or `cloudevents` (a signed webhook at `webhook_url`)."""

    export: str = "none"
    webhook_url: str | None = None
    secret: str | None = field(default=None, repr=False)
    from_us: int | None = None


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`unlisted` is `404` or `pass`: what becomes of routes that are neither priced nor declared free."""

    upstream: str | None = None
    unlisted: str = "404"
    timeout_us: int = 60 * SECOND_US


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what strangers send and on what is kept for them, in bytes and microseconds."""

    max_body_bytes: int = 100 * 1024 * 1024
    body_time_us: int = 5 * MINUTE_US
    kept_answer_bytes: int = 1024 * 1024
    kept_answer_us: int = 15 * MINUTE_US


@dataclass(frozen=True, slots=True)
class Config:
    """All of `headgate.toml`, overrides applied. `catalog` is the file's own (version 0).

    `x402` is None where nothing is sold by payment: then callers without credentials get 401. `discovery`
    says whether what is sold is told to agents and registries (pages, and a declaration in offers).
    """

    mode: str
    seller: Seller
    store: StoreConfig
    catalog: Catalog
    x402: X402Config | None = None
    auth: Auth = Auth()
    overage: OverageConfig = OverageConfig()
    gateway: GatewayConfig = GatewayConfig()
    limits: Limits = Limits()
    usage_headers: bool = False
    idempotency: str = "off"
    discovery: bool = True
    admin_token: str | None = field(default=None, repr=False)
    path: str = "headgate.toml"

    @property
    def live(self) -> bool:
        """Whether real money is taken."""
        return self.mode == "live"
