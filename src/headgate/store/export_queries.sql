-- Exports: who delivers, how far it got, and what is still to go. Same dialect as queries.sql.
-- Which rows an export is about is said by a range of channels and the time from which on they count.

-- name: export_read
-- An export's lease and its latest failures.
SELECT owner, lease_until_us, failures, retry_us, last_error FROM exports WHERE name = ?;

-- name: exports_all
-- The same for every export there ever was.
SELECT name, owner, lease_until_us, failures, retry_us, last_error FROM exports ORDER BY name;

-- name: export_create
-- An export's row, the first time it has something to deliver.
INSERT INTO exports (name, owner, lease_until_us, failures, retry_us, last_error)
VALUES (?, '', 0, 0, 0, NULL)
ON CONFLICT (name) DO NOTHING;

-- name: export_take
-- Lease an export that is free, whose owner's time is over, or that is one's own.
UPDATE exports SET owner = ?, lease_until_us = ?
WHERE name = ? AND (owner = ? OR lease_until_us <= ?)
RETURNING owner, lease_until_us, failures, retry_us, last_error;

-- name: export_renew
-- Keep the lease: no row means that somebody else has it.
UPDATE exports SET lease_until_us = ? WHERE name = ? AND owner = ?;

-- name: export_delivered
-- The receiver took a batch: keep the lease, forget the failures.
UPDATE exports SET lease_until_us = ?, failures = 0, retry_us = 0, last_error = NULL
WHERE name = ? AND owner = ?;

-- name: export_failed
-- The receiver did not take a batch.
UPDATE exports SET failures = failures + 1, retry_us = ?, last_error = ? WHERE name = ? AND owner = ?;

-- name: export_release
-- Give the lease back, so that the next process need not wait for its end.
UPDATE exports SET lease_until_us = 0 WHERE name = ? AND owner = ?;

-- name: export_resume
-- The operator wants the next attempt now, whoever makes it.
UPDATE exports SET retry_us = 0 WHERE name = ?;

-- name: cursor_create
-- A slot's cursor, before its first move.
INSERT INTO cursors (export, slot, seq) VALUES (?, ?, 0) ON CONFLICT (export, slot) DO NOTHING;

-- name: cursor_move
-- From where its owner believed it to be, or not at all.
UPDATE cursors SET seq = ? WHERE export = ? AND slot = ? AND seq = ?;

-- name: cursors_behind
-- Slots that have rows beyond the cursor: (slot, cursor, last row).
SELECT s.slot, COALESCE(c.seq, 0), s.seq
FROM slots s LEFT JOIN cursors c ON c.export = ? AND c.slot = s.slot
WHERE s.seq > COALESCE(c.seq, 0)
ORDER BY s.slot;

-- name: export_rows
-- The first rows of one slot, `seq` in (from, to], with the names a receiver knows them by. What a correction
-- corrects is named by an id that holds its time of booking. Outer joins keep the slot's order as the plan.
SELECT e.slot, e.seq, e.kind, e.channel, e.action, a.name, e.units, e.unit_micros, e.per, e.prior,
    e.catalog_version, e.list_micros, e.charged_micros, e.customer, k.ref, e.subscription, e.period_start_us,
    e.request_id, e.occurred_us, e.booked_us, e.month, e.late_for, e.corrects_slot, e.corrects_seq,
    o.booked_us, e.reason
FROM events e
LEFT JOIN actions a ON a.id = e.action
LEFT JOIN customers k ON k.id = e.customer
LEFT JOIN events o ON o.slot = e.corrects_slot AND o.seq = e.corrects_seq
WHERE e.slot = ? AND e.seq > ? AND e.seq <= ? AND e.channel >= ? AND e.channel <= ? AND e.booked_us >= ?
ORDER BY e.seq
LIMIT ?;

-- name: export_pending
-- How many rows are still to go, and when the oldest of them was booked.
SELECT COUNT(*), MIN(e.booked_us)
FROM slots s
LEFT JOIN cursors c ON c.export = ? AND c.slot = s.slot
JOIN events e ON e.slot = s.slot AND e.seq > COALESCE(c.seq, 0)
WHERE e.channel >= ? AND e.channel <= ? AND e.booked_us >= ?;
