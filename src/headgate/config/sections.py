"""Reading `[seller]`, `[store]`, `[auth]`, `[overage]`, `[gateway]` and `[limits]`."""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from headgate.config.reader import Section, type_name
from headgate.config.types import Auth, GatewayConfig, Limits, OverageConfig, Seller, StoreConfig
from headgate.config.values import read_duration, read_origin, read_size, read_time_zone, read_url
from headgate.model.duration import SECOND_US

BUILT_EXPORTS = ("none", "cloudevents")
PLANNED_EXPORTS = ("stripe", "lago", "openmeter")
PUBLIC_KEY_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
MIN_SECRET_BYTES = 32

_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
_COOKIE = re.compile(r"cookie:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


def read_seller(section: Section, *, live: bool, sells_x402: bool) -> Seller:
    """`public_url` is required where offers are made, `name` has the host as its stand-in."""
    section.override("public_url", "HEADGATE_PUBLIC_URL")
    public_url = read_origin(section, "public_url", live=live)
    if sells_x402 and not section.has("public_url"):
        section.problem(
            "public_url",
            "is missing, and offers name no other origin",
            'write public_url = "https://api.example.com", where buyers reach this API',
        )
    seller = Seller(
        name=section.text("name") or urlsplit(public_url).hostname or "",
        public_url=public_url,
        time_zone=read_time_zone(section, "time_zone", "UTC"),
        no_subscription=section.choice("no_subscription", ("pass", "x402", "block"), "pass"),
        renewal_grace_us=read_duration(section, "renewal_grace", Seller().renewal_grace_us),
    )
    if seller.no_subscription == "x402" and not sells_x402:
        section.problem(
            "no_subscription",
            'is "x402", but the file has no [x402]',
            'add [x402] with pay_to, or write "pass" or "block"',
        )
    section.finish()
    return seller


def read_store(section: Section) -> StoreConfig:
    """SQLite by file, or PostgreSQL by URL; a password comes from the environment."""
    section.override("url", "HEADGATE_DATABASE_URL")
    store = StoreConfig(
        url=_read_store_url(section) or StoreConfig().url,
        on_failure=section.choice("on_failure", ("refuse", "serve"), "refuse"),
    )
    section.finish()
    return store


def _read_store_url(section: Section) -> str | None:
    text = section.expanded("url")
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        section.problem("url", "is not a URL", 'write url = "sqlite:///headgate.db"')
        return None
    if parts.scheme == "sqlite":
        if (
            not text.startswith("sqlite:///")
            or not text.removeprefix("sqlite:///")
            or parts.query
            or parts.fragment
        ):
            section.problem(
                "url", "names no SQLite file", 'write three slashes and a path: url = "sqlite:///headgate.db"'
            )
            return None
    elif parts.scheme not in ("postgresql", "postgres"):
        section.problem(
            "url",
            "is neither SQLite nor PostgreSQL",
            'write "sqlite:///headgate.db" or "postgresql://host/database"',
        )
        return None
    elif password and not section.is_reference("url"):
        section.problem(
            "url",
            "has a password in it, and secrets are not read from this file",
            "set HEADGATE_DATABASE_URL in the environment and remove url here",
        )
        return None
    return text


def read_auth(section: Section, *, live: bool) -> Auth:
    """How callers are identified where the application's own `identify` does not."""
    jwks_url = read_url(section, "jwks_url", live=live)
    secret = _read_jwt_secret(section)
    forward_url = read_url(section, "forward_url", live=live)
    given = [key for key in ("jwks_url", "secret", "forward_url") if section.has(key)]
    if len(given) > 1:
        section.problem(
            given[1], f"stands beside {given[0]}; callers are identified one way", "keep one of them"
        )
    auth = Auth(
        jwks_url=jwks_url,
        secret=secret,
        forward_url=forward_url,
        issuer=section.text("issuer"),
        audience=section.text("audience"),
        customer_claim=section.text("customer_claim") or "sub",
        seat_claim=section.text("seat_claim"),
        algorithms=_read_algorithms(section),
        leeway_us=read_duration(section, "leeway", 30 * SECOND_US),
        credentials=_read_credentials(section),
    )
    if not section.has("jwks_url") and not section.has("secret"):
        for key in ("issuer", "audience", "customer_claim", "seat_claim", "algorithms", "leeway"):
            if section.has(key):
                section.problem(
                    key, "is about JWTs, but there is no jwks_url or secret", "add one, or remove it"
                )
    section.finish()
    return auth


def _read_jwt_secret(section: Section) -> str | None:
    if section.has("secret") and not section.is_reference("secret"):
        section.raw("secret")
        section.problem(
            "secret",
            "is written in the file, and secrets are not read from it",
            'write secret = "${JWT_SECRET}" and set that variable in the environment',
        )
        return None
    secret = section.expanded("secret")
    if secret is not None and len(secret.encode("utf-8", "surrogatepass")) < MIN_SECRET_BYTES:
        section.problem(
            "secret", "is shorter than 32 bytes and can be guessed", "make one: openssl rand -base64 32"
        )
        return None
    return secret


def _read_algorithms(section: Section) -> tuple[str, ...]:
    """Algorithms that fit the kind of key: a public key never checks a shared-secret signature."""
    allowed = SECRET_ALGORITHMS if section.has("secret") else PUBLIC_KEY_ALGORITHMS
    given = tuple(text for _, text in section.texts("algorithms", allowed[0]))
    wrong = [name for name in given if name not in allowed]
    if wrong:
        source = "secret" if section.has("secret") else "jwks_url"
        section.problem(
            "algorithms", f'"{wrong[0][:60]}" does not go with {source}', f"choose from {', '.join(allowed)}"
        )
    if given and not wrong:
        return given
    if section.has("secret"):
        return ("HS256",)
    return ("RS256", "ES256", "EdDSA") if section.has("jwks_url") else ()


def _read_credentials(section: Section) -> tuple[str, ...]:
    names: list[str] = []
    for _, text in section.texts("credentials", "authorization"):
        name = text if text.startswith("cookie:") else text.lower()
        if _HEADER.fullmatch(name) or _COOKIE.fullmatch(name):
            names.append(name)
        else:
            section.problem(
                "credentials",
                f'"{text[:60]}" is no header or cookie',
                'write "x-api-key" or "cookie:session"',
            )
    return tuple(dict.fromkeys(names)) or Auth().credentials


def read_overage(section: Section, *, live: bool, time_zone: str) -> OverageConfig:
    """Where booked overage goes; what no built exporter uses is refused rather than ignored."""
    export = _read_export(section)
    webhook_url = read_url(section, "webhook_url", live=live)
    secret = section.environ.get("HEADGATE_OVERAGE_SECRET") or None
    mode = section.choice("mode", ("compare", "send"), "send")
    send = section.choice("send", ("overage", "all_usage"), "overage")
    if export == "cloudevents":
        if not section.has("webhook_url"):
            section.problem(
                "webhook_url", "is missing", 'write webhook_url = "https://…", where events are posted'
            )
        if secret is None:
            section.problem(
                "export",
                '"cloudevents" signs what it sends, and HEADGATE_OVERAGE_SECRET is not set',
                'set it in the environment: "whsec_" and the output of `openssl rand -base64 32`',
            )
    elif section.has("webhook_url") and export == "none":
        section.problem("webhook_url", 'is not used with export = "none"', 'write export = "cloudevents"')
    if mode == "compare":
        section.problem(
            "mode",
            "compares with a biller's own figures, and a webhook has none",
            'write mode = "send", or remove it',
        )
    if send == "all_usage":
        section.problem("send", '"all_usage" is not built yet', 'write send = "overage", or remove it')
    if section.raw("meters") is not None:
        section.problem(
            "meters", "names meters of a biller, and no biller's exporter is built yet", "remove it"
        )
    overage = OverageConfig(export, webhook_url, secret, _read_from(section, time_zone))
    section.finish()
    return overage


def _read_export(section: Section) -> str:
    export = section.choice("export", (*BUILT_EXPORTS, *PLANNED_EXPORTS), "none")
    if export in PLANNED_EXPORTS:
        section.problem(
            "export",
            f'"{export}" is not built yet; built are ' + " and ".join(f'"{name}"' for name in BUILT_EXPORTS),
            'write export = "cloudevents" and let a webhook of yours pass it on, or "none"',
        )
    return export


def _read_from(section: Section, time_zone: str) -> int | None:
    """A date is its midnight in the seller's time zone; an instant carries its own offset."""
    value = section.raw("from")
    if value is None:
        return None
    if isinstance(value, dt.datetime):
        instant = value
    elif isinstance(value, dt.date):
        instant = dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001 - given its zone below
    else:
        section.problem(
            "from", f"is {type_name(value)}, not a date", "write from = 2026-11-01, without quotes"
        )
        return None
    if not 1970 < instant.year < 9999:
        section.problem("from", "is out of bounds", "write from = 2026-11-01")
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=ZoneInfo(time_zone))
    return (instant - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def read_gateway(section: Section) -> GatewayConfig:
    """The reverse proxy."""
    gateway = GatewayConfig(
        upstream=read_url(section, "upstream"),
        unlisted=section.choice("unlisted", ("404", "pass"), "404"),
        timeout_us=read_duration(section, "timeout", GatewayConfig().timeout_us, low_us=SECOND_US),
    )
    section.finish()
    return gateway


def read_limits(section: Section) -> Limits:
    """Bounds on bodies and on answers kept for a retry."""
    standard = Limits()
    limits = Limits(
        max_body_bytes=read_size(section, "max_body", standard.max_body_bytes, low=1024, high=2**40),
        body_time_us=read_duration(section, "body_time", standard.body_time_us, low_us=SECOND_US),
        kept_answer_bytes=read_size(section, "kept_answer", standard.kept_answer_bytes, low=0, high=2**30),
        kept_answer_us=read_duration(section, "kept_for", standard.kept_answer_us),
    )
    section.finish()
    return limits
