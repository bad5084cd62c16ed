"""Compile contracts/*.vy into the JSON that the package ships.

    python scripts/build_contracts.py            # write src/headgate/devnet/compiled/
    python scripts/build_contracts.py --check    # exit 1 if what is there is not what the sources give

The compiler is a development dependency: who installs Headgate gets the JSON. The same sources and the
same compiler give the same bytes, which tests/devnet/test_compiled.py asserts.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import vyper

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "contracts"
COMPILED = ROOT / "src" / "headgate" / "devnet" / "compiled"


def compile_contract(source: Path) -> str:
    """The shipped JSON of one contract: what a genesis block needs, and where it came from."""
    text = source.read_text(encoding="utf-8")
    output = vyper.compile_code(text, output_formats=("abi", "bytecode_runtime", "layout"))
    storage = {name: entry["slot"] for name, entry in output["layout"].get("storage_layout", {}).items()}
    contract = {
        "contract": source.stem,
        "compiler": f"vyper {vyper.__version__}",
        "source_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "storage": storage,
        "abi": output["abi"],
        "runtime": output["bytecode_runtime"],
    }
    return json.dumps(contract, indent=1) + "\n"


def build() -> dict[str, str]:
    """Every contract's shipped JSON, by file name."""
    return {f"{source.stem}.json": compile_contract(source) for source in sorted(SOURCES.glob("*.vy"))}


def main() -> int:
    """Write, or with --check compare."""
    built = build()
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in built.items() if (COMPILED / name).read_text("utf-8") != text]
        for name in stale:
            print(f"{name} is not what contracts/ compiles to: run python scripts/build_contracts.py")
        return 1 if stale else 0
    COMPILED.mkdir(exist_ok=True)
    for name, text in built.items():
        (COMPILED / name).write_text(text, encoding="utf-8")
        print(f"{COMPILED.relative_to(ROOT) / name}: {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
