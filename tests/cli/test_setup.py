"""init, check, migrate: before the first sale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, Run, parsed


def test_init_writes_what_check_accepts(headgate: Run, shop: Path) -> None:
    (shop / "api.json").write_text(
        json.dumps(
            {
                "openapi": "3.1.0",
                "info": {"title": "Cats"},
                "paths": {"/v1/cats": {"post": {"operationId": "cats.create"}}, "/healthz": {"get": {}}},
            }
        )
    )
    said = headgate("init", "new", "--openapi", "api.json").stdout
    assert "cats.create" in said
    assert "POST /v1/cats" in (shop / "new" / "headgate.toml").read_text()
    headgate("check", "-c", "new/headgate.toml")
    assert "exists already" in headgate("init", "new", code=1).stderr
    assert parsed(headgate("init", "other", "--format", "json"))["path"] == "other/headgate.toml"


def test_every_problem_of_a_configuration_is_told_at_once(headgate: Run, shop: Path) -> None:
    wrong = CONFIG.replace('"test"', '"tset"').replace('"0.10"', '"0.0000001"') + '\nbeyound = "x402"\n'
    (shop / "headgate.toml").write_text(wrong)
    for command in ("check", "report"):
        lines = headgate(command, code=2).stderr.splitlines()
        assert lines[0] == "headgate: 3 problems"
        for where in ("mode", 'actions."documents.process".price', "plans.solo.beyound"):
            assert any(f"headgate.toml: {where}: " in line and "Fix: " in line for line in lines), (
                where,
                lines,
            )
    found = parsed(headgate("check", "--format", "json", code=2))
    assert {each["level"] for each in found} == {"error"}
    assert [each["where"] for each in found if each["fix"]] == [each["where"] for each in found]
    assert len(found) == 3
    assert not (shop / "headgate.db").exists()


def test_a_file_that_is_not_there(headgate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nowhere.toml: the file: does not exist" in headgate("report", "-c", "nowhere.toml", code=2).stderr
    monkeypatch.setenv("HEADGATE_CONFIG", "elsewhere.toml")
    assert "elsewhere.toml" in headgate("report", code=2).stderr


def test_check_exits_1_where_something_keeps_from_selling(headgate: Run, shop: Path) -> None:
    headgate("check")
    assert not (shop / "headgate.db").exists()
    found = parsed(headgate("check", "--live", "--format", "json", code=1))
    assert set(found[0]) == {"level", "where", "message", "fix"}
    assert ("error", "mode") in {(each["level"], each["where"]) for each in found}
    assert "error    mode\n" in headgate("check", "--live", code=1).stdout


def test_check_reports_drift(headgate: Run, shop: Path) -> None:
    headgate("publish")
    (shop / "headgate.toml").write_text(CONFIG.replace('"0.10"', '"0.12"'))
    assert 'actions."documents.process".price' in headgate("check").stdout


def test_check_looks_at_an_application(headgate: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "shop_app.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Route\n"
        "async def answer(request): ...\n"
        "priced = Route('/v1/documents/process', answer, methods=['POST'])\n"
        "app = Starlette(routes=[priced, Route('/new', answer)])\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    told = headgate("check", "--app", "shop_app:app", code=1).stdout
    assert "POST /v1/documents/process" in told
    assert "GET /new" in told
    assert "Headgate is not installed" in told
    monkeypatch.delitem(sys.modules, "shop_app")
    for wrong, said in (
        ("shop_app", "is not MODULE:APP"),
        ("shop_app:nothing", "AttributeError"),
        ("no_such_module:app", "ModuleNotFoundError"),
    ):
        assert said in headgate("check", "--app", wrong, code=2).stderr


def test_a_store_of_the_other_mode_is_refused(headgate: Run, shop: Path) -> None:
    headgate("customers", "list")
    live = (
        CONFIG.replace('"test"', '"live"')
        .replace("base-sepolia", "base")
        .replace('"embedded"', '"https://f.example"')
    )
    (shop / "headgate.toml").write_text(live)
    assert "test mode" in headgate("customers", "list", code=2).stderr


def test_a_new_store_is_worth_a_word(headgate: Run) -> None:
    assert "created a new store, headgate.db" in headgate("customers", "list").stderr
    assert headgate("customers", "list").stderr == ""


def test_migrate_says_what_is_missing(headgate: Run, shop: Path) -> None:
    missing = parsed(headgate("migrate", "--plan", "--format", "json"))["missing"]
    assert missing[0] == "0001_ledger"
    assert not (shop / "headgate.db").exists()
    assert parsed(headgate("migrate", "--format", "json"))["applied"] == missing
    assert parsed(headgate("migrate", "--format", "json"))["applied"] == []
    assert "up to date" in headgate("migrate", "--plan").stdout
