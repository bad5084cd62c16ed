"""The import: customers, references, contracts, own terms, seats and use so far; again and again."""

from __future__ import annotations

# ruff: noqa: E501  a row of these tables is one line of a file and what is said about it
import pytest

from headgate.model.subscription import Price, standing
from headgate.service.customers import archive_customer, create_customer, show_customer
from headgate.service.import_csv import ImportReport, import_customers
from headgate.service.import_rows import CsvError
from headgate.service.subscribe import (
    Change,
    cancel_subscription,
    list_subscriptions,
    show_subscription,
    update_subscription,
)
from headgate.store.driver import Driver
from headgate.store.registry import Registry
from tests.registries import CATALOG, DAY, GRACE, NOW

HEADER = "customer,name,email,ref_stripe,plan,seats,start,time_zone,allowance:doc,overage_price:chat,used:doc,seat_ids\n"
ROW = 'acme,"Acme, Inc.",a@acme.test,cus_1,team,3,2026-04-01,Europe/Berlin,900,0.001,120,ann bob|carl\n'
LONE = "solo,,,,,,,,,,,\n"


async def load(
    registry: Registry, text: str | bytes, at_us: int = NOW, dry_run: bool = False
) -> ImportReport:
    return await import_customers(registry, text, now_us=at_us, seller_zone="UTC", dry_run=dry_run)


async def problems(registry: Registry, text: str | bytes) -> list[str]:
    """What the import complains about; it must have written nothing."""
    before = await registry.generation()
    with pytest.raises(CsvError) as caught:
        await load(registry, text)
    assert await registry.generation() == before
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


async def test_a_row_becomes_a_customer_under_contract(registry: Registry) -> None:
    report = await load(registry, HEADER + ROW + LONE)
    assert (report.created, report.updated, report.unchanged, report.contracts) == (2, 0, 0, 1)
    assert report.rows[0].did == ("seat ann", "seat bob", "seat carl", "contract", "used doc")
    acme = await show_customer(registry, "acme")
    assert (acme.name, acme.email, acme.references) == ("Acme, Inc.", "a@acme.test", {"stripe": "cus_1"})
    view = await show_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE)
    assert (view.customer, view.plan, view.seats, view.time_zone) == ("acme", "team", 3, "Europe/Berlin")
    assert view.start_at == "2026-03-31T22:00:00.000000Z"
    doc = next(one for one in view.allowances if one.action == "doc")
    assert (doc.granted, doc.used, doc.opening, doc.left) == (900, 120, 120, 780)
    terms = (await registry.subscriptions(1))[0].terms[0]
    assert terms.overage_price == {"chat": Price(1_000, 1000)}
    assert await list_subscriptions(registry, now_us=NOW, grace_us=GRACE, customer="solo") == []


async def test_importing_again_changes_nothing(registry: Registry) -> None:
    await load(registry, HEADER + ROW + LONE)
    before = await registry.generation()
    report = await load(registry, HEADER + ROW + LONE, NOW + 40 * DAY)  # in another billing period
    assert (report.created, report.updated, report.unchanged) == (0, 0, 2)
    assert [row.differs for row in report.rows] == [(), ()]
    assert await registry.generation() == before


async def test_without_a_start_the_running_contract_is_the_same(registry: Registry) -> None:
    text = "customer,plan,used:doc\nacme,team,5\n"
    assert (await load(registry, text)).contracts == 1
    again = await load(registry, text, NOW + DAY)
    assert (again.contracts, again.unchanged, again.rows[0].differs) == (0, 1, ())
    await cancel_subscription(registry, "sub_1", now_us=NOW + DAY, grace_us=GRACE)
    assert (await load(registry, text, NOW + 2 * DAY)).contracts == 1


async def test_customers_are_brought_up_to_date_and_contracts_left_alone(registry: Registry) -> None:
    await load(registry, HEADER + ROW)
    changed = ROW.replace("a@acme.test", "b@acme.test").replace("cus_1", "cus_2").replace("carl", "dora")
    report = await load(registry, HEADER + changed.replace("team,3", "open,4").replace(",120,", ",130,"))
    assert (report.updated, report.rows[0].did) == (1, ("email", "ref_stripe", "seat dora"))
    assert report.rows[0].differs == (
        "sub_1: plan differs",
        "sub_1: seats differs",
        "sub_1: used:doc differs",
    )
    view = await show_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE)
    assert (view.plan, view.seats, view.allowances[1].used) == ("team", 3, 120)
    assert (await show_customer(registry, "acme")).name == "Acme, Inc."


