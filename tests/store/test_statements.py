"""SQL that ships with the package: named statements, numbered migrations, one dialect."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from headgate.model.event import Event
from headgate.model.hold import Cap, Counter, CounterKey
from headgate.model.payment import PaymentRow
from headgate.store.sqlite import SqliteDriver
from headgate.store.statements import load_migrations, load_statements, split_script, split_statements


def test_statements_are_split_by_name_and_without_comments() -> None:
    first = "-- About the file.\n\n-- name: a\n-- Says a.\nSELECT 1;\n\n"
    text = first + "-- name: b_2\n-- Says b.\nSELECT\n  -- why\n  2;\n"
    assert split_statements(text) == {"a": "SELECT 1", "b_2": "SELECT\n  2"}


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="a is written twice"):
        split_statements("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;")


def test_a_script_is_split_into_statements() -> None:
    assert split_script("-- one; two\nCREATE TABLE a (b);\n\nINSERT INTO a VALUES (1);\n") == [
        "CREATE TABLE a (b)",
        "INSERT INTO a VALUES (1)",
    ]


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [number for number, _, _ in load_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_every_statement_is_one_that_the_schema_knows(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "headgate.db")
    await driver.migrate()
    connection = sqlite3.connect(driver.path)
    for name, sql in load_statements().items():
        try:
            connection.execute(f"EXPLAIN {sql}", [0] * sql.count("?"))
        except sqlite3.Error as error:
            pytest.fail(f"{name}: {error}")
    connection.close()
    await driver.close()


@pytest.mark.parametrize("name", sorted(load_statements()))
def test_statements_keep_to_what_every_store_understands(name: str) -> None:
    sql = load_statements()[name]
    banned = r"\b(INSERT OR|REPLACE INTO|GLOB|IFNULL|AUTOINCREMENT|rowid|strftime|PRAGMA|ILIKE|now\(\))"
    assert not re.search(banned, sql, re.IGNORECASE)
    assert "%" not in sql.replace("'%'", "")


@pytest.mark.parametrize(
    ("statement", "fields"),
    [
        ("event_insert", Event._fields),
        ("payment_insert", PaymentRow._fields),
        ("counter_write", (*CounterKey._fields, *Counter._fields)),
        ("cap_write", ("customer", "subscription", "start_us", *Cap._fields)),
    ],
)
def test_rows_are_written_in_the_order_of_their_fields(statement: str, fields: tuple[str, ...]) -> None:
    columns = re.search(r"\(([^)]*)\)", load_statements()[statement])
    assert columns is not None
    assert tuple(re.split(r",\s*", columns[1].strip())) == fields


@pytest.mark.parametrize(
    ("statement", "fields"),
    [("counter_read", Counter._fields), ("events_at", Event._fields), ("payment_read", PaymentRow._fields)],
)
def test_rows_are_read_in_the_order_of_their_fields(statement: str, fields: tuple[str, ...]) -> None:
    columns = re.search(r"SELECT (.*?)\sFROM", load_statements()[statement], re.DOTALL)
    assert columns is not None
    assert tuple(re.split(r",\s*", columns[1].strip())) == fields
