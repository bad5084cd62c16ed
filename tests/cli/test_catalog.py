"""Publishing, listing, showing and comparing what is sold."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import CONFIG, Run, parsed


def raise_price(shop: Path) -> None:
    (shop / "headgate.toml").write_text(CONFIG.replace('"0.10"', '"0.12"'))


def test_publish_shows_first_and_publishes_then(headgate: Run, shop: Path) -> None:
    assert "nothing to publish" in headgate("publish").stdout
    raise_price(shop)
    tried = headgate("publish", "--dry-run").stdout
    assert "0.100000" in tried
    assert "0.120000" in tried
    assert "would be published" in tried
    assert len(parsed(headgate("catalog", "list", "--format", "json"))) == 1
    report = parsed(headgate("publish", "--at", "2099-01-01", "--format", "json"))
    assert (report["version"], report["effective_at"]) == (2, "2099-01-01T00:00:00.000000Z")
    assert report["repriced"] == ["documents.process"]
    assert [one["status"] for one in parsed(headgate("catalog", "list", "--format", "json"))] == [
        "in force",
        "planned",
    ]


def test_the_past_is_not_repriced(headgate: Run, shop: Path) -> None:
    headgate("catalog", "list")
    raise_price(shop)
    assert "past" in headgate("publish", "--at", "2020-01-01", code=2).stderr


def test_show_and_diff(headgate: Run, shop: Path) -> None:
    shown = headgate("catalog", "show").stdout
    assert "0.002000 per 1000" in shown
    assert "5 documents.process per seat" in " ".join(shown.split())
    assert parsed(headgate("catalog", "show", "1", "--format", "json"))["version"] == 1
    assert headgate("catalog", "diff").stdout == "no differences\n"
    raise_price(shop)
    [change] = parsed(headgate("catalog", "diff", "--format", "json", code=1))
    assert change == {"where": 'actions."documents.process".price', "before": "0.100000", "after": "0.120000"}
    headgate("publish")
    assert headgate("catalog", "diff").stdout == "no differences\n"
    assert parsed(headgate("catalog", "diff", "1", "--format", "json", code=1)) == [change]
    assert parsed(headgate("catalog", "diff", "1", "2", "--format", "json", code=1)) == [change]
    assert "catalog" in headgate("catalog", "show", "9", code=1).stderr