async def test_an_empty_cell_erases_nothing(registry: Registry) -> None:
    await load(registry, HEADER + ROW)
    await load(registry, HEADER + "acme,,,,,,,,,,,\n")
    acme = await show_customer(registry, "acme")
    assert (acme.name, acme.references) == ("Acme, Inc.", {"stripe": "cus_1"})


async def test_a_contract_changed_since_is_left_alone(registry: Registry) -> None:
    await load(registry, HEADER + ROW)
    await update_subscription(registry, "sub_1", Change(seats=9), now_us=NOW + 1, grace_us=GRACE)
    report = await load(registry, HEADER + ROW, NOW + 2)
    assert report.rows[0].differs == ("sub_1: seats differs",)
    assert (await registry.subscriptions(1))[0].terms[-1].seats == 9


async def test_a_customer_first_seen_in_traffic_is_completed(registry: Registry) -> None:
    await create_customer(registry, "acme", now_us=NOW)
    report = await load(registry, HEADER + ROW)
    assert (report.updated, report.contracts) == (1, 1)


async def test_a_dry_run_keeps_nothing(registry: Registry) -> None:
    before = await registry.generation()
    report = await load(registry, HEADER + ROW, dry_run=True)
    assert (report.created, report.contracts, report.dry_run) == (1, 1, True)
    assert await registry.customers() == []
    assert await registry.generation() == before


async def test_use_so_far_is_counted_and_not_a_ledger_row(driver: Driver, registry: Registry) -> None:
    await load(registry, "customer,plan,used:doc,used:chat\nacme,open,25,0\n")
    contract = (await registry.subscriptions(1))[0]
    period = standing((contract,), 1, "doc", NOW, catalog=CATALOG, seller_zone="UTC", grace_us=0).period
    counters = await registry.counters(1, contract.id, period.start_us)
    assert {name: (one.granted, one.opening, one.used) for name, one in counters.items()} == {
        "doc": (20, 25, 25),
        "chat": (0, 0, 0),
    }
    assert await driver.rows_sql("SELECT COUNT(*) FROM events") == [(0,)]


