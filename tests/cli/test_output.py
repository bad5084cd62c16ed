"""Tables: nothing is cut off, and stored texts do nothing to a terminal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headgate.cli.options import Format
from headgate.cli.output import Column, counted, minute, print_fields, print_rows, printable, text_of

COLUMNS = (
    Column("id", lambda row: row.id),
    Column("text", lambda row: row.text, folds=True),
    Column("amount", lambda row: row.amount, number=True),
)


def table(capsys: pytest.CaptureFixture[str], *rows: tuple[str, str, str]) -> list[str]:
    views = [SimpleNamespace(id=one, text=text, amount=amount) for one, text, amount in rows]
    print_rows(views, COLUMNS, Format.TABLE, empty="nothing")
    return capsys.readouterr().out.splitlines()


def test_texts_fold_and_numbers_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = table(capsys, ("a", "word " * 30, "1.000000"), ("b", "short", "1000000.000000"))
    assert max(map(len, lines)) <= 60
    assert sum(line.count("word") for line in lines) == 30
    assert lines[2].endswith("      1.000000")
    assert lines[-1].endswith("1000000.000000")


def test_a_table_grows_rather_than_losing_anything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    identifier = "pay_" + "0" * 32
    lines = table(capsys, (identifier, "x" * 40, "123456789.000000"))
    whole = "\n".join(lines)
    assert identifier in whole
    assert "123456789.000000" in whole
    assert whole.count("x") - whole.count("text") == 40


def test_no_rows_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys) == ["nothing"]


def test_what_would_move_the_cursor_is_written_out() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\nc"
    assert text_of("\x07") == "\\x07"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (0, "0"), ({"a": "b", "c": 1}, "a=b, c=1"), (("x", None), "x, ")],
)
def test_cells(value: object, text: str) -> None:
    assert text_of(value) == text


def test_small_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert minute("2026-11-22T23:34:01.902731Z") == "2026-11-22 23:34Z"
    assert (counted(1, "event"), counted(2000, "event")) == ("1 event", "2,000 events")
    print_fields([("name", "x"), ("nothing", None), ("zero", 0)])
    assert capsys.readouterr().out == "name  x\nzero  0\n"
