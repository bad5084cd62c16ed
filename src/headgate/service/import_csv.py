"""Import customers from a CSV: references, contracts, what was negotiated, seats and use so far.

The first line names the columns, in any order. Only `customer` is needed; an empty cell means "not given".

| column | holds |
|---|---|
| `customer` | the seller's own id; a row for an id that is known updates it |
| `name`, `email` | free text |
| `ref_<system>` | the customer's id in another system: `ref_stripe` = `cus_…` |
| `plan` | a plan of the published catalog; without it the row is a customer without a contract |
| `seats` | how many, default 1 |
| `start`, `end` | `2026-01-31`, or a time; default: now, and the plan's term |
| `time_zone` | IANA name, default the seller's; `start` and `end` are read in it |
| `anchor` | `anniversary` (default) or `calendar` |
| `allowance:<action>` | units per billing period in place of the plan's |
| `overage_price:<action>` | USD for as many units as the list price is for |
| `overage_cap` | USD per billing period in place of the plan's, or `none` |
| `used:<action>` | units used in the running billing period before Headgate: counted, never billed |
| `seat_ids` | ids of named users, separated by blanks or `|` |

All rows are checked before any is kept, and all problems are told at once, with their lines. Everything is
one transaction. Importing again changes nothing that is the same: names, references and seat ids are brought
up to date, while a contract that exists (the one with this start, else the one running now) and its use so
far are left as they are, and where the file differs the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headgate.model.customer import Customer
from headgate.model.errors import InputError
from headgate.model.public_ids import SUBSCRIPTION, write_id
from headgate.model.renewal import overlaps, overtaken
from headgate.model.subscription import Subscription, latest_terms, standing
from headgate.service.customers import add_customer, edit_customer, find_customer
from headgate.service.import_rows import CsvError, CsvProblem, CsvRow, read_rows
from headgate.service.subscribe import add_subscription, negotiated_of
from headgate.store.registry import Registry, RegistryWriter


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """What became of one line: `outcome` is created, updated or unchanged.

    `did` names what was written; `differs` names what the file says differently and was left as it is.
    """

    line: int
    customer: str
    outcome: str
    did: tuple[str, ...]
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file. In a dry run nothing was kept."""

    created: int
    updated: int
    unchanged: int
    contracts: int
    dry_run: bool
    rows: tuple[ImportedRow, ...]


async def import_customers(
    registry: Registry,
    content: str | bytes,
    *,
    now_us: int,
    seller_zone: str,
    dry_run: bool = False,
    on_row: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Import a CSV (UTF-8). `on_row(done, of)` is called after each row, for a progress bar.

    Raises:
        CsvError: with every problem found; nothing was written.
    """
    catalog = await registry.catalog_at(now_us)
    rows, problems = read_rows(_decoded(content), catalog, seller_zone)
    done: list[ImportedRow] = []
    async with registry.write(dry_run=dry_run) as writer:
        for number, row in enumerate(rows, 1):
            try:
                done.append(await _import_row(writer, row, now_us, seller_zone))
            except InputError as error:
                problems.append(CsvProblem(row.line, "", str(error)))
            if on_row is not None:
                on_row(number, len(rows))
        if problems:
            raise CsvError(tuple(sorted(problems, key=lambda problem: problem.line)))
    return _report(done, dry_run)


def _decoded(content: str | bytes) -> str:
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CsvError((CsvProblem(line, "", "this is not UTF-8; save the file as CSV in UTF-8"),)) from None


def _report(rows: Sequence[ImportedRow], dry_run: bool) -> ImportReport:
    outcomes = [row.outcome for row in rows]
    return ImportReport(
        created=outcomes.count("created"),
        updated=outcomes.count("updated"),
        unchanged=outcomes.count("unchanged"),
        contracts=sum("contract" in row.did for row in rows),
        dry_run=dry_run,
        rows=tuple(rows),
    )


async def _import_row(writer: RegistryWriter, row: CsvRow, now_us: int, seller_zone: str) -> ImportedRow:
    did: list[str] = []
    differs: tuple[str, ...] = ()
    known = await writer.customer(row.customer)
    if known is None:
        await add_customer(
            writer, row.customer, now_us=now_us, name=row.name, email=row.email, references=row.references
        )
    owner = await find_customer(writer, row.customer)
    if known is not None:
        did += await edit_customer(
            writer, owner, name=row.name or None, email=row.email or None, references=row.references
        )
    did += await _import_seats(writer, owner, row)
    if row.agreement is not None:
        contract = await _same_contract(writer, owner, row, now_us)
        if contract is None:
            contract = await add_subscription(writer, owner, row.agreement, now_us=now_us)
            did.append("contract")
            did += await _open(writer, contract, row, now_us, seller_zone)
        else:
            differs = await _differences(writer, contract, row)
    outcome = "created" if known is None else "updated" if did else "unchanged"
    return ImportedRow(row.line, row.customer, outcome, tuple(did), differs)


async def _import_seats(writer: RegistryWriter, owner: Customer, row: CsvRow) -> list[str]:
    known = {seat.ref for seat in await writer.seats(owner.id)}
    new = [ref for ref in row.seat_ids if ref not in known]
    for ref in new:
        await writer.ensure_seat(owner.id, ref)
    return [f"seat {ref}" for ref in new]


async def _same_contract(
    writer: RegistryWriter, owner: Customer, row: CsvRow, now_us: int
) -> Subscription | None:
    """The contract this row was imported into before."""
    start_us = row.agreement.start_us if row.agreement else None
    for contract in await writer.subscriptions(owner.id):
        if start_us is None and overlaps(contract, now_us, now_us + 1):
            return contract
        if start_us == contract.start_us and not overtaken(contract):
            return contract
    return None


async def _open(
    writer: RegistryWriter, contract: Subscription, row: CsvRow, now_us: int, seller_zone: str
) -> list[str]:
    """Count the use so far in the running billing period of a contract that was just made."""
    if not row.used:
        return []
    if now_us < contract.start_us:
        raise InputError("there can be no use so far: the contract starts later")
    catalog = await writer.catalog_at(now_us)
    for action, units in sorted(row.used.items()):
        counted = standing(
            (contract,),
            contract.customer,
            action,
            now_us,
            catalog=catalog,
            seller_zone=seller_zone,
            grace_us=0,
        )
        if counted.subscription != contract.id:
            raise InputError("there can be no use so far: the contract is over")
        await writer.open_counter(counted, action, units)
    return [f"used {action}" for action in sorted(row.used)]


async def _differences(writer: RegistryWriter, contract: Subscription, row: CsvRow) -> tuple[str, ...]:
    """What a row says that the contract in the store does not."""
    agreement = row.agreement
    if agreement is None:
        return ()
    terms = latest_terms(contract)
    pairs: list[tuple[str, object, object]] = [("plan", terms.plan.name, agreement.plan)]
    if "seats" in row.given:
        pairs.append(("seats", terms.seats, agreement.seats))
    if "end" in row.given:
        pairs.append(("end", contract.end_us, agreement.end_us))
    if "time_zone" in row.given:
        pairs.append(("time_zone", contract.time_zone, agreement.time_zone))
    if "anchor" in row.given:
        pairs.append(("anchor", contract.anchor, agreement.anchor))
    pairs.append(("negotiated terms", negotiated_of(terms), agreement.negotiated))
    openings = await writer.openings(contract.customer, contract.id)
    pairs += [(f"used:{action}", openings.get(action, 0), units) for action, units in row.used.items()]
    text = write_id(SUBSCRIPTION, contract.id)
    return tuple(f"{text}: {what} differs" for what, stored, given in pairs if stored != given)