@pytest.mark.parametrize(
    ("cells", "agreed"),
    [
        ("2026-06-01,,calendar,none", ("2026-06-01T00:00:00.000000Z", "2027-06-01T00:00:00.000000Z", "calendar", None)),
        ("2026-04-10,2026-12-24,,2.50", ("2026-04-10T00:00:00.000000Z", "2026-12-24T00:00:00.000000Z", "anniversary", "2.500000")),
        ("2019-04-10,,,", ("2019-04-10T00:00:00.000000Z", "2027-04-10T00:00:00.000000Z", "anniversary", "9.000000")),
    ],
)  # fmt: skip
async def test_dates_anchors_caps(registry: Registry, cells: str, agreed: tuple[str, ...]) -> None:
    await load(registry, f"customer,plan,start,end,anchor,overage_cap\nacme,team,{cells}\n")
    view = await show_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE)
    assert (view.start_at, view.end_at, view.anchor, view.overage_cap) == agreed


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffcustomer,plan\nacme,team\n",
        b"\xef\xbb\xbfcustomer,plan\r\nacme,team\r\n",
        "customer;plan\nacme;team\n",
        " plan , customer \nteam, acme \n\n,\n",
        'customer,plan,name\nacme,team,"two\nlines"\n'.replace("two\nlines", "one line"),
        "customer,plan\nacme,team",
        "customer,plan,seats\nacme,team\n",
    ],
)
async def test_files_as_spreadsheets_write_them(registry: Registry, text: str | bytes) -> None:
    report = await load(registry, text)
    assert [(row.customer, row.did) for row in report.rows] == [("acme", ("contract",))]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["line 1: customer: the first line must name the columns, `customer` among them"]),
        ("name\nx\n", ["line 1: customer: the first line must name the columns, `customer` among them"]),
        ("customer,customer\n", ["line 1: customer: the column is there twice"]),
        ("customer,colour\n", ["line 1: colour: there is no such column; see `headgate import --help`"]),
        ("customer,used:gold\n", ["line 1: used:gold: catalog 1 has no action 'gold'"]),
        ("customer,used\n", ["line 1: used: catalog 1 has no action ''"]),
        ("customer,ref_A\n", ["line 1: ref_A: 'A' cannot name a system: use lower-case letters, digits and _, as in stripe=cus_123"]),
        ('customer\n"a\n', ["line 2: this is not CSV: unexpected end of data"]),
        (b"customer\nacme\nb\xff\n", ["line 3: this is not UTF-8; save the file as CSV in UTF-8"]),
        ("customer,name\n,x\n", ["line 2: customer: is empty"]),
        ("customer\na\nb\na\n", ["line 4: customer: 'a' is in line 2 already"]),
        ("customer\na,b\n", ["line 2: has 1 more cells than the first line names"]),
        ("customer,email\na,b\n", ["line 2: 'b' is not an email address"]),
        ("customer,seats,used:doc\na,1,5\n", ["line 2: seats: needs a plan in the same row", "line 2: used:doc: needs a plan in the same row"]),
        ("customer,plan\na,gold\n", ["line 2: plan: catalog 1 has no plan 'gold'; it has open, team"]),
        ("customer,plan,seats\na,team,1.5\n", ["line 2: seats: '1.5' is not a whole number from 0 to 10000000, written in digits alone"]),
        ("customer,plan,used:doc\na,team,-1\n", ["line 2: used:doc: '-1' is not a whole number from 0 to 1000000000000000, written in digits alone"]),
        ("customer,plan,overage_cap\na,team,1e3\n", ["line 2: overage_cap: '1e3' is not an amount in USD; write it like \"0.10\", with at most six places"]),
        ("customer,plan,overage_price:doc\na,team,-1\n", ["line 2: overage_price:doc: '-1' is negative"]),
        ("customer,plan,start\na,team,31.1.26\n", ["line 2: start: '31.1.26' is not a date; write it like 2026-01-31 or 2026-01-31T09:30:00Z"]),
        ("customer,plan,time_zone\na,team,CETX\n", ["line 2: time_zone: 'CETX' is not a time zone; write an IANA name such as \"UTC\" or \"Europe/Berlin\""]),
        ("customer,plan,anchor\na,team,weekly\n", ["line 2: 'weekly' is not an anchor; use anniversary or calendar"]),
        ("customer,plan,start,end\na,team,2026-04-01,2026-03-01\n", ["line 2: the contract would end before it starts"]),
        ("customer,plan,start,used:doc\na,team,2026-05-01,3\n", ["line 2: there can be no use so far: the contract starts later"]),
        ("customer,plan,start,end,used:doc\na,team,2026-03-01,2026-04-01,3\n", ["line 2: there can be no use so far: the contract is over"]),
        ("customer,ref_crm\na,1\nb,1\n", ["line 3: crm=1 belongs to customer 'a' already; remove it there first"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_with_its_line(
    registry: Registry, text: str | bytes, says: list[str]
) -> None:
    assert await problems(registry, text) == says
    assert await registry.customers(archived=True) == []


async def test_all_problems_are_told_at_once(registry: Registry) -> None:
    await create_customer(registry, "gone", now_us=NOW)
    await archive_customer(registry, "gone", now_us=NOW)
    text = "customer,email,plan,seats\nok,,team,1\na,x,team,1\n\nb,,team,many\ngone,,,\n"
    assert await problems(registry, text) == [
        "line 3: 'x' is not an email address",
        "line 5: seats: 'many' is not a whole number from 0 to 10000000, written in digits alone",
        "line 6: customer 'gone' was archived on 2026-04-16T00:00:00.000000Z",
    ]


async def test_another_contract_in_the_way_is_a_problem(registry: Registry) -> None:
    await load(registry, "customer,plan,start\nacme,team,2026-04-01\n")
    found = await problems(registry, "customer,plan,start\nacme,team,2026-04-02\n")
    assert found[0].startswith("line 2: customer 'acme' is under contract sub_1 from 2026-04-01")


async def test_three_hundred_customers(driver: Driver, registry: Registry) -> None:
    """The size named by the job: one transaction, one generation, every number in its place."""
    lines = [
        f"c{n:03d},Customer {n},{n}@c.test,cus_{n},team,{n % 7 + 1},2026-04-{n % 15 + 1:02d},UTC,,,{n},s{n}\n"
        for n in range(300)
    ]
    before = await registry.generation()
    steps: list[tuple[int, int]] = []
    report = await import_customers(
        registry,
        HEADER + "".join(lines),
        now_us=NOW,
        seller_zone="UTC",
        on_row=lambda *step: steps.append(step),
    )
    assert (report.created, report.contracts, steps[-1]) == (300, 300, (300, 300))
    assert await registry.generation() == before + 1
    assert await driver.rows_sql("SELECT SUM(opening), SUM(used), SUM(granted), COUNT(*) FROM counters") == [
        (sum(range(300)), sum(range(300)), 500 * sum(n % 7 + 1 for n in range(300)), 300)
    ]
    assert [one.seats for one in await list_subscriptions(registry, now_us=NOW, grace_us=GRACE)] == [
        n % 7 + 1 for n in range(300)
    ]
    again = await load(registry, HEADER + "".join(reversed(lines)))
    assert (again.unchanged, again.contracts) == (300, 0)
