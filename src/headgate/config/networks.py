"""Reading `[x402]`: where payments go, on which networks, through which facilitator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from headgate.config.reader import Section, did_you_mean
from headgate.config.types import EMBEDDED, NetworkConfig, X402Config
from headgate.config.values import read_address, read_duration, read_url
from headgate.model.assets import FACILITATORS, KNOWN_ASSETS, NETWORK_NAMES, TEST_NETWORKS, Asset
from headgate.model.duration import MINUTE_US, SECOND_US
from headgate.model.errors import InputError

EMBEDDED_NETWORK = "eip155:84532"
POLYGON = frozenset({"eip155:137", "eip155:80002"})
DECIMALS = 6

_CAIP2 = re.compile(r"eip155:[1-9][0-9]{0,18}")
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|credential|signature", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_PRESET_OF = {network: name for name, (_, network) in FACILITATORS.items()}


def resolve_network(text: str) -> str:
    """A network's CAIP-2 id from it or its common name.

    Raises:
        InputError: neither.
    """
    if _CAIP2.fullmatch(text):
        return text
    if text in NETWORK_NAMES:
        return NETWORK_NAMES[text]
    meant = did_you_mean(text, tuple(NETWORK_NAMES))
    listed = ", ".join(f'"{name}"' for name in NETWORK_NAMES)
    fix = (
        f'did you mean "{meant}"?'
        if meant
        else f'write {listed}, or an EVM network\'s CAIP-2 id ("eip155:137")'
    )
    raise InputError(f'"{text[:60]}" is not a network Headgate knows; {fix}')


def read_x402(section: Section, *, live: bool) -> tuple[X402Config | None, tuple[str, ...] | None]:
    """The section as an object, and all networks it names, also those it says too little of; None: absent."""
    section.override("pay_to", "HEADGATE_PAY_TO")
    section.override("network", "HEADGATE_NETWORK")
    section.override("facilitator", "HEADGATE_FACILITATOR_URL")
    if not section.present:
        return None, None
    ids = _read_network_ids(section, live=live)
    shared_pay_to = read_address(section, "pay_to", strict=live)
    own = _read_own_tables(section, ids)
    networks = [
        _read_network(section, own.get(caip2), caip2, shared_pay_to, alone=len(ids) == 1, live=live)
        for caip2 in ids
    ]
    for key in (
        "facilitator",
        "facilitator_headers",
        "rpc_url",
    ):  # asked for, so known, also where no network was read
        section.raw(key)
    config = X402Config(
        networks=tuple(
            sorted(
                (network for network in networks if network is not None),
                key=lambda network: network.caip2 not in POLYGON,
            )
        ),
        quote_ttl_us=read_duration(section, "quote_ttl", 5 * MINUTE_US),
        max_timeout_seconds=_read_seconds(section, "max_timeout", 300, low=10, high=86_400),
        min_validity_s=_read_seconds(section, "min_validity", 30, low=0, high=3600),
        clock_skew_s=_read_seconds(section, "clock_skew", 30, low=0, high=300),
        blocked_payers=_read_blocked(section),
        refund_after_us=read_duration(section, "refund_after", 60 * MINUTE_US, low_us=MINUTE_US),
        payer_in_flight=section.whole("payer_in_flight", 64, low=1, high=1_000_000),
        client_refusals=section.whole("client_refusals", 100, low=0, high=1_000_000),
    )
    if config.min_validity_s >= config.max_timeout_seconds:
        section.problem(
            "min_validity",
            "leaves buyers no time: it is not shorter than max_timeout",
            "shorten it, or raise max_timeout",
        )
    section.finish()
    return config, ids


def _read_seconds(section: Section, key: str, default: int, *, low: int, high: int) -> int:
    """A length of time in whole seconds, as the protocol counts."""
    us = read_duration(section, key, default * SECOND_US)
    seconds, rest = divmod(us, SECOND_US)
    if rest or not low <= seconds <= high:
        section.problem(key, "is out of bounds", f'write whole seconds from "{low} s" to "{high} s"')
        return default
    return seconds


def _read_network_ids(section: Section, *, live: bool) -> tuple[str, ...]:
    """The networks named, in their order; what follows from the facilitator where none is."""
    value = section.raw("network")
    if isinstance(value, str) and section.overridden("network"):
        entries = [(0, text.strip()) for text in value.split(",") if text.strip()]
    else:
        entries = list(section.texts("network", "base-sepolia"))
    if value is None:
        facilitator = section.raw("facilitator")
        if isinstance(facilitator, str) and facilitator in FACILITATORS:
            return (FACILITATORS[facilitator][1],)
        if not live or facilitator == EMBEDDED:
            return (EMBEDDED_NETWORK,)
        section.problem(
            "network", "is missing", 'write network = "polygon", "base", "base-sepolia" or a list of them'
        )
        return ()
    ids: list[str] = []
    for _, text in entries:
        try:
            caip2 = resolve_network(text)
        except InputError as error:
            what, _, fix = str(error).partition("; ")
            section.problem("network", what, fix)
            continue
        if caip2 in ids:
            section.problem("network", f"names {caip2} twice", "keep it once")
        else:
            ids.append(caip2)
    if not entries and isinstance(value, list):
        section.problem("network", "is an empty list", 'write network = "base-sepolia", or another')
    return tuple(ids)


def _read_own_tables(section: Section, ids: tuple[str, ...]) -> Mapping[str, Section]:
    """`[x402.networks.*]` by CAIP-2 id."""
    tables = section.table("networks")
    own: dict[str, Section] = {}
    for name in tables.names():
        try:
            caip2 = resolve_network(name)
        except InputError as error:
            what, _, fix = str(error).partition("; ")
            tables.problem(name, what, fix)
            tables.raw(name)
            continue
        if caip2 in own:
            tables.problem(name, f"is {caip2}, which has a table already", "merge the two tables")
            tables.raw(name)
            continue
        own[caip2] = tables.table(name)
        if caip2 not in ids and not section.overridden("network"):
            tables.problem(
                name, f"has its own keys, but {caip2} is not offered", "add it to x402.network, or remove it"
            )
    return own


def _read_network(
    shared: Section, own: Section | None, caip2: str, shared_pay_to: str | None, *, alone: bool, live: bool
) -> NetworkConfig | None:
    asset = _read_asset(shared, own, caip2)
    pay_to = shared_pay_to
    if own is not None and own.has("pay_to"):
        pay_to = read_address(own, "pay_to", strict=live)
    elif not shared.has("pay_to"):
        shared.problem("pay_to", "is missing", 'write pay_to = "0x…", the address that receives payments')
    facilitator = _read_facilitator(shared, own, caip2, live=live)
    headers_from = own if own is not None and own.has("facilitator_headers") else shared
    headers = _read_headers(headers_from)
    rpc_from = own if own is not None and own.has("rpc_url") else shared
    rpc_url = read_url(rpc_from, "rpc_url")
    if rpc_from is shared and rpc_url is not None and not alone:
        shared.problem(
            "rpc_url", "cannot serve several networks", 'write it in [x402.networks."eip155:…"] of each'
        )
    if own is not None:
        for key in ("facilitator", "facilitator_headers", "rpc_url", "pay_to", "asset"):
            own.raw(key)
        own.finish()
    if asset is None or pay_to is None or facilitator is None:
        return None
    if live and asset.test:
        shared.problem(
            "network",
            f"{caip2} ({asset.title}) is a test network, and mode is live",
            'write "polygon" or "base"',
        )
    if pay_to == asset.address:
        shared.problem(
            "pay_to", "is the token's own contract, which keeps what it gets", "write the seller's address"
        )
    return NetworkConfig(caip2, pay_to, facilitator, asset, headers, rpc_url)


def _read_asset(shared: Section, own: Section | None, caip2: str) -> Asset | None:
    """The token of a network: the USDC Headgate knows, or what `asset` says."""
    known = KNOWN_ASSETS.get(caip2)
    if own is None or not own.has("asset"):
        if known is None:
            shared.problem(
                "network",
                f"{caip2} is a network whose token Headgate does not know",
                f'add [x402.networks."{caip2}".asset] with address, name and version of its EIP-712 domain',
            )
        return known
    entry = own.table("asset")
    address = read_address(entry, "address")
    name, version = entry.text("name"), entry.text("version")
    for key, value in (("address", address), ("name", name), ("version", version)):
        if value is None and not entry.has(key):
            entry.problem(key, "is missing", "copy it from the token's contract (eip712Domain)")
    if entry.whole("decimals", DECIMALS, low=0, high=255) != DECIMALS:
        entry.problem(
            "decimals", "is not 6, and Headgate counts micro-dollars", "offer a dollar token with 6 decimals"
        )
    test = entry.flag("test", caip2 in TEST_NETWORKS) if known is None else known.test
    title = entry.text("title") or (known.title if known else caip2)
    entry.finish()
    if address is None or name is None or version is None:
        return None
    return Asset(caip2, address, name, version, DECIMALS, test, title)


def _read_facilitator(shared: Section, own: Section | None, caip2: str, *, live: bool) -> str | None:
    """A URL, or `embedded`; presets are replaced by their URL."""
    section = own if own is not None and own.has("facilitator") else shared
    value = section.text("facilitator")
    if value is None:
        if section.has("facilitator"):
            return None
        value = _default_facilitator(caip2, live=live)
        if value is None:
            section.problem(
                "facilitator", f"is missing for {caip2}", "write the URL of one that serves this network"
            )
            return None
    if value == EMBEDDED:
        if live:
            section.problem(
                "facilitator", "the embedded one deals in play money, and mode is live", "write a URL"
            )
        elif caip2 != EMBEDDED_NETWORK:
            section.problem(
                "facilitator",
                f"the embedded one is {EMBEDDED_NETWORK} only, not {caip2}",
                f'write network = "base-sepolia", or a facilitator in [x402.networks."{caip2}"]',
            )
        return value
    if value in FACILITATORS:
        url, network = FACILITATORS[value]
        if network != caip2:
            section.problem(
                "facilitator",
                f'"{value}" serves {network}, not {caip2}',
                f'name one in [x402.networks."{caip2}"]',
            )
        return url
    if "://" not in value and "${" not in value:
        meant = did_you_mean(value, (*FACILITATORS, EMBEDDED))
        fix = f'did you mean "{meant}"?' if meant else 'write "embedded", "polygon", "polygon-amoy" or a URL'
        section.problem("facilitator", f'"{value[:60]}" is neither a preset nor a URL', fix)
        return None
    return _read_facilitator_url(section, live=live)


def _read_facilitator_url(section: Section, *, live: bool) -> str | None:
    """A URL that paths are appended to and logs name: wherever it comes from, no secret is in it."""
    url = read_url(section, "facilitator", live=live)
    parts = None if url is None else urlsplit(url)
    if parts is not None and (parts.username or parts.password):
        section.problem(
            "facilitator",
            "has a user or password in it, and logs name this URL",
            'write facilitator_headers = { Authorization = "Basic ${…}" }',
        )
        return None
    if url is not None and ("?" in url or "#" in url):
        section.problem(
            "facilitator",
            "has a query or fragment, and /verify is appended to it",
            "write it without; a key belongs into facilitator_headers",
        )
        return None
    return url


def _default_facilitator(caip2: str, *, live: bool) -> str | None:
    if caip2 == EMBEDDED_NETWORK and not live:
        return EMBEDDED
    return _PRESET_OF.get(caip2)


def _read_headers(section: Section) -> Mapping[str, str]:
    """Headers for the facilitator; what looks like a key comes from the environment."""
    table = section.table("facilitator_headers")
    headers: dict[str, str] = {}
    for name in table.names():
        value = table.expanded(name)
        value = None if value is None else value.strip()  # such as the newline of a file that holds a key
        if not _HEADER_NAME.fullmatch(name):
            table.problem(name, "is not a header name", 'write it like "Authorization"')
        elif name.lower() in _FRAMING:
            table.problem(name, "is a header that each request has of its own", "remove it")
        elif value is not None and not (value.isascii() and value.isprintable()):
            table.problem(name, "has control characters in it, or others than ASCII", "correct the value")
        elif value is not None and _SECRET_HEADER.search(name) and not table.is_reference(name):
            table.problem(
                name,
                "looks like a secret, and secrets are not read from this file",
                'write "${FACILITATOR_KEY}" (or "Bearer ${…}") and set that variable in the environment',
            )
        elif value is not None:
            headers[name] = value
    return headers


def _read_blocked(section: Section) -> frozenset[bytes]:
    blocked = set()
    for index, text in section.texts("blocked_payers", "0x…"):
        digits = text.removeprefix("0x")
        if not re.fullmatch(r"[0-9a-fA-F]{40}", digits) or not text.startswith("0x"):
            section.problem(
                f"blocked_payers[{index}]", "is not an EVM address", '"0x" and 40 hexadecimal digits'
            )
        else:
            blocked.add(bytes.fromhex(digits))
    return frozenset(blocked)
