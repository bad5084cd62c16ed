"""Customers, contracts, keys and the import: what is typed, what is printed, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, parsed


def test_a_customer_from_creation_to_archive(headgate: Run) -> None:
    made = parsed(
        headgate("customers", "create", "acme", "--name", "ACME", "--ref", "stripe=cus_1", "--format", "json")
    )
    assert (made["customer"], made["name"], made["references"]) == ("acme", "ACME", {"stripe": "cus_1"})
    changed = parsed(
        headgate("customers", "update", "acme", "--name", "", "--ref", "stripe=", "--format", "json")
    )
    assert (changed["name"], changed["references"]) == (None, {})
    assert "acme" in headgate("customers", "list").stdout
    archived = parsed(headgate("customers", "archive", "acme", "--format", "json"))
    assert archived["archived_at"].endswith("Z")
    assert parsed(headgate("customers", "list", "--format", "json")) == []
    assert [
        one["customer"] for one in parsed(headgate("customers", "list", "--archived", "--format", "json"))
    ] == ["acme"]


def test_names_are_text_and_never_markup(headgate: Run) -> None:
    headgate("customers", "create", "acme", "--name", "[bold]A[/bold] :smile:")
    assert "[bold]A[/bold] :smile:" in headgate("customers", "list").stdout


def test_a_contract_with_own_terms(headgate: Run) -> None:
    headgate("customers", "create", "acme")
    made = parsed(
        headgate(
            *("subscriptions", "create", "acme", "--plan", "team", "--seats", "3", "--start", "2026-01-31"),
            *("--time-zone", "Europe/Berlin", "--allowance", "documents.process=7", "--overage-cap", "9.5"),
            *("--overage-price", "documents.process=0.08", "--format", "json"),
        )
    )
    assert made["subscription"] == "sub_1"
    assert made["start_at"] == "2026-01-30T23:00:00.000000Z"
    assert (made["seats"], made["overage_cap"], made["seat_fee"]) == (3, "9.500000", "147.000000")
    allowance = made["allowances"][0]
    assert (allowance["granted"], allowance["overage_price"]) == (7, "0.080000")

    changed = parsed(headgate("subscriptions", "update", "sub_1", "--seats", "5", "--format", "json"))
    assert (changed["seats"], changed["allowances"][0]["granted"]) == (5, 7)
    shown = headgate("subscriptions", "show", "sub_1").stdout
    assert "team (catalog 1)" in shown
    assert "documents.process" in shown
    assert parsed(headgate("subscriptions", "cancel", "sub_1", "--format", "json"))["status"] == "canceled"
    assert [
        one["status"] for one in parsed(headgate("subscriptions", "list", "acme", "--format", "json"))
    ] == ["canceled"]


def test_own_terms_are_changed_one_by_one(headgate: Run) -> None:
    """What is not named stays; `plan` goes back to the plan's."""
    headgate("customers", "create", "acme")
    own = ("--allowance", "documents.process=7", "--overage-price", "documents.process=0.08")
    headgate("subscriptions", "create", "acme", "--plan", "team", "--start", "2099-01-01", *own)
    headgate(
        "subscriptions", "update", "sub_1", "--allowance", "documents.process=plan", "--overage-cap", "3"
    )
    shown = parsed(headgate("subscriptions", "show", "sub_1", "--format", "json"))
    assert shown["overage_cap"] == "3.000000"
    result = headgate("subscriptions", "update", "sub_1", "--overage-cap", "none", "--format", "json")
    assert parsed(result)["overage_cap"] is None


def test_a_key_is_shown_once(headgate: Run) -> None:
    headgate("customers", "create", "acme")
    made = parsed(headgate("keys", "create", "acme", "--seat", "ann", "--format", "json"))
    assert set(made) == {"key_id", "key", "customer", "seat_id"}
    assert (made["key_id"], made["customer"], made["seat_id"]) == ("key_1", "acme", "ann")
    assert made["key"].startswith("hg_test_")

    people = headgate("keys", "create", "acme", "--expires", "90 days")
    assert "hg_test_" in people.stdout
    assert "only time the key is shown" in people.stderr
    listed = headgate("keys", "list")
    assert made["key"] not in listed.output

    rotated = parsed(headgate("keys", "rotate", "key_1", "--overlap", "24 hours", "--format", "json"))
    assert (rotated["key_id"], rotated["replaces"], rotated["seat_id"]) == ("key_3", "key_1", "ann")
    assert parsed(headgate("keys", "revoke", "key_2", "--format", "json"))["status"] == "revoked"
    states = {
        one["key_id"]: one["status"] for one in parsed(headgate("keys", "list", "acme", "--format", "json"))
    }
    assert states == {"key_1": "active", "key_2": "revoked", "key_3": "active"}


