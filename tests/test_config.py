"""headgate.toml → objects: the contract's own example, defaults, overrides, and every kind of mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config import EMBEDDED, Config, load, parse
from headgate.model.assets import KNOWN_ASSETS
from headgate.model.catalog import Accept, Beyond, Measure, Route
from headgate.model.errors import ConfigError, ConfigProblem

PAY_TO = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
"""The first example of EIP-55."""
DEVELOPMENT = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"

CONTRACT = f"""
mode = "test"
[seller]
name       = "Acme Documents"
public_url = "https://api.example.com"
time_zone  = "UTC"
[store]
url = "sqlite:///headgate.db"
[x402]
pay_to      = "{PAY_TO}"
network     = "base-sepolia"
facilitator = "embedded"
[actions."documents.process"]
title  = "Document processed"
unit   = "document"
price  = "0.10"
routes = ["POST /v1/documents/process"]
[actions."chat.complete"]
title     = "Chat completion"
unit      = "token"
price     = "0.002"
per       = 1000
max_units = 25000
measure   = "json:/usage/total_tokens"
routes    = ["POST /v1/chat"]
[routes]
free = ["GET /healthz"]
[plans.team]
title             = "Team, annual"
term              = "1 year"
billing_period    = "month"
price_per_seat    = "49.00"
included_per_seat = {{ "documents.process" = 500 }}
included          = {{ "chat.complete" = 1_000_000 }}
beyond            = "overage"
overage_cap       = "1000.00"
beyond_cap        = "x402"
"""

SELLER = '[seller]\npublic_url = "https://api.example.com"\n'
ACTION = '[actions.a]\nprice = "0.10"\nroutes = ["POST /a"]\n'


def x402(more: str = "", pay_to: str = PAY_TO) -> str:
    return f'{SELLER}[x402]\npay_to = "{pay_to}"\n{more}\n'


def live(more: str) -> str:
    return f'mode = "live"\n{x402(more)}'


def problems(text: str, environ: Mapping[str, str] | None = None) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ=environ)
    return caught.value.problems


def only(text: str, environ: Mapping[str, str] | None = None) -> ConfigProblem:
    found = problems(text, environ)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def test_the_contracts_example() -> None:
    config = parse(CONTRACT)
    assert not config.live
    assert config.seller.name == "Acme Documents"
    assert config.seller.public_url == "https://api.example.com"
    assert config.x402 is not None
    (network,) = config.x402.networks
    assert (network.caip2, network.pay_to, network.embedded) == ("eip155:84532", PAY_TO, True)
    assert network.asset == KNOWN_ASSETS["eip155:84532"]
    document, chat = config.catalog.actions["documents.process"], config.catalog.actions["chat.complete"]
    assert (document.price_micros, document.per, document.variable) == (100_000, 1, False)
    assert document.routes == (Route("POST", "/v1/documents/process"),)
    assert chat.measure == Measure("json", "/usage/total_tokens")
    assert chat.x402_ceiling_micros == 50_000
    assert config.catalog.free == (Route("GET", "/healthz"),)
    team = config.catalog.plans["team"]
    assert (team.term_months, team.period_months, team.price_per_seat_micros) == (12, 1, 49_000_000)
    assert team.allowance("documents.process", seats=3) == 1500
    assert team.allowance("chat.complete", seats=3) == 1_000_000
    assert (team.beyond, team.overage_cap_micros, team.beyond_cap) == (
        Beyond.OVERAGE,
        1_000_000_000,
        Beyond.X402,
    )
    assert config.catalog.version == 0


def test_what_is_left_out_has_a_safe_default() -> None:
    config = parse(x402() + ACTION)
    assert config.mode == "test"
    assert config.x402 is not None
    assert config.x402.networks[0].facilitator_url == EMBEDDED
    assert config.x402.quote_ttl_us == 300_000_000
    assert config.seller.name == "api.example.com"
    assert config.seller.no_subscription == "pass"
    assert config.auth.credentials == ("authorization", "x-api-key")
    assert (config.overage.export, config.idempotency, config.usage_headers) == ("none", "off", False)
    assert config.catalog.actions["a"].title == "a"


def test_without_x402_nothing_is_sold_by_payment() -> None:
    config = parse(ACTION)
    assert config.x402 is None
    assert parse("").catalog.actions == {}


# --- problems: all at once, each with key and fix ---------------------------------------------------


def test_all_problems_come_at_once_with_file_key_and_fix() -> None:
    text = """
        modus = "live"
        [seller]
        time_zone = "Europe/Berlim"
        [actions.a]
        price = 0.1
        unit_ = "page"
        [plans.team]
        included = { b = 1 }
        beyond = "overaged"
    """
    with pytest.raises(ConfigError) as caught:
        parse(text, file="shop.toml")
    found = {problem.where: problem for problem in caught.value.problems}
    assert set(found) == {
        "modus",
        "seller.time_zone",
        "actions.a.price",
        "actions.a.unit_",
        "plans.team.included.b",
        "plans.team.beyond",
    }
    assert all(problem.file == "shop.toml" and problem.what and problem.fix for problem in found.values())
    assert "`mode`" in found["modus"].fix
    assert "Europe/Berlin" in found["seller.time_zone"].fix
    assert found["actions.a.price"].fix == 'write price = "0.1"'
    assert "`unit`" in found["actions.a.unit_"].fix
    assert '"overage"' in found["plans.team.beyond"].fix
    assert str(caught.value).count("shop.toml: ") == 6


MISTAKES = [
    # (what is written, where it is reported, a word of what or fix)
    (ACTION.replace('"0.10"', "0.10"), "actions.a.price", '"0.1"'),
    (ACTION.replace('"0.10"', "1"), "actions.a.price", '"1.00"'),
    (ACTION.replace('"0.10"', "true"), "actions.a.price", "true or false"),
    (ACTION.replace('"0.10"', '"0.0000005"'), "actions.a.price", '"0.0005"'),
    (ACTION.replace('"0.10"', '"0.00"'), "actions.a.price", '"free"'),
    (ACTION.replace('"0.10"', '"-1"'), "actions.a.price", "out of bounds"),
    (ACTION.replace('"0.10"', '"1,50"'), "actions.a.price", "not an amount"),
    (ACTION.replace('"0.10"', '"$1"'), "actions.a.price", "not an amount"),
    (ACTION.replace('price = "0.10"', ""), "actions.a.price", "missing"),
    (ACTION.replace('"0.10"', '"0.000001"\nper = 1000'), "actions.a.price", "cannot charge"),
    (ACTION.replace('"0.10"', '"0.000001"\nper = 1000\nmax_units = 499'), "actions.a.price", "cannot charge"),
    (ACTION + "per = 0", "actions.a.per", "out of bounds"),
    (ACTION + "per = 1.5", "actions.a.per", "fraction"),
    (ACTION + 'measure = "bytes"', "actions.a.measure", "max_units"),
    (ACTION + 'max_units = 5\nmeasure = "byte"', "actions.a.measure", '"bytes"'),
    (ACTION + 'max_units = 5\nmeasure = "json:usage"', "actions.a.measure", "JSON pointer"),
    (ACTION + 'max_units = 5\nsettle = "before"', "actions.a.settle", "not known before"),
    (ACTION + 'on_unmeasured = "fail"', "actions.a.on_unmeasured", "measured"),
    (ACTION + 'bill_on = ["404"]', "actions.a.bill_on", "not 2xx"),
    (ACTION + 'bill_on = ["2x"]', "actions.a.bill_on", "statuses"),
    (ACTION + 'stream = "yes"', "actions.a.stream", "true"),
    (ACTION + 'mime_type = "json"', "actions.a.mime_type", "media type"),
    (ACTION.replace('["POST /a"]', '["/a"]'), "actions.a.routes[0]", "method"),
    (ACTION.replace('["POST /a"]', '["POST /a", "HEAD /a"]'), "actions.a.routes[1]", "GET /a"),
    (ACTION.replace('["POST /a"]', '["OPTIONS /a"]'), "actions.a.routes[0]", "never gated"),
    (ACTION.replace('["POST /a"]', '["POST /a/"]'), "actions.a.routes[0]", "ends with"),
    (ACTION.replace('["POST /a"]', '["POST /a//b"]'), "actions.a.routes[0]", "empty"),
    (ACTION.replace('["POST /a"]', '["POST /a%2Fb"]'), "actions.a.routes[0]", "encoded"),
    (ACTION.replace('["POST /a"]', '["POST /{a"]'), "actions.a.routes[0]", "brace"),
    (ACTION.replace('["POST /a"]', '["POST /{a}{b}"]'), "actions.a.routes[0]", "side by side"),
    (ACTION.replace('["POST /a"]', "[7]"), "actions.a.routes", "no text"),
    (ACTION + '[routes]\nfree = ["POST /a"]', "routes.free", "listed before, in actions.a.routes"),
    (ACTION + '[actions.b]\nprice = "1"\nroutes = ["POST /a"]', "actions.b.routes", "listed before"),
    (ACTION.replace("/a", "/{x}/y") + '[routes]\nfree = ["POST /y/{z}"]', "routes.free", "same paths"),
    ('[actions."a b"]\nprice = "1"', 'actions."a b"', "name"),
    ("actions = 3", "actions", "not a table"),
    ("[plans.p]\nterm = 12", "plans.p.term", "not a text"),
    ('[plans.p]\nterm = "14 days"', "plans.p.term", "number of months"),
    ('[plans.p]\nterm = "10 months"\nbilling_period = "quarter"', "plans.p.term", "multiple"),
    ('[plans.p]\nbeyond = "x402"', "plans.p.beyond", "no [x402]"),
    ('[plans.p]\novercap = "1"', "plans.p.overcap", "`overage_cap`"),
    ('[plans.p]\noverage_cap = "1"', "plans.p.overage_cap", "beyond"),
    ('[plans.p]\nbeyond = "overage"\noverage_cap = "0"', "plans.p.overage_cap", "zero"),
    ('[plans.p]\nbeyond = "overage"\nbeyond_cap = "block"', "plans.p.beyond_cap", "no overage_cap"),
    (
        '[plans.p]\nbeyond = "overage"\noverage_cap = "1"\nbeyond_cap = "overage"',
        "plans.p.beyond_cap",
        "not one of",
    ),
    (ACTION + "[plans.p]\nincluded = { a = 1.5 }", "plans.p.included.a", "fraction"),
    (
        ACTION + "[plans.p]\nincluded_per_seat = { aa = 1 }",
        "plans.p.included_per_seat.aa",
        'did you mean "a"',
    ),
    ('[seller]\nno_subscription = "x402"', "seller.no_subscription", "no [x402]"),
    ('[seller]\nrenewal_grace = "1 month"', "seller.renewal_grace", "no fixed length"),
    ('[seller]\npublic_url = "api.example.com"', "seller.public_url", "not a URL"),
    ('[seller]\npublic_url = "https://u:p@h"', "seller.public_url", "password"),
    ('[seller]\npublic_url = "https://h/?a=1"', "seller.public_url", "query"),
    ('[store]\nurl = "mysql://h/d"', "store.url", "neither"),
    ('[store]\nurl = "sqlite://headgate.db"', "store.url", "three slashes"),
    ('[store]\non_failure = "server"', "store.on_failure", '"serve"'),
    (f'[x402]\npay_to = "{PAY_TO}"', "seller.public_url", "missing"),
    (SELLER + "[x402]", "x402.pay_to", "missing"),
    (x402(pay_to="0x123"), "x402.pay_to", "not an EVM address"),
    (x402(pay_to="0x" + "0" * 40), "x402.pay_to", "nobody has the key"),
    (x402(pay_to=PAY_TO.replace("aA", "AA")), "x402.pay_to", "wrong checksum"),
    (x402(pay_to=KNOWN_ASSETS["eip155:84532"].address), "x402.pay_to", "token's own contract"),
    (x402('network = "base-sepolai"'), "x402.network", '"base-sepolia"'),
    (x402('network = ["base-sepolia", "eip155:84532"]'), "x402.network", "twice"),
    (x402('network = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"'), "x402.network", "not a network"),
    (x402('network = "polygon"\nfacilitator = "embedded"'), "x402.facilitator", "eip155:84532 only"),
    (x402('network = "base"'), "x402.facilitator", "missing for eip155:8453"),
    (x402('network = "base"\nfacilitator = "polygon"'), "x402.facilitator", "serves eip155:137"),
    (x402('facilitator = "polgon"'), "x402.facilitator", '"polygon"'),
    (x402('network = "eip155:10"\nfacilitator = "https://f.example"'), "x402.network", ".asset]"),
    (x402('[x402.networks."eip155:137"]'), 'x402.networks."eip155:137"', "not offered"),
    (x402('[x402.networks."eip155:84532"]\npayto = "x"'), 'x402.networks."eip155:84532".payto', "`pay_to`"),
    (x402('quote_ttl = "5"'), "x402.quote_ttl", "length of time"),
    (x402('quote_ttl = "1 month"'), "x402.quote_ttl", "no fixed length"),
    (x402('min_validity = "10 min"'), "x402.min_validity", "no time"),
    (x402('blocked_payers = ["0x12"]'), "x402.blocked_payers[0]", "address"),
    (x402('rpc_url = "polygon-rpc"'), "x402.rpc_url", "not a URL"),
    (x402('rpc_url = "wss://rpc.example"'), "x402.rpc_url", "beginning with https:// or http://"),
    (
        x402('[x402.networks.base-sepolia]\n[x402.networks."eip155:84532"]'),
        'x402.networks."eip155:84532"',
        "has a table already",
    ),
    (x402('facilitator = "https://f.example/x?key=1"'), "x402.facilitator", "query or fragment"),
    (x402('facilitator = "https://f.example/x#f"'), "x402.facilitator", "query or fragment"),
    (x402('facilitator = "https://f.example/?"'), "x402.facilitator", "query or fragment"),
    (x402('facilitator = "https://u:p@f.example"'), "x402.facilitator", "user or password"),
    *(
        (x402(f'facilitator_headers = {{ {name} = "x" }}'), f"x402.facilitator_headers.{name}", says)
        for name, says in [
            ("Host", "each request has of its own"),
            ("content-length", "each request has of its own"),
            ("Transfer-Encoding", "each request has of its own"),
            ("CONNECTION", "each request has of its own"),
            ("X-Credential", "looks like a secret"),
            ("X-Signature", "looks like a secret"),
            ("X-API-KEY", "looks like a secret"),
        ]
    ),
    *(
        (x402(f'facilitator_headers = {{ X-A = "{value}" }}'), "x402.facilitator_headers.X-A", "control")
        for value in (r"a\nb", r"a\u0000", r"a\u007f", "é")
    ),
    ('[auth]\nissuer = "i"', "auth.issuer", "no jwks_url"),
    ('[auth]\njwks_url = "https://i/j"\nalgorithms = ["HS256"]', "auth.algorithms", "jwks_url"),
    ('[auth]\njwks_url = "https://i/j"\nalgorithms = ["none"]', "auth.algorithms", "jwks_url"),
    ('[auth]\njwks_url = "https://i/j"\nforward_url = "https://f"', "auth.forward_url", "one way"),
    ('[auth]\ncredentials = ["x api key"]', "auth.credentials", "cookie"),
    ('[overage]\nexport = "stripe"', "overage.export", '"cloudevents"'),
    ('[overage]\nexport = "lago"', "overage.export", "not built yet"),
    ('[overage]\nexport = "openmeter"', "overage.export", "not built yet"),
    ('[overage]\nwebhook_url = "https://w.example"', "overage.webhook_url", "cloudevents"),
    ('[overage]\nsend = "all_usage"', "overage.send", "not built yet"),
    ('[overage]\nfrom = "2026-11-01"', "overage.from", "without quotes"),
    ('[gateway]\nunlisted = "passs"', "gateway.unlisted", '"pass"'),
    ('[limits]\nmax_body = "10 MB"', "limits.max_body", "KiB"),
    ('idempotency = "replays"', "idempotency", '"replay"'),
    ("usage_headers = 1", "usage_headers", "true"),
    ('mode = "prod"', "mode", "not one of"),
]


@pytest.mark.parametrize(("text", "where", "word"), MISTAKES, ids=[f"{m[1]}: {m[2]}" for m in MISTAKES])
def test_a_mistake_names_its_key_and_the_fix(text: str, where: str, word: str) -> None:
    problem = only(text)
    assert problem.where == where
    assert word in f"{problem.what} {problem.fix}"


LIVE_MISTAKES = [
    (live('network = "base-sepolia"\nfacilitator = "https://f.example"'), "x402.network", "test network"),
    (live('network = "polygon-amoy"'), "x402.network", "test network"),
    (live('network = "polygon"\nfacilitator = "http://f.example"'), "x402.facilitator", "plain HTTP"),
    (live('network = "polygon"\nfacilitator = "embedded"'), "x402.facilitator", "play money"),
    (live('network = "polygon"').replace("https://api", "http://api"), "seller.public_url", "plain HTTP"),
    (
        live('network = "polygon"').replace("https://api.example.com", "http://127.0.0.1"),
        "seller.public_url",
        "",
    ),
    (live('network = "polygon"').replace(PAY_TO, PAY_TO.lower()), "x402.pay_to", "checksum"),
    (live(""), "x402.network", "missing"),
    (live('network = "polygon"').replace(PAY_TO, DEVELOPMENT), "x402.pay_to", "everybody has"),
]


@pytest.mark.parametrize(
    ("text", "where", "word"), LIVE_MISTAKES, ids=[f"{m[1]}: {m[2]}" for m in LIVE_MISTAKES]
)
def test_live_mode_refuses_play_money_and_what_could_lose_money(text: str, where: str, word: str) -> None:
    problem = only(text)
    assert problem.where == where
    assert word in problem.what


def test_the_embedded_facilitator_is_refused_in_live_mode_even_on_its_own_network() -> None:
    found = {
        problem.where for problem in problems(live('network = "base-sepolia"\nfacilitator = "embedded"'))
    }
    assert found == {"x402.facilitator", "x402.network"}


def test_live_mode_takes_real_networks() -> None:
    config = parse(live('network = "polygon"') + ACTION)
    assert config.live
    assert config.x402 is not None
    assert config.x402.networks[0].facilitator_url == "https://x402.polygon.technology"


def test_a_broken_action_is_still_known_by_its_name() -> None:
    text = ACTION.replace('"0.10"', "0.10") + "[plans.p]\nincluded = { a = 5 }"
    assert only(text).where == "actions.a.price"


# --- x402: networks ---------------------------------------------------------------------------------


def test_several_networks_each_with_its_own_and_polygon_first() -> None:
    text = x402(
        f"""
        network = ["base", "polygon"]
        [x402.networks."eip155:8453"]
        pay_to = "{OTHER}"
        facilitator = "https://f.example/base/"
        facilitator_headers = {{ Authorization = "Bearer ${{BASE_KEY}}", X-Client = "acme" }}
        rpc_url = "https://rpc.example/${{RPC_KEY}}"
        """
    )
    config = parse(text + ACTION, environ={"BASE_KEY": "s3cret", "RPC_KEY": "rpckey"})
    assert config.x402 is not None
    polygon, base = config.x402.networks
    assert (polygon.caip2, polygon.pay_to) == ("eip155:137", PAY_TO)
    assert polygon.facilitator_url == "https://x402.polygon.technology"
    assert (base.caip2, base.pay_to, base.facilitator_url) == ("eip155:8453", OTHER, "https://f.example/base")
    assert base.facilitator_headers == {"Authorization": "Bearer s3cret", "X-Client": "acme"}
    assert base.rpc_url == "https://rpc.example/rpckey"
    assert "s3cret" not in repr(config)
    assert "rpckey" not in repr(config)


def test_a_network_headgate_does_not_know_is_added_by_its_token() -> None:
    text = x402(
        f"""
        network = "eip155:10"
        facilitator = "https://f.example"
        [x402.networks."eip155:10".asset]
        address = "{OTHER}"
        name = "USD Coin"
        version = "2"
        """
    )
    config = parse(text + ACTION)
    assert config.x402 is not None
    asset = config.x402.networks[0].asset
    assert (asset.network, asset.address, asset.name, asset.decimals, asset.test) == (
        "eip155:10",
        OTHER,
        "USD Coin",
        6,
        False,
    )
    assert "6" in only(text.replace('version = "2"', 'version = "2"\ndecimals = 18')).fix


def test_a_test_network_of_ones_own_is_refused_in_live_mode() -> None:
    text = f"""
        mode = "live"
        {SELLER}
        [x402]
        pay_to = "{PAY_TO}"
        network = "eip155:11155111"
        facilitator = "https://f.example"
        [x402.networks."eip155:11155111".asset]
        address = "{OTHER}"
        name = "USDC"
        version = "2"
    """
    assert "test network" in only(text).what


def test_accepts_blocks_say_the_list_price_again() -> None:
    block = (
        '{ scheme = "exact", network = "base-sepolia", maxAmountRequired = "%s", description = "One page" }'
    )
    for same in ("100000", "0.10", "$0.10"):
        config = parse(x402() + ACTION + f"accepts = [{block % same}]")
        assert config.catalog.actions["a"].accepts == (Accept("exact", "eip155:84532", "One page"),)
    problem = only(x402() + ACTION + f"accepts = [{block % '200000'}]")
    assert problem.where == "actions.a.accepts[0].maxAmountRequired"
    assert '"100000"' in problem.fix
    wrong = block.replace("exact", "upto").replace("base-sepolia", "polygon") % "100000"
    where = {problem.where for problem in problems(x402() + ACTION + f"accepts = [{wrong}]")}
    assert where == {"actions.a.accepts[0].scheme", "actions.a.accepts[0].network"}
    ceiling = (
        x402() + ACTION + "max_units = 3\n" + "accepts = [" + block.replace("exact", "upto") % "300000" + "]"
    )
    assert parse(ceiling).catalog.actions["a"].accepts[0].scheme == "upto"


# --- environment and secrets ------------------------------------------------------------------------


def test_the_environment_overrides() -> None:
    environ = {
        "HEADGATE_DATABASE_URL": "postgresql://u:pw@db/headgate",
        "HEADGATE_PAY_TO": OTHER,
        "HEADGATE_FACILITATOR_URL": "https://f.example",
        "HEADGATE_NETWORK": "polygon, base",
        "HEADGATE_PUBLIC_URL": "https://other.example/",
        "HEADGATE_ADMIN_TOKEN": "t0ken",
    }
    config = parse(CONTRACT, environ=environ)
    assert config.store.url == "postgresql://u:pw@db/headgate"
    assert config.seller.public_url == "https://other.example"
    assert config.admin_token == "t0ken"
    assert config.x402 is not None
    assert [network.caip2 for network in config.x402.networks] == ["eip155:137", "eip155:8453"]
    assert {(network.pay_to, network.facilitator_url) for network in config.x402.networks} == {
        (OTHER, "https://f.example")
    }
    assert not re.search("t0ken|u:pw", repr(config))


def test_a_wrong_override_is_named_as_such_and_an_empty_one_ignored() -> None:
    problem = only(CONTRACT, {"HEADGATE_NETWORK": "bass"})
    assert problem.where == "HEADGATE_NETWORK (environment)"
    assert parse(CONTRACT, environ={"HEADGATE_NETWORK": ""}) == parse(CONTRACT)


SECRETS_IN_THE_FILE = [
    ('[auth]\nsecret = "correct horse battery staple!!"', "auth.secret", "${JWT_SECRET}"),
    ('[store]\nurl = "postgresql://u:correct horse@h/d"', "store.url", "HEADGATE_DATABASE_URL"),
    ('admin_token = "correct horse"', "admin_token", "environment"),
    ('[overage]\napi_key = "correct horse"', "overage.api_key", "environment"),
    (x402('private_key = "correct horse"'), "x402.private_key", "environment"),
    (
        x402('facilitator_headers = { Authorization = "Bearer correct horse" }'),
        "Authorization",
        "FACILITATOR_KEY",
    ),
    (x402(pay_to="0x" + "12" * 32), "x402.pay_to", "40 hexadecimal"),
]


@pytest.mark.parametrize(
    ("text", "where", "fix"), SECRETS_IN_THE_FILE, ids=[s[1] for s in SECRETS_IN_THE_FILE]
)
def test_a_secret_in_the_file_is_refused_and_never_repeated(text: str, where: str, fix: str) -> None:
    problem = only(text)
    assert problem.where.endswith(where)
    assert fix in problem.fix
    assert "correct horse" not in str(problem)
    assert "1212" not in str(problem)


def test_a_jwt_secret_comes_from_the_environment() -> None:
    text = '[auth]\nsecret = "${JWT_SECRET}"\naudience = "api"\n'
    text += 'credentials = ["Authorization", "cookie:Session"]'
    secret = "0123456789abcdef0123456789abcdef"
    auth = parse(text, environ={"JWT_SECRET": secret}).auth
    assert (auth.secret, auth.algorithms, auth.audience) == (secret, ("HS256",), "api")
    assert auth.credentials == ("authorization", "cookie:Session")
    assert "JWT_SECRET" in only(text).fix
    assert "32 bytes" in only(text, {"JWT_SECRET": "short"}).what


def test_cloudevents_need_an_address_and_a_secret() -> None:
    text = '[seller]\ntime_zone = "Europe/Berlin"\n[overage]\nexport = "cloudevents"\nfrom = 2026-11-01\n'
    found = {problem.where for problem in problems(text)}
    assert found == {"overage.webhook_url", "overage.export"}
    environ = {"HEADGATE_OVERAGE_SECRET": "whsec_x"}
    overage = parse(text + 'webhook_url = "https://w.example/hook"', environ=environ).overage
    assert (overage.export, overage.webhook_url) == ("cloudevents", "https://w.example/hook")
    assert overage.secret == "whsec_x"
    assert overage.from_us == 1_793_487_600_000_000  # midnight of 1 November 2026 in Berlin, UTC+1


# --- files -------------------------------------------------------------------------------------------


def test_loads_the_named_file_else_the_environments(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(CONTRACT)
    two.write_text(ACTION)
    assert load(str(one), {}).seller.name == "Acme Documents"
    config: Config = load(None, {"HEADGATE_CONFIG": str(two)})
    assert (config.path, list(config.catalog.actions)) == (str(two), ["a"])


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path, word in ((tmp_path / "none.toml", "headgate init"), (tmp_path, "readable"), (binary, "UTF-8")):
        with pytest.raises(ConfigError) as caught:
            load(str(path), {})
        (problem,) = caught.value.problems
        assert word in problem.fix
    with pytest.raises(ConfigError, match="line 1"):
        parse("a = b")


# --- whatever is written -----------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_any_text_loads_or_is_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        parse(text)


KEYS = sorted(
    set(re.findall(r"^\s*\[?([a-z_]+)", CONTRACT, re.MULTILINE)) | {"accepts", "networks", "auth", "from"}
)
scalars = st.one_of(
    st.sampled_from(
        [
            '""',
            '"x402"',
            '"free"',
            "true",
            "-1",
            "1.5",
            "1e400",
            "nan",
            "2026-11-01",
            "9" * 30,
            '"${A}"',
            '"é\\u0000"',
        ]
    ),
    st.sampled_from(
        [
            f'"{PAY_TO}"',
            '"GET /{a}"',
            '"http://[::1"',
            '"0.0000000000001"',
            '"1 year"',
            '"a b"',
            "1979-05-27T07:32:00Z",
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from([*KEYS, '"a.b"', '"eip155:137"']), inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["", *KEYS]), values), max_size=6))
def test_any_value_under_any_key_loads_or_is_a_config_error(entries: list[tuple[str, str, str]]) -> None:
    text = "\n".join(f"{key}.{sub} = {value}" if sub else f"{key} = {value}" for key, sub, value in entries)
    with suppress(ConfigError):
        parse(text)


@settings(max_examples=300)
@given(st.data())
def test_the_contracts_example_with_a_line_replaced_loads_or_is_a_config_error(data: st.DataObject) -> None:
    lines = CONTRACT.splitlines()
    number = data.draw(st.sampled_from([i for i, line in enumerate(lines) if "=" in line]))
    lines[number] = lines[number].partition("=")[0] + "= " + data.draw(values)
    with suppress(ConfigError):
        parse("\n".join(lines), environ={"A": data.draw(st.text(max_size=20))})


# --- facilitators, whoever names them ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://user:secret@f.example", "user or password"),
        ("https://secret@f.example", "user or password"),
        ("https://f.example/x?key=secret", "query or fragment"),
        ("https://f.example/x#secret", "query or fragment"),
    ],
)
@pytest.mark.parametrize("named", ["by its variable", "by reference", "on a network"])
def test_a_facilitator_s_url_holds_no_secret(named: str, url: str, word: str) -> None:
    """Logs name it, and `/verify` is appended to it."""
    text = {
        "by its variable": x402(),
        "by reference": x402('facilitator = "${URL}"'),
        "on a network": x402('[x402.networks.base-sepolia]\nfacilitator = "${URL}"'),
    }[named]
    environ = {"HEADGATE_FACILITATOR_URL" if named == "by its variable" else "URL": url}
    with pytest.raises(ConfigError) as refused:
        parse(text + ACTION, environ=environ)
    (problem,) = refused.value.problems
    assert "facilitator" in problem.where.lower()
    assert word in problem.what
    assert "secret" not in str(refused.value)


def test_headers_for_a_facilitator_are_stripped() -> None:
    """A key that was read from a file often ends with a newline."""
    text = x402('facilitator = "https://f.example"\nfacilitator_headers = { X-Key = "${KEY}", X-B = " b " }')
    config = parse(text + ACTION, environ={"KEY": "k3y\n"})
    assert config.x402 is not None
    assert config.x402.networks[0].facilitator_headers == {"X-Key": "k3y", "X-B": "b"}
    with pytest.raises(ConfigError, match="control characters"):
        parse(text + ACTION, environ={"KEY": "k3y\nX-Evil: 1"})
