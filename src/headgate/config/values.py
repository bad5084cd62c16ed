"""Texts of a configuration that mean something: money, addresses, URLs, sizes, status ranges, time zones.

Each reader takes a section and a key, gives the value or None, and notes what is wrong with it.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from Crypto.Hash import keccak

from headgate.config.reader import Section, did_you_mean, type_name
from headgate.model.duration import duration_months, duration_us
from headgate.model.errors import InputError
from headgate.model.money import MICROS, format_usd, parse_usd

MAX_MONEY_MICROS = 1_000_000_000 * MICROS
"""A thousand million dollars: any product with it that is stored fits 64 bits."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SIZE = re.compile(r"([0-9]{1,9})\s*(B|KiB|MiB|GiB)?")
_SIZE_FACTOR = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_MANY_PLACES = re.compile(r"[0-9]{1,12}\.([0-9]{7,30})")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
DEAD_ADDRESSES = frozenset({bytes(20), bytes(18) + b"\xde\xad"})
PUBLISHED_KEYS = frozenset(
    {
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    }
)
"""Accounts of the phrase that development chains publish: whatever real money they get is swept at once."""


def read_money(section: Section, key: str) -> int | None:
    """Micro-dollars from a decimal text; zero or more, at most six places."""
    value = section.raw(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str):
        example = _quoted_money(value)
        section.problem(key, f"is {type_name(value)}; money is written as a text", f"write {key} = {example}")
        return None
    text = value.strip()
    found = _MANY_PLACES.fullmatch(text)
    if found and found[1].rstrip("0")[6:]:
        section.problem(key, f'"{text}" has more than six places and cannot be charged', _larger_unit(text))
        return None
    try:
        micros = parse_usd(text[: -len(found[1]) + 6] if found else text)
    except InputError:
        section.problem(
            key, f'"{text[:60]}" is not an amount in USD', f'write {key} = "0.10": digits and a point'
        )
        return None
    if not 0 <= micros <= MAX_MONEY_MICROS:
        section.problem(
            key,
            f"{format_usd(micros)} is out of bounds",
            f"write 0 to {MAX_MONEY_MICROS // MICROS:_} dollars",
        )
        return None
    return micros


def _quoted_money(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return '"0.10"'
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):  # more digits than Python writes out
        return '"0.10"'
    if not amount.is_finite() or abs(amount) >= 10**12:
        return '"0.10"'
    shown = f"{amount:f}"
    return f'"{shown}"' if "." in shown else f'"{shown}.00"'


