"""Reading what is sold: `[actions.*]`, `[routes]` and `[plans.*]` into a Catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headgate.config.accepts import read_accepts
from headgate.config.reader import Section, did_you_mean, path_of
from headgate.config.values import MAX_MONEY_MICROS, read_money, read_months
from headgate.model.catalog import Action, Beyond, Catalog, Measure, Plan, Route
from headgate.model.money import amount_micros, format_usd
from headgate.model.path_pattern import RouteFault, parse_route
from headgate.model.routing import clashes

MAX_UNITS = 10**12
MAX_ALLOWANCE = 10**15
MEASURES = ("code", "header", "bytes")
OPEN_ENDED = "open"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_STATUSES = re.compile(r"([0-9])xx|([0-9]{3})(?:\s*-\s*([0-9]{3}))?")
_MIME_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", re.IGNORECASE)


def read_catalog(root: Section, networks: tuple[str, ...] | None) -> Catalog:
    """Actions, plans and free routes. `networks`: where x402 is offered; None: nothing is sold by payment."""
    actions = _read_actions(root.table("actions"), networks)
    routes = root.table("routes")
    free = _read_routes(routes, "free", "GET /healthz")
    routes.finish()
    plans = _read_plans(root.table("plans"), tuple(actions), sells_x402=networks is not None)
    _refuse_clashes(root, actions, free)
    return Catalog(actions=actions, plans=plans, free=free)


def _read_actions(section: Section, networks: tuple[str, ...] | None) -> Mapping[str, Action]:
    actions: dict[str, Action] = {}
    for name in section.names():
        entry = section.table(name)
        if not entry.present:
            continue
        if not _NAME.fullmatch(name):
            section.problem(
                name,
                "is no name for an action",
                'use letters, digits and `. _ - : /`: [actions."documents.process"]',
            )
        action = _read_action(name, entry, networks)
        entry.finish()
        actions[name] = action
    return actions


def _read_action(name: str, entry: Section, networks: tuple[str, ...] | None) -> Action:
    """An action; where its price is wrong, free: it is still known by name to whatever refers to it."""
    per = entry.whole("per", 1, low=1, high=MAX_UNITS)
    max_units = entry.whole("max_units", None, low=1, high=MAX_UNITS)
    price_micros = _read_price(entry)
    action = Action(
        name=name,
        title=entry.text("title") or name,
        unit=entry.text("unit") or "request",
        price_micros=price_micros or 0,
        per=per,
        routes=_read_routes(entry, "routes", "POST /v1/documents/process"),
        max_units=max_units,
        measure=_read_measure(entry, max_units),
        bill_on=_read_bill_on(entry),
        on_unmeasured=entry.choice("on_unmeasured", ("fail", "ceiling"), "fail"),
        settle=entry.choice("settle", ("after", "before"), "after"),
        stream=entry.flag("stream", False),
        mime_type=_read_mime_type(entry),
    )
    if price_micros is None:
        read_accepts(entry, None, networks)
        return action
    _check_coherence(entry, action)
    return _with_accepts(entry, action, networks)


def _with_accepts(entry: Section, action: Action, networks: tuple[str, ...] | None) -> Action:
    accepts = read_accepts(entry, action, networks)
    if not accepts:
        return action
    fields = {name: getattr(action, name) for name in Action.__slots__}
    return Action(**{**fields, "accepts": accepts})


def _read_price(entry: Section) -> int | None:
    """Micro-dollars; 0 is written `free`; None: missing or wrong."""
    if entry.raw("price") is None:
        entry.problem("price", "is missing", 'write price = "0.10" (USD), or price = "free"')
        return None
    if entry.raw("price") == "free":
        return 0
    micros = read_money(entry, "price")
    if micros == 0:
        entry.problem("price", "is zero, which charges nothing", 'write price = "free" if that is meant')
        return None
    return micros


def _check_coherence(entry: Section, action: Action) -> None:
    """What is wrong between the keys of one action."""
    largest = 1 if action.max_units is None else action.max_units
    if not action.free:
        ceiling = amount_micros(largest, action.price_micros, action.per)
        if ceiling == 0:
            entry.problem(
                "price",
                f"cannot charge anything: {largest} {action.unit} at {format_usd(action.price_micros)} per "
                f"{action.per} is less than a millionth of a dollar",
                "raise the price, or lower `per`"
                + ("" if action.max_units is None else ", or raise `max_units`"),
            )
        elif ceiling > MAX_MONEY_MICROS:
            entry.problem(
                "max_units", "makes one request cost more than can be stored", "lower it or the price"
            )
    if action.max_units is None:
        if entry.has("measure"):
            entry.problem(
                "measure",
                "measures use, but the action has no ceiling",
                "add max_units = …, the most one request uses",
            )
        elif entry.has("on_unmeasured"):
            entry.problem("on_unmeasured", "applies to measured use only", "remove it, or add `max_units`")
    elif action.settle == "before":
        entry.problem(
            "settle",
            "a variable cost is not known before the work",
            'remove it; "before" is for fixed prices',
        )


def _read_measure(entry: Section, max_units: int | None) -> Measure | None:
    text = entry.text("measure")
    if text is None:
        return None if max_units is None else Measure("code")
    kind, colon, pointer = text.partition(":")
    if kind == "json" and colon:
        if not pointer.startswith("/") or "~" in re.sub(r"~[01]", "", pointer):
            entry.problem(
                "measure",
                f'"{pointer[:60]}" is not a JSON pointer',
                'write measure = "json:/usage/total_tokens"',
            )
            return None
        return Measure("json", pointer)
    if text not in MEASURES:
        meant = did_you_mean(text, MEASURES)
        entry.problem(
            "measure",
            f'"{text[:60]}" is not a way to measure',
            f'did you mean "{meant}"?' if meant else 'write "code", "header", "bytes" or "json:/pointer"',
        )
        return None
    return Measure(text)


def _read_mime_type(entry: Section) -> str:
    text = entry.text("mime_type")
    if text is None:
        return "application/json"
    if not _MIME_TYPE.fullmatch(text):
        entry.problem(
            "mime_type", f'"{text[:60]}" is not a media type', 'write mime_type = "application/json"'
        )
        return "application/json"
    return text


def _read_bill_on(entry: Section) -> tuple[tuple[int, int], ...]:
    """Status ranges; whole numbers count as themselves."""
    value = entry.raw("bill_on")
    if value is None:
        return ((200, 299),)
    items = value if isinstance(value, list) else [value]
    ranges = tuple(sorted(filter(None, (_status_range(item) for item in items))))
    outside = [one for one in ranges if not 200 <= one[0] <= one[1] <= 299]
    if not items or len(ranges) != len(items) or outside:
        entry.problem(
            "bill_on",
            "bills an answer that is not 2xx" if outside else "is not a list of statuses",
            'write bill_on = ["200-202", "206"]; it can only narrow 2xx',
        )
        return ((200, 299),)
    return ranges


def _status_range(item: object) -> tuple[int, int] | None:
    if isinstance(item, bool) or not isinstance(item, int | str):
        return None
    found = _STATUSES.fullmatch(str(item)[:20].strip())
    if found is None:
        return None
    if found[1]:
        return int(found[1]) * 100, int(found[1]) * 100 + 99
    return int(found[2]), int(found[3] or found[2])


def _read_routes(section: Section, key: str, example: str) -> tuple[Route, ...]:
    """Sorted, as a published catalog has them."""
    routes = []
    for index, text in section.texts(key, example):
        try:
            routes.append(parse_route(text))
        except RouteFault as fault:
            section.problem(f"{key}[{index}]", fault.what, fault.fix)
    return tuple(sorted(routes, key=str))


def _refuse_clashes(root: Section, actions: Mapping[str, Action], free: tuple[Route, ...]) -> None:
    claimed = [
        (route, path_of("actions", action.name, "routes"))
        for action in actions.values()
        for route in action.routes
    ]
    claimed += [(route, path_of("routes", "free")) for route in free]
    for clash in clashes(claimed):
        root.problems.add(
            clash.second_where,
            f'"{clash.second}" is listed before, in {clash.first_where}'
            if clash.same
            else f'"{clash.second}" and "{clash.first}" of {clash.first_where} match some of the same paths',
            "keep it in one place" if clash.same else "make one of them narrower than the other, or exact",
        )


def _read_plans(section: Section, actions: tuple[str, ...], *, sells_x402: bool) -> Mapping[str, Plan]:
    plans: dict[str, Plan] = {}
    for name in section.names():
        entry = section.table(name)
        if not entry.present:
            continue
        if not _NAME.fullmatch(name):
            section.problem(
                name, "is no name for a plan", "use letters, digits and `. _ - : /`: [plans.team]"
            )
        plans[name] = _read_plan(name, entry, actions, sells_x402=sells_x402)
        entry.finish()
    return plans


def _read_plan(name: str, entry: Section, actions: tuple[str, ...], *, sells_x402: bool) -> Plan:
    plan = Plan(
        name=name,
        title=entry.text("title") or name,
        term_months=None if entry.raw("term") == OPEN_ENDED else read_months(entry, "term", 12),
        period_months=read_months(entry, "billing_period", 1),
        price_per_seat_micros=read_money(entry, "price_per_seat") or 0,
        included_per_seat=_read_included(entry, "included_per_seat", actions),
        included=_read_included(entry, "included", actions),
        beyond=Beyond(entry.choice("beyond", ("overage", "x402", "block"), "block")),
        overage_cap_micros=read_money(entry, "overage_cap"),
        beyond_cap=Beyond(entry.choice("beyond_cap", ("x402", "block"), "block")),
    )
    if plan.term_months is not None and plan.term_months % plan.period_months:
        entry.problem(
            "term",
            f"of {plan.term_months} months is not made of whole billing periods of {plan.period_months}",
            "make it a multiple of billing_period",
        )
    _check_beyond(entry, plan, sells_x402=sells_x402)
    return plan


def _check_beyond(entry: Section, plan: Plan, *, sells_x402: bool) -> None:
    if entry.has("overage_cap") and plan.beyond is not Beyond.OVERAGE:
        entry.problem(
            "overage_cap",
            f'caps overage, but beyond is "{plan.beyond.value}"',
            'remove it, or write beyond = "overage"',
        )
    elif plan.overage_cap_micros == 0:
        entry.problem(
            "overage_cap", "of zero allows no overage at all", 'write beyond = "block" or "x402" instead'
        )
    if entry.has("beyond_cap") and not entry.has("overage_cap"):
        entry.problem(
            "beyond_cap",
            "says what follows a cap, but there is no overage_cap",
            "remove it, or add overage_cap",
        )
    for key, channel in (("beyond", plan.beyond), ("beyond_cap", plan.beyond_cap)):
        if channel is Beyond.X402 and not sells_x402:
            entry.problem(
                key, 'is "x402", but the file has no [x402]', "add [x402] with pay_to, or choose another"
            )


def _read_included(entry: Section, key: str, actions: tuple[str, ...]) -> Mapping[str, int]:
    table = entry.table(key)
    included: dict[str, int] = {}
    for name in table.names():
        units = table.whole(name, None, low=0, high=MAX_ALLOWANCE)
        if name not in actions:
            meant = did_you_mean(name, actions)
            table.problem(
                name,
                "is not an action of this file",
                f'did you mean "{meant}"?'
                if meant
                else f"add [{path_of('actions', name)}], or remove it here",
            )
        elif units is not None:
            included[name] = units
    return included
