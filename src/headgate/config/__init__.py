"""`headgate.toml` → frozen objects; everything that is wrong is said at once (contract §2).

    types.py      the objects, and what their fields mean
    reader.py     tables read key by key, problems collected
    values.py     texts that mean something: money, addresses, URLs, durations
    sections.py   seller, store, auth, overage, gateway, limits
    networks.py   x402: networks, tokens, facilitators
    sold.py       actions, routes, plans; accepts.py their payment blocks

Secrets come from the environment only: by their own variable (`HEADGATE_ADMIN_TOKEN`,
`HEADGATE_OVERAGE_SECRET`, `HEADGATE_DATABASE_URL`) or as `${NAME}` where a key may hold one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from headgate.config.networks import read_x402
from headgate.config.reader import Problems, Section
from headgate.config.sections import (
    read_auth,
    read_gateway,
    read_limits,
    read_overage,
    read_seller,
    read_store,
)
from headgate.config.sold import read_catalog
from headgate.config.types import (
    EMBEDDED,
    Auth,
    Config,
    GatewayConfig,
    Limits,
    NetworkConfig,
    OverageConfig,
    Seller,
    StoreConfig,
    X402Config,
)
from headgate.model.errors import ConfigError

__all__ = [
    "DEFAULT_FILE",
    "EMBEDDED",
    "Auth",
    "Config",
    "GatewayConfig",
    "Limits",
    "NetworkConfig",
    "OverageConfig",
    "Seller",
    "StoreConfig",
    "X402Config",
    "load",
    "parse",
]

DEFAULT_FILE = "headgate.toml"
MAX_FILE_BYTES = 4 * 1024 * 1024


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration at `path`, else at HEADGATE_CONFIG, else `headgate.toml` in this directory.

    Raises:
        ConfigError: with every problem found.
    """
    file = path or environ.get("HEADGATE_CONFIG") or DEFAULT_FILE
    problems = Problems(file)
    text = _read(file, problems)
    if text is None:
        raise ConfigError(tuple(problems.found))
    return parse(text, file=file, environ=environ)


def _read(file: str, problems: Problems) -> str | None:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        problems.add(
            "the file",
            "does not exist",
            "run `headgate init` to write one, or name it with -c or HEADGATE_CONFIG",
        )
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problems.add(
            "the file", f"cannot be read ({reason})", "name a readable file with -c or HEADGATE_CONFIG"
        )
        return None
    if len(content) > MAX_FILE_BYTES:
        problems.add("the file", f"is larger than {MAX_FILE_BYTES:_} bytes", "is this the right file?")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add("the file", f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
        return None


def parse(text: str, *, file: str = DEFAULT_FILE, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration's text. `file` is what messages call it; `environ` overrides and fills in.

    Raises:
        ConfigError: with every problem found.
    """
    problems = Problems(file)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number with thousands of digits is a bare ValueError
        what = "is nested too deeply" if isinstance(error, RecursionError) else f"is not TOML: {error}"
        problems.add("the file", what, "correct that place; tables are [name], texts are in quotes")
        raise ConfigError(tuple(problems.found)) from None
    config = _read_document(Section(document, (), problems, environ or {}), file)
    if problems.found:
        raise ConfigError(tuple(problems.found))
    return config


def _read_document(root: Section, file: str) -> Config:
    mode = root.choice("mode", ("test", "live"), "test")
    live = mode == "live"
    x402_section = root.table("x402")
    seller = read_seller(root.table("seller"), live=live, sells_x402=x402_section.present)
    store = read_store(root.table("store"))
    x402, networks = read_x402(x402_section, live=live)
    config = Config(
        mode=mode,
        seller=seller,
        store=store,
        catalog=read_catalog(root, networks),
        x402=x402,
        auth=read_auth(root.table("auth"), live=live),
        overage=read_overage(root.table("overage"), live=live, time_zone=seller.time_zone),
        gateway=read_gateway(root.table("gateway")),
        limits=read_limits(root.table("limits")),
        usage_headers=root.flag("usage_headers", False),
        discovery=root.flag("discovery", True),
        idempotency=root.choice("idempotency", ("off", "replay"), "off"),
        admin_token=root.environ.get("HEADGATE_ADMIN_TOKEN") or None,
        path=file,
    )
    root.finish()
    return config