def _larger_unit(text: str) -> str:
    """How to write a price that is too precise: for more units."""
    amount = Decimal(text).normalize()
    places = -int(amount.as_tuple().exponent)
    per = 1000 ** ((places - 6 + 2) // 3)
    larger = f"{(amount * per).normalize():f}"
    return f'name the price of {per:_} times as many units: "{larger}", and `per` {per:_} times larger'


def read_duration(section: Section, key: str, default_us: int, *, low_us: int = 0) -> int:
    """A fixed length of time in microseconds, at most ten years."""
    value = section.parsed(key, duration_us, default_us)
    if not low_us <= value <= 3660 * 86_400_000_000:
        section.problem(key, "is out of bounds", 'write a length of time such as "5 min" or "14 days"')
        return default_us
    return value


def read_months(section: Section, key: str, default: int) -> int:
    """A calendar length of time in months, at most fifty years."""
    value = section.parsed(key, duration_months, default)
    if not 1 <= value <= 600:
        section.problem(key, "is out of bounds", "write from 1 month to 50 years")
        return default
    return value


def read_size(section: Section, key: str, default: int, *, low: int, high: int) -> int:
    """Bytes, from a whole number or a text such as `10 MiB`."""
    if not isinstance(section.raw(key), str):
        return section.whole(key, default, low=low, high=high)
    text = section.text(key)
    if text is None:
        return default
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _SIZE_FACTOR[found[2]] if found else -1
    if not low <= size <= high:
        section.problem(
            key,
            f'"{text[:60]}" is not a size from {low:_} to {high:_} bytes',
            f'write {key} = "{low // 1024 + 1} KiB"',
        )
        return default
    return size


def read_time_zone(section: Section, key: str, default: str) -> str:
    """An IANA time zone's name."""
    text = section.text(key)
    if text is None:
        return default
    try:
        ZoneInfo(text)
    except (KeyError, OSError, ValueError):  # unknown, a directory, absolute or climbing
        zones = available_timezones()
        meant = did_you_mean(text, [zone.lower() for zone in zones])
        right = next((zone for zone in zones if zone.lower() == meant), None)
        section.problem(
            key,
            f'"{text[:60]}" is not a time zone',
            f'did you mean "{right}"?' if right else 'write an IANA name such as "Europe/Berlin" or "UTC"',
        )
        return default
    return text


def read_url(
    section: Section, key: str, schemes: tuple[str, ...] = ("https", "http"), *, live: bool = False
) -> str | None:
    """An absolute URL without trailing slash; `${NAME}` come from the environment.

    In live mode plain HTTP is for this host only. User and password in the file are refused.
    """
    text = section.expanded(key)
    if text is None:
        return None
    parts = _split(text)
    example = f'write {key} = "{schemes[0]}://host.example"'
    if parts is None or parts.scheme not in schemes or not parts.hostname or any(map(str.isspace, text)):
        section.problem(
            key, f"is not a URL beginning with {' or '.join(f'{s}://' for s in schemes)}", example
        )
        return None
    if (parts.username or parts.password) and not section.is_reference(key):
        section.problem(
            key, "has a user or password in it", 'put the URL into the environment and write "${NAME}" here'
        )
        return None
    if live and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        section.problem(key, "is plain HTTP, and mode is live", "write https://")
        return None
    return text.rstrip("/")


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return parts


def read_origin(section: Section, key: str, *, live: bool) -> str:
    """A URL that paths are appended to: no query, no fragment. Empty: not given, or wrong."""
    url = read_url(section, key, live=live)
    if url is None:
        return ""
    parts = urlsplit(url)
    if parts.query or parts.fragment or "?" in url or "#" in url:
        section.problem(key, "has a query or fragment", f'write {key} = "{parts.scheme}://{parts.netloc}"')
        return ""
    if live and parts.scheme != "https":
        section.problem(key, "is what buyers see, and mode is live", "write https://")
        return ""
    return url


def checksummed(address: str) -> str:
    """An EVM address in its checksummed spelling (EIP-55)."""
    digits = address[2:].lower()
    digest = keccak.new(digest_bits=256, data=digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit
        for digit, nibble in zip(digits, digest, strict=False)
    )


def read_address(section: Section, key: str, *, strict: bool = False) -> str | None:
    """An EVM address, checksummed. `strict` (real money) refuses more: no checksum, a published key."""
    text = section.text(key)
    if text is None:
        return None
    if not _ADDRESS.fullmatch(text):
        secret = len(text.removeprefix("0x")) == 64
        section.problem(
            key,
            "is as long as a private key; if it is one, move the money now"
            if secret
            else "is not an EVM address",
            'write the address: "0x" and 40 hexadecimal digits',
        )
        return None
    right = checksummed(text)
    digits = text[2:]
    if text != right and (strict or not (digits == digits.lower() or digits == digits.upper())):
        section.problem(
            key,
            "does not carry the address's checksum, so a mistyped digit would go unnoticed"
            if digits in (digits.lower(), digits.upper())
            else "has a wrong checksum: a digit is mistyped",
            "copy the address from the wallet again, upper and lower case as it shows them",
        )
        return None
    if bytes.fromhex(digits) in DEAD_ADDRESSES:
        section.problem(key, "is an address nobody has the key of", "write the seller's own address")
        return None
    if strict and right in PUBLISHED_KEYS:
        section.problem(
            key, "is a development account whose key everybody has", "write the seller's own address"
        )
        return None
    return right
