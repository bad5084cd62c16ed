"""What publishing a catalog would change, told before it does."""

from __future__ import annotations

from dataclasses import replace

from headgate.model.catalog import Accept, Action, Beyond, Catalog, Measure, Plan, Route
from headgate.model.catalog_diff import CatalogChange, diff_catalogs, repriced_actions

FULL = Action(
    name="chat.complete",
    title="Chat – 'é'",
    unit="token",
    price_micros=2_000,
    per=1000,
    routes=(Route("POST", "/v1/chat"), Route("GET", "/v1/{id}")),
    max_units=25_000,
    measure=Measure("json", "/usage/total"),
    bill_on=((200, 200), (206, 226)),
    on_unmeasured="ceiling",
    stream=True,
    accepts=(Accept("upto", "eip155:137", "tokens"),),
)
PLAN = Plan(
    "team", "Team", None, 3, 49_000_000, {"doc": 5}, {"chat.complete": 7}, Beyond.OVERAGE, 0, Beyond.X402
)
DOC = Action("doc", "Document", "document", 100_000, routes=(Route("POST", "/docs"),))
CATALOG = Catalog({"doc": DOC, "chat.complete": FULL}, {"team": PLAN}, (Route("GET", "/healthz"),))


def test_differences_are_told_as_in_the_configuration() -> None:
    new = Catalog(
        {
            "doc": replace(DOC, price_micros=120_000, bill_on=((200, 200),)),
            "extra": replace(DOC, title="Extra"),
        },
        {"team": replace(PLAN, beyond=Beyond.BLOCK, included_per_seat={"doc": 9}, overage_cap_micros=None)},
    )
    assert set(diff_catalogs(CATALOG, new)) == {
        CatalogChange('actions."chat.complete"', "Chat – 'é'", None),
        CatalogChange('actions."extra"', None, "Extra"),
        CatalogChange('actions."doc".price', "0.100000", "0.120000"),
        CatalogChange('actions."doc".bill_on', "200-299", "200-200"),
        CatalogChange('plans."team".beyond', "overage", "block"),
        CatalogChange('plans."team".included_per_seat', "doc = 5", "doc = 9"),
        CatalogChange('plans."team".overage_cap', "0.000000", None),
        CatalogChange("routes.free", "GET /healthz", ""),
    }
    assert diff_catalogs(CATALOG, replace(CATALOG, version=3, effective_us=8)) == ()
    turned = replace(FULL, routes=FULL.routes[::-1])
    assert diff_catalogs(CATALOG, replace(CATALOG, actions={"doc": DOC, "chat.complete": turned})) == ()
    assert repriced_actions(CATALOG, new) == ("doc",)
