"""The wheel is what users get: what is in it, what it says about itself, that it works where nothing else is.

The wheel is built by the locked backend without build isolation, so nothing is downloaded for it. The slow
test installs it with its `demo` extra into an empty environment, every dependency checked against the lock's
hashes, and runs the demo from a directory that holds nothing of the repository.
"""

from __future__ import annotations

import configparser
import email.message
import email.parser
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import headgate

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "headgate"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Where what is not Python may live in the package; the wheel must hold all of it.
DATA_SUFFIXES = {
    ".sql",
    ".json",
    ".txt",
    ".md",
    ".html",
    ".css",
    ".js",
    ".pdf",
    ".docx",
    ".typed",
    ".vy",
    ".toml",
}


def run(
    *command: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end; a failure shows what the command said."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"{command} exited {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_wheel(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"headgate-{headgate.__version__}.dist-info/{name}").decode()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    return email.parser.Parser().parsestr(in_wheel(wheel, "METADATA"))


def test_the_wheel_is_pure_python_and_carries_the_version(wheel: Path) -> None:
    assert wheel.name == f"headgate-{PROJECT['version']}-py3-none-any.whl"
    assert headgate.__version__ == PROJECT["version"]


def test_it_holds_every_source_and_data_file_and_nothing_else(names: set[str]) -> None:
    tracked = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "src/headgate", cwd=ROOT
    )
    expected = {name.removeprefix("src/") for name in tracked.stdout.split("\0") if (ROOT / name).is_file()}
    assert {name for name in names if name.startswith("headgate/")} == expected
    assert {name.partition("/")[0] for name in names} == {
        "headgate",
        f"headgate-{headgate.__version__}.dist-info",
    }


def test_no_data_file_is_hidden_from_the_wheel_by_gitignore(names: set[str]) -> None:
    data = {
        path for path in SOURCE.rglob("*") if path.suffix in DATA_SUFFIXES and "__pycache__" not in path.parts
    }
    assert data, "the package holds SQL, documents and py.typed"
    assert {f"headgate/{path.relative_to(SOURCE).as_posix()}" for path in data} <= names


@pytest.mark.parametrize(
    "pattern",
    [
        r"headgate/py\.typed",
        r"headgate/store/queries\.sql",
        r"headgate/store/migrations/0001_\w+\.sql",
        r"headgate/devnet/.*\.json",
        r"headgate/demo/documents/.+",
    ],
)
def test_it_holds_what_runs_need_beside_the_code(names: set[str], pattern: str) -> None:
    assert any(re.fullmatch(pattern, name) for name in names)


def test_it_carries_the_licence_and_says_so(wheel: Path, metadata: email.message.Message) -> None:
    assert in_wheel(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in in_wheel(wheel, "licenses/LICENSE")
    assert metadata["License-Expression"] == "Apache-2.0"


def test_its_metadata_is_complete(metadata: email.message.Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"] == "Headgate developers"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {"demo", "postgres"} <= set(metadata.get_all("Provides-Extra", []))
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert all("https://github.com/headgate/headgate" in url for url in metadata.get_all("Project-URL", []))


def test_the_core_asks_neither_for_the_chain_nor_for_the_sdks_web_frameworks(
    metadata: email.message.Message,
) -> None:
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("jsonschema") for line in core), "the SDK needs it and does not ask for it"
    assert not [line for line in core if re.match(r"py-evm|fastapi|flask|psycopg", line, re.IGNORECASE)]
    assert not [line for line in core if re.match(r"x402\[[^]]*fastapi", line)]


def test_the_command_is_installed_by_its_name(wheel: Path) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(in_wheel(wheel, "entry_points.txt"))
    assert dict(scripts["console_scripts"]) == {"headgate": "headgate.cli:main"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_entries(name: str) -> dict[str, str]:
    """Package → its entry, hashes included, of a lock in requirements/."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    return {canonical(entry.partition("==")[0]): entry for entry in entries}


def locked(name: str) -> dict[str, str]:
    """Package → version of a lock in requirements/."""
    return {package: entry.partition("==")[2].split()[0] for package, entry in lock_entries(name).items()}


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_a_lock_holds_names_versions_and_hashes_only(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", "")
    pinned = re.compile(r"[a-z0-9][a-z0-9.-]*==[^\s;]+( ; [^-]+?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    strangers = [line[:80] for line in text.splitlines() if not pinned.fullmatch(line)]
    assert strangers == []


def test_the_two_locks_agree() -> None:
    dev = locked("dev.txt")
    assert {name: dev.get(name) for name in locked("runtime.txt")} == locked("runtime.txt")


def test_the_locks_hold_what_the_project_asks_for() -> None:
    """A dependency added to pyproject.toml without `make lock` is found here, not by a user."""
    extras = PROJECT["optional-dependencies"]

    def asked(lines: list[str]) -> set[str]:
        return {canonical(re.split(r"[^\w.-]", line)[0]) for line in lines}

    assert asked(PROJECT["dependencies"] + extras["postgres"]) <= set(locked("runtime.txt"))
    assert asked(PROJECT["dependencies"] + extras["postgres"] + extras["demo"]) <= set(locked("dev.txt"))


@pytest.mark.slow
@pytest.mark.timeout(540)  # a new environment with some eighty packages, on whatever network there is
def test_the_wheel_with_its_demo_extra_runs_the_demo_in_a_clean_environment(
    wheel: Path, tmp_path: Path
) -> None:
    if not (SOURCE / "cli" / "__init__.py").exists():
        pytest.skip("src/headgate/cli does not exist yet")
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    # Ask pip what the wheel's own metadata pulls in, then take exactly that from the lock, by its hashes.
    versions = tmp_path / "versions.txt"
    versions.write_text("".join(f"{name}=={version}\n" for name, version in locked("dev.txt").items()))
    ask = (*pip, "install", "--dry-run", "--report", "-", "--constraint", versions, f"{wheel}[demo]")
    plan = json.loads(run(*ask, cwd=tmp_path).stdout)
    wanted = {canonical(item["metadata"]["name"]) for item in plan["install"]} - {"headgate"}
    assert {"py-evm", "fastapi", "jsonschema"} <= wanted
    assert "pytest" not in wanted
    requirements = tmp_path / "requirements.txt"
    entries = [entry for name, entry in lock_entries("dev.txt").items() if name in wanted]
    requirements.write_text("".join(entries))
    run(*pip, "install", "--require-hashes", "--requirement", requirements, cwd=tmp_path)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    run(*pip, "check", cwd=tmp_path)

    work = tmp_path / "elsewhere"
    work.mkdir()
    own = ("HEADGATE_", "PYTHON")  # settings of the test run that the demo must do without
    env = {key: value for key, value in os.environ.items() if not key.startswith(own)} | {"HOME": str(work)}
    assert run(venv / "bin" / "headgate", "--help", cwd=work, env=env).stdout
    demo = run(venv / "bin" / "headgate", "demo", "--once", cwd=work, env=env)
    for expected in ("seat", "overage", "x402", "open payments 0", "ledger verified"):
        assert expected in demo.stdout, demo.stdout
