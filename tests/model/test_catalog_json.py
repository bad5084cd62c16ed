"""Published catalogs: what is written is read back, and the text differs exactly where something does."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.catalog import Accept, Action, Beyond, Catalog, Measure, Plan, Route
from headgate.model.catalog_diff import diff_catalogs
from headgate.model.catalog_json import catalog_from_json, catalog_to_json
from headgate.model.errors import InputError

names = st.text('abc.é"\\', min_size=1, max_size=4)
units = st.integers(0, 10**15)
routes = st.lists(
    st.builds(
        Route, st.sampled_from(["GET", "POST"]), st.sampled_from(["/a", "/b/{id}", "/c/{r:path}", "/é"])
    ),
    max_size=3,
    unique=True,
).map(lambda listed: tuple(sorted(listed, key=str)))
actions = st.builds(
    Action,
    name=st.just(""),
    title=names,
    unit=names,
    price_micros=units,
    per=st.integers(1, 10**12),
    routes=routes,
    max_units=st.none() | st.integers(1, 10**12),
    measure=st.none() | st.sampled_from([Measure("code"), Measure("bytes"), Measure("json", "/a:b/c")]),
    bill_on=st.sampled_from([((200, 299),), ((200, 200), (202, 204))]),
    on_unmeasured=st.sampled_from(["fail", "ceiling"]),
    settle=st.sampled_from(["after", "before"]),
    stream=st.booleans(),
    mime_type=st.sampled_from(["application/json", "text/plain"]),
    accepts=st.sampled_from([(), (Accept("exact", "eip155:137", "é"),)]),
)
plans = st.builds(
    Plan,
    name=st.just(""),
    title=names,
    term_months=st.none() | st.integers(1, 60),
    period_months=st.integers(1, 12),
    price_per_seat_micros=units,
    included_per_seat=st.dictionaries(names, units, max_size=2),
    included=st.dictionaries(names, units, max_size=2),
    beyond=st.sampled_from(Beyond),
    overage_cap_micros=st.none() | units,
    beyond_cap=st.sampled_from(Beyond),
)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    sold = draw(st.dictionaries(names, actions, max_size=3))
    planned = draw(st.dictionaries(names, plans, max_size=3))
    return Catalog(
        actions={name: replace(action, name=name) for name, action in sold.items()},
        plans={name: replace(plan, name=name) for name, plan in planned.items()},
        free=draw(routes),
        version=draw(st.integers(0, 9)),
        effective_us=draw(units),
    )


@given(catalogs())
def test_what_is_written_is_read_back(catalog: Catalog) -> None:
    text = catalog_to_json(catalog)
    assert catalog_from_json(text, version=catalog.version, effective_us=catalog.effective_us) == catalog
    assert catalog_to_json(catalog_from_json(text)) == text


@given(catalogs(), catalogs())
def test_texts_differ_exactly_where_the_difference_has_lines(one: Catalog, other: Catalog) -> None:
    assert (catalog_to_json(one) == catalog_to_json(other)) == (diff_catalogs(one, other) == ())


DOCUMENT = Action("doc", "Document", "document", 100_000, routes=(Route("POST", "/d"), Route("GET", "/d")))


def test_order_version_and_time_do_not_matter() -> None:
    chat = Action("chat", "Chat", "token", 2_000, per=1000, max_units=5, measure=Measure("code"))
    one = Catalog(
        {"doc": DOCUMENT, "chat": chat}, {}, free=(Route("GET", "/x"), Route("GET", "/a")), version=1
    )
    turned = replace(DOCUMENT, routes=DOCUMENT.routes[::-1])
    other = Catalog({"chat": chat, "doc": turned}, {}, free=one.free[::-1], version=7, effective_us=5)
    assert catalog_to_json(one) == catalog_to_json(other)


def test_the_text_is_fixed_because_digests_are_kept() -> None:
    plan = Plan("team", "Team", included={"doc": 5}, beyond=Beyond.OVERAGE, overage_cap_micros=1_500_000)
    text = catalog_to_json(Catalog({"doc": DOCUMENT}, {"team": plan}, free=(Route("GET", "/healthz"),)))
    assert text == (
        '{"actions":{"doc":{"name":"doc","price":"0.100000","routes":["GET /d","POST /d"],"title":"Document",'
        '"unit":"document"}},"format":1,"free":["GET /healthz"],"plans":{"team":{"beyond":"overage",'
        '"included":{"doc":5},"name":"team","overage_cap":"1.500000","title":"Team"}}}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"format": 2, "actions": {}, "plans": {}, "free": []}',
        '{"format": 1, "actions": {"a": {"name": "a"}}, "plans": {}, "free": []}',
        '{"format": 1, "actions": {"a": {"colour": "red"}}, "plans": {}, "free": []}',
        '{"format": 1, "actions": {}, "plans": {}, "free": ["/x"]}',
        '{"format": 1, "actions": {}, "plans": [], "free": []}',
    ],
)
def test_what_is_no_catalog_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        catalog_from_json(text)


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.integers(), lambda x: st.lists(x, max_size=2), max_leaves=4
    )
)
def test_any_value_in_any_place_is_read_or_refused(value: object) -> None:
    body = json.loads(catalog_to_json(Catalog({"doc": DOCUMENT}, {"p": Plan("p", "P")})))
    for place in (body, body["actions"]["doc"], body["plans"]["p"]):
        for key in place:
            kept, place[key] = place[key], value
            with suppress(InputError):
                catalog_from_json(json.dumps(body))
            place[key] = kept
