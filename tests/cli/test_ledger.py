"""From a recorded use to the report, its explanation and its verification."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Run, parsed


@pytest.fixture
def ledger(headgate: Run) -> Run:
    """acme has 5 documents and used 7 in two uses: rows seat 4, seat 1, overage 2."""
    headgate("customers", "create", "acme")
    headgate("subscriptions", "create", "acme", "--plan", "team")
    headgate("record", "acme", "documents.process", "4", "--id", "a")
    headgate("record", "acme", "documents.process", "3", "--id", "b")
    return headgate


def test_a_record_is_booked_once(ledger: Run) -> None:
    again = parsed(ledger("record", "acme", "documents.process", "3", "--id", "b", "--format", "json"))
    assert again["repeated"] is True
    assert [(row["channel"], row["units"], row["charged_amount"]) for row in again["events"]] == [
        ("seat", 1, "0.000000"),
        ("overage", 2, "0.200000"),
    ]
    assert "other content" in ledger("record", "acme", "documents.process", "4", "--id", "b", code=1).stderr
    assert "no action 'nope'" in ledger("record", "acme", "nope", "4", "--id", "c", code=2).stderr
    assert "whole number" in ledger("record", "acme", "documents.process", "4.5", "--id", "d", code=2).stderr
    assert len(ledger("events").stdout.splitlines()) == 3


def test_a_plan_that_says_stop(headgate: Run) -> None:
    headgate("customers", "create", "acme")
    headgate("subscriptions", "create", "acme", "--plan", "solo")
    assert headgate("record", "acme", "documents.process", "2", "--id", "a", code=1).stderr.count("\n") == 1


def test_events_are_json_lines_under_filters(ledger: Run) -> None:
    rows = [json.loads(line) for line in ledger("events").stdout.splitlines()]
    assert [(row["channel"], row["units"]) for row in rows] == [("seat", 4), ("seat", 1), ("overage", 2)]
    [row] = [json.loads(line) for line in ledger("events", "--channel", "overage").stdout.splitlines()]
    assert (row["customer"], row["charged_amount"], row["subscription"]) == ("acme", "0.200000", "sub_1")
    assert len(ledger("events", "--request", rows[1]["request_id"]).stdout.splitlines()) == 2
    assert ledger("events", "--month", "2001-01").stdout == ""
    assert "overage" in ledger("events", "--format", "table").stdout
    assert "'both' is not a channel" in ledger("events", "--channel", "both", code=2).stderr
    assert "there is no customer" in ledger("events", "--customer", "nobody", code=1).stderr


def test_the_report_in_three_forms(ledger: Run) -> None:
    table = ledger("report").stdout
    assert max(map(len, table.splitlines())) <= 80
    assert "0.000000 in every row: adjusted, refunded, settled" in table
    total = next(line for line in table.splitlines() if line.startswith("total"))
    assert total.split() == ["total", "3", "7", "0.700000", "0.200000", "0.200000"]
    assert "Seat fees         49.000000 USD" in table

    header, *rows = ledger("report", "--format", "csv", "--by", "customer").stdout.splitlines()
    assert header == (
        "month,channel,customer,events,units,list_amount,charged_amount,adjusted_amount,refunded_amount,"
        "net_amount,settled_amount"
    )
    assert [row.split(",", 1)[1] for row in rows] == [
        "seat,acme,2,5,0.500000,0.000000,0.000000,0.000000,0.000000,0.000000",
        "overage,acme,1,2,0.200000,0.200000,0.000000,0.000000,0.200000,0.000000",
    ]
    whole = parsed(ledger("report", "--format", "json"))
    assert whole["memo"]["seat_fees"]["amount"] == "49.000000"
    assert whole["ledger_head"] == parsed(ledger("verify", "--format", "json"))["ledger_head"]


def test_a_wide_terminal_shows_every_column(ledger: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    heading = ledger("report").stdout.splitlines()[2]
    assert heading.split() == [
        *("month", "channel", "action", "events", "units"),
        *("list", "charged", "adjusted", "refunded", "net", "settled"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--month", "2026-13"), "not a month"),
        (("--month", "2026-11", "--from", "2026-11-01"), "exclude each other"),
        (("--to", "2026-11-01"), "--to needs --from"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), "lies before"),
        (("--by", "mood"), "no column 'mood'"),
        (("--format", "xml"), "--format"),
    ],
)
def test_a_report_nobody_can_make(headgate: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in " ".join(headgate("report", *arguments, code=2).stderr.replace("│", " ").split())


def test_an_empty_ledger_reports_nothing(headgate: Run) -> None:
    assert "no events" in headgate("report").stdout
    assert parsed(headgate("report", "--format", "json"))["rows"] == []
    assert headgate("verify").stdout.startswith("ledger verified: 0 events")


def test_explain_works_the_amount_out_again(ledger: Run) -> None:
    row = json.loads(ledger("events", "--channel", "overage").stdout)
    text = ledger("explain", row["event_id"]).stdout
    assert "A(7) − A(5) = 0.200000" in text
    assert "revenue:overage" in text
    of_request = parsed(ledger("explain", row["request_id"], "--format", "json"))
    assert [one["event"]["channel"] for one in of_request["events"]] == ["seat", "overage"]
    assert of_request["events"][1]["books"] == [
        {"account": "receivable:overage", "debit": "0.200000", "credit": "0.000000"},
        {"account": "revenue:overage", "debit": "0.000000", "credit": "0.200000"},
    ]
    missing = "01890000-0000-7000-8000-000000000000"
    assert missing in ledger("explain", missing, code=1).stderr


def test_a_changed_row_is_found(ledger: Run, shop: Path) -> None:
    assert ledger("verify").stdout.startswith("ledger verified: 3 events in 1 slot, 0 differences\n")
    row = json.loads(ledger("events", "--channel", "overage").stdout)
    with sqlite3.connect(shop / "headgate.db") as store:
        store.execute("UPDATE events SET charged_micros = 1 WHERE channel = 2")
    store.close()
    found = parsed(ledger("verify", "--format", "json", code=1))
    assert found["verified"] is False
    assert found["differences"]
    assert "NOT verified" in ledger("verify", code=1).stdout
    assert "DOES NOT" in ledger("explain", row["event_id"], code=1).stdout


def test_an_export_is_verified_without_a_store(ledger: Run, shop: Path) -> None:
    text = ledger("events").stdout
    head = parsed(ledger("report", "--format", "json"))["ledger_head"]
    (shop / "all.jsonl").write_text(text)
    (shop / "changed.jsonl").write_text(text.replace('"units":4', '"units":3'))
    (shop / "cut.jsonl").write_text("".join(text.splitlines(keepends=True)[:2]))
    (shop / "part.jsonl").write_text(text.splitlines(keepends=True)[2])
    (shop / "headgate.db").unlink()
    (shop / "headgate.toml").unlink()
    assert parsed(ledger("verify", "all.jsonl", "--head", head, "--format", "json"))["verified"] is True
    ledger("verify", "changed.jsonl", code=1)
    ledger("verify", "cut.jsonl", "--head", head, code=1)
    ledger("verify", "part.jsonl", code=1)
    ledger("verify", "part.jsonl", "--part")
    assert "cannot read none.jsonl" in ledger("verify", "none.jsonl", code=2).stderr
    assert "name one" in ledger("verify", "--part", code=2).stderr


def test_status_tells_where_the_store_stands(ledger: Run) -> None:
    status = parsed(ledger("status", "--format", "json"))
    assert (status["mode"], status["catalog_version"], status["events"], status["open_payments"]) == (
        "test",
        1,
        3,
        0,
    )
    assert [(slot["running"], slot["events"]) for slot in status["slots"]] == [(False, 3)]
    assert status["store_bytes"] > 0
    assert status["owed_work"] == 0
    shown = ledger("status").stdout
    assert "open payments  0" in shown
    assert "owed work      0" in shown
