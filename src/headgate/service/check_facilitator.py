"""Asking the outside world for a check: facilitators for what they settle, nodes for the token."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from yarl import URL

from headgate.config import Config, NetworkConfig
from headgate.config.reader import path_of
from headgate.model.errors import ChainError, FacilitatorUnreachable
from headgate.model.offer import Scheme
from headgate.service.finding import Finding
from headgate.x402.answers import ANSWER_BYTES, Supported, supported_answer
from headgate.x402.chain import Chain
from headgate.x402.rpc import HttpNode
from headgate.x402.transport import Connections, NoAnswer, NotReached, Reply

TIMEOUT_MS = 10_000
CLOCK_SKEW_S = 30


async def facilitator_findings(config: Config, now_us: Callable[[], int]) -> list[Finding]:
    """Whether each offered network can be verified and settled; all of them are asked at once."""
    if config.x402 is None:
        return []
    schemes = _schemes(config)
    asked = [_network_findings(network, schemes, now_us) for network in config.x402.networks]
    return [finding for findings in await asyncio.gather(*asked) for finding in findings]


def _schemes(config: Config) -> frozenset[Scheme]:
    """The schemes the catalog's actions need."""
    sold = [action for action in config.catalog.actions.values() if not action.free]
    return frozenset(Scheme.UPTO if action.variable else Scheme.EXACT for action in sold)


async def _network_findings(
    network: NetworkConfig, schemes: frozenset[Scheme], now_us: Callable[[], int]
) -> list[Finding]:
    findings = await _node_findings(network)
    where = path_of("x402", "networks", network.caip2, "facilitator")
    if network.embedded:
        if importlib.util.find_spec("eth") is None:
            findings.append(
                Finding.error(
                    "x402.facilitator", "the embedded one needs py-evm", "pip install 'headgate[demo]'"
                )
            )
        return findings
    try:
        reply = await _ask(network.facilitator_url, network.facilitator_headers)
        supported = supported_answer(network.facilitator_url, reply.status, reply.body)
    except (FacilitatorUnreachable, NotReached, NoAnswer) as error:
        findings.append(
            Finding.error(
                where,
                f"{network.facilitator_url} gave no list of what it settles ({error}); "
                + _until_it_does(schemes),
                "check the facilitator's URL, its headers (API key) and the network between",
            )
        )
        return findings
    return [
        *findings,
        *_clock_findings(where, reply, now_us),
        *_ability_findings(where, network, supported, schemes),
    ]


def _until_it_does(schemes: frozenset[Scheme]) -> str:
    """What a seller's buyers meet meanwhile."""
    parts = []
    if Scheme.EXACT in schemes or not schemes:
        parts.append("fixed prices are offered, and payments may answer 503")
    if Scheme.UPTO in schemes:
        parts.append("measured actions are not offered here: their routes answer 503")
    return ", ".join(parts) + " until it does"


async def _ask(url: str, headers: Mapping[str, str]) -> Reply:
    connections = Connections(max_answer_bytes=ANSWER_BYTES)
    try:
        return await connections.ask(
            "GET",
            URL(url + "/supported"),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
            timeout=connections.timeout(TIMEOUT_MS),
        )
    finally:
        await connections.close()


def _clock_findings(where: str, reply: Reply, now_us: Callable[[], int]) -> list[Finding]:
    """Payments carry their own time window, so clocks must agree (failure case 13)."""
    try:
        theirs_s = int(parsedate_to_datetime(reply.headers.get("Date", "")).timestamp())
    except (TypeError, ValueError, OverflowError):
        return []
    ahead_s = now_us() // 1_000_000 - theirs_s
    if abs(ahead_s) <= CLOCK_SKEW_S:
        return []
    direction = "ahead of" if ahead_s > 0 else "behind"
    return [
        Finding.warning(
            where,
            f"this machine's clock is {abs(ahead_s)} s {direction} the facilitator's: payments look expired "
            "or too early",
            "synchronise the clock (NTP)",
        )
    ]


def _ability_findings(
    where: str, network: NetworkConfig, supported: Supported, schemes: frozenset[Scheme]
) -> list[Finding]:
    findings = []
    for scheme in sorted(schemes):
        if not supported.takes(scheme, network.caip2):
            findings.append(
                Finding.error(
                    where,
                    f"{network.facilitator_url} does not settle {scheme.value} payments on {network.caip2}",
                    f"choose one that does in [{path_of('x402', 'networks', network.caip2)}]"
                    + (", or sell for a fixed price" if scheme is Scheme.UPTO else ""),
                )
            )
        elif scheme is Scheme.UPTO and supported.upto_address(network.caip2) is None:
            findings.append(
                Finding.error(
                    where,
                    f"{network.facilitator_url} does not say which account settles upto on {network.caip2}, "
                    "which an offer must name",
                    "choose another facilitator, or sell for a fixed price",
                )
            )
    if not findings:
        found = " and ".join(scheme.value for scheme in sorted(schemes)) or "x402"
        findings.append(
            Finding.info(where, f"{network.facilitator_url} answers, and settles {found} on {network.caip2}")
        )
    return findings


async def _node_findings(network: NetworkConfig) -> list[Finding]:
    """Whether the token on chain is the one configured, where a node is configured."""
    where = path_of("x402", "networks", network.caip2, "rpc_url")
    if network.rpc_url is None:
        return [] if network.embedded else [_without_node(where)]
    chain = Chain(HttpNode(network.rpc_url, timeout_ms=TIMEOUT_MS))
    try:
        misfit = await chain.misfits(network.asset)
    except ChainError as error:
        return [Finding.error(where, f"the node gives no answer: {error}", "check the URL and its key")]
    finally:
        await chain.close()
    if misfit is None:
        return [Finding.info(where, "the node answers; the token is the one configured")]
    return [Finding.error(where, misfit, "correct the token's address, name and version, or the node's URL")]


def _without_node(where: str) -> Finding:
    return Finding.warning(
        where,
        "is not set: the outcome of a settlement that the facilitator does not answer can stay unknown, and "
        "a transfer that the chain takes back goes unnoticed",
        'write rpc_url = "${RPC_URL}", a node of this network',
    )