REFUSED: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("customers", "create", "acme"), 1, "exists already"),
    (("customers", "show", "nobody"), 1, "there is no customer 'nobody'"),
    (
        ("customers", "create", "x", "--ref", "stripe"),
        2,
        "--ref: 'stripe' has no value; write it as NAME=VALUE",
    ),
    (("customers", "create", " x"), 2, "cannot be a customer id"),
    (("subscriptions", "create", "acme"), 2, "Missing option '--plan'"),
    (("subscriptions", "create", "acme", "--plan", "gold"), 2, "no plan 'gold'; it has solo, team"),
    (("subscriptions", "create", "acme", "--plan", "team", "--seats", "-1"), 2, "--seats"),
    (
        ("subscriptions", "create", "acme", "--plan", "team", "--start", "soon"),
        2,
        "--start: 'soon' is not a date",
    ),
    (("subscriptions", "create", "acme", "--plan", "team", "--start", "2026-02-30"), 2, "--start"),
    (("subscriptions", "create", "acme", "--plan", "team", "--time-zone", "Mars"), 2, "not a time zone"),
    (("subscriptions", "create", "acme", "--plan", "team", "--anchor", "moon"), 2, "anniversary or calendar"),
    (
        ("subscriptions", "create", "acme", "--plan", "team", "--allowance", "documents.process=1.5"),
        2,
        "whole number",
    ),
    (("subscriptions", "create", "acme", "--plan", "team", "--overage-price", "x=1"), 2, "no action 'x'"),
    (
        ("subscriptions", "create", "acme", "--plan", "team", "--overage-cap", "-1"),
        2,
        "--overage-cap: '-1' is negative",
    ),
    (("subscriptions", "update", "sub_1"), 2, "nothing to change"),
    (("subscriptions", "show", "sub_9"), 1, "no subscription sub_9"),
    (("subscriptions", "show", "key_9"), 1, "not the id of a subscription"),
    (("keys", "create", "nobody"), 1, "there is no customer"),
    (("keys", "create", "acme", "--expires", "yesterday"), 2, "--expires: 'yesterday' is not a date"),
    (("keys", "create", "acme", "--expires", "2020-01-01"), 2, "which is past"),
    (("keys", "rotate", "key_9", "--overlap", "1 month"), 2, "--overlap: '1 month' has no fixed length"),
    (("keys", "revoke", "key_9"), 1, "there is no key key_9"),
)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    REFUSED,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_refused(headgate: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    headgate("customers", "create", "acme")
    result = headgate(*arguments, code=code)
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def write(shop: Path, *lines: str) -> str:
    (shop / "customers.csv").write_text("\n".join(lines) + "\n")
    return "customers.csv"


def test_import_is_checked_kept_and_idempotent(headgate: Run, shop: Path) -> None:
    file = write(
        shop,
        "customer,name,ref_stripe,plan,seats,used:documents.process",
        "a,Alpha,cus_a,team,2,4",
        "b,Beta,,,,",
    )
    tried = headgate("import", file, "--dry-run").stdout
    assert tried.startswith("would create 2 customers and 1 contract, ")
    assert parsed(headgate("customers", "list", "--format", "json")) == []
    assert headgate("import", file).stdout.startswith("created 2 customers and 1 contract, ")
    again: dict[str, Any] = parsed(headgate("import", file, "--format", "json"))
    assert (again["created"], again["updated"], again["unchanged"]) == (0, 0, 2)
    allowance = parsed(headgate("subscriptions", "show", "sub_1", "--format", "json"))["allowances"][0]
    assert (allowance["used"], allowance["opening"], allowance["left"]) == (4, 4, 6)


def test_every_problem_of_a_file_is_told_at_once(headgate: Run, shop: Path) -> None:
    file = write(shop, "customer,plan,seats", "a,gold,1", "b,team,many", "c,team,1")
    result = headgate("import", file, code=2)
    first, *lines = result.stderr.splitlines()[-3:]
    assert first == "headgate: 2 problems"
    assert lines[0].startswith("  line 2: plan: catalog 1 has no plan 'gold'")
    assert lines[1].startswith("  line 3: seats: 'many'")
    assert parsed(headgate("customers", "list", "--format", "json")) == []


def test_import_from_standard_input_and_from_nowhere(headgate: Run) -> None:
    assert "created 1 customer" in headgate("import", "-", stdin="customer\nz\n").stdout
    assert "cannot read nowhere.csv" in headgate("import", "nowhere.csv", code=2).stderr
