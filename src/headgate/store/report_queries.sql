-- Statements of the readers: report, events, payments, explain, verify. Same dialect as queries.sql.

-- name: action_names
-- Actions by their short numbers.
SELECT id, name FROM actions;

-- name: route_names
-- Routes by their short numbers.
SELECT id, name FROM routes;

-- name: rail_names
-- Ways to be paid by their short numbers.
SELECT id, network, asset, pay_to, scheme FROM rails;

-- name: customer_refs_all
-- The seller's own customer ids by number.
SELECT id, ref FROM customers;

-- name: customer_ref_of
-- One customer's own id.
SELECT ref FROM customers WHERE id = ?;

-- name: seat_ref_of
-- One named user's own id.
SELECT ref FROM seats WHERE id = ?;

-- name: first_seq_since
-- The first row of a slot at or after a place, and when it was booked: one step of a binary search.
SELECT seq, booked_us FROM events WHERE slot = ? AND seq >= ? ORDER BY seq LIMIT 1;

-- name: memo_payments_pending
-- Payments something still has to happen to, of work asked for in a span of time.
SELECT COUNT(*), COALESCE(SUM(authorized_micros), 0) FROM payments
WHERE state IN (1, 2, 3, 4, 7) AND occurred_us >= ? AND occurred_us < ?;

-- name: memo_unpaid_work
-- Work that was done and whose settlement failed (not: work that waited for it).
SELECT COUNT(*), COALESCE(SUM(charged_micros), 0) FROM payments
WHERE state = 6 AND occurred_us >= ? AND occurred_us < ? AND id NOT IN (SELECT payment FROM owed);

-- name: memo_owed_work
-- Payments that were taken and whose work is still to be served (reopened, repeating).
SELECT COUNT(*), COALESCE(SUM(charged_micros), 0) FROM payments
WHERE state IN (9, 10) AND occurred_us >= ? AND occurred_us < ?;

-- name: memo_refunds_owed
-- Refunds due for work that was paid before it and never done.
SELECT COALESCE(SUM(p.charged_micros), 0) FROM owed o JOIN payments p ON p.id = o.payment
WHERE o.refund_due = 1 AND p.state IN (5, 9, 10) AND p.occurred_us >= ? AND p.occurred_us < ?;

-- name: memo_refunds
-- Refunds booked to payers; nothing records yet that one was sent.
SELECT COALESCE(SUM(refunded_micros), 0) FROM totals
WHERE channel = 3 AND month >= ? AND month <= ? AND month * 100 + day >= ? AND month * 100 + day <= ?;

-- name: memo_written_off
-- Use that was served and charged to nobody, by its price (index events_written_off). Without any units it
-- could not be measured. What was reversed is booked anew if it was paid after all.
SELECT e.unit_micros, e.per, CASE WHEN e.units = 0 THEN 1 ELSE 0 END, COUNT(*), SUM(e.written_off)
FROM events e
WHERE e.written_off > 0 AND e.month >= ? AND e.month <= ? AND e.occurred_us >= ? AND e.occurred_us < ?
    AND NOT EXISTS (
        SELECT 1 FROM events r WHERE r.corrects_slot IS NOT NULL
            AND r.corrects_slot = e.slot AND r.corrects_seq = e.seq
    )
GROUP BY 1, 2, 3;

-- name: memo_unassigned_kept
-- Whole months: unassigned use of customers who had no contract at all before the span's end. Their seat
-- totals are unassigned use and nothing else.
SELECT COALESCE(SUM(events), 0), COALESCE(SUM(units), 0), COALESCE(SUM(list_micros), 0) FROM party_totals
WHERE channel = 1 AND month >= ? AND month <= ?
    AND customer IN (SELECT customer FROM counters WHERE subscription = 0)
    AND customer NOT IN (SELECT customer FROM subscriptions WHERE start_us < ?);

-- name: memo_unassigned_mixed
-- Whole months: the same of customers who came under contract, from their rows (index events_unassigned).
SELECT COUNT(*), COALESCE(SUM(units), 0), COALESCE(SUM(list_micros), 0) FROM events
WHERE channel = 1 AND subscription IS NULL AND customer IS NOT NULL
    AND customer IN (
        SELECT c.customer FROM counters c JOIN subscriptions s ON s.customer = c.customer
        WHERE c.subscription = 0 AND s.start_us < ?
    )
    AND month >= ? AND month <= ?;

-- name: memo_unassigned_days
-- Parts of months: unassigned use from its rows.
SELECT COUNT(*), COALESCE(SUM(units), 0), COALESCE(SUM(list_micros), 0) FROM events
WHERE channel = 1 AND subscription IS NULL AND customer IS NOT NULL
    AND customer IN (SELECT customer FROM counters WHERE subscription = 0)
    AND month >= ? AND month <= ?
    AND CASE WHEN late_for IS NULL THEN occurred_us ELSE booked_us END >= ?
    AND CASE WHEN late_for IS NULL THEN occurred_us ELSE booked_us END < ?;

-- name: event_at
-- One row by its place.
SELECT slot, seq, v, kind, channel, action, route, units, written_off, unit_micros, per, prior,
    catalog_version, list_micros, charged_micros, customer, subscription, seat, api_key, period_start_us,
    request_id, occurred_us, booked_us, month, late_for, rail, payer, authorized_micros, tx, payment,
    corrects_slot, corrects_seq, reason, row_hash
FROM events WHERE slot = ? AND seq = ?;

-- name: events_after
-- The next rows of one slot up to a place, for verification.
SELECT slot, seq, v, kind, channel, action, route, units, written_off, unit_micros, per, prior,
    catalog_version, list_micros, charged_micros, customer, subscription, seat, api_key, period_start_us,
    request_id, occurred_us, booked_us, month, late_for, rail, payer, authorized_micros, tx, payment,
    corrects_slot, corrects_seq, reason, row_hash
FROM events WHERE slot = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?;

-- name: events_of_request
-- The rows of one request.
SELECT slot, seq, v, kind, channel, action, route, units, written_off, unit_micros, per, prior,
    catalog_version, list_micros, charged_micros, customer, subscription, seat, api_key, period_start_us,
    request_id, occurred_us, booked_us, month, late_for, rail, payer, authorized_micros, tx, payment,
    corrects_slot, corrects_seq, reason, row_hash
FROM events WHERE request_id = ? ORDER BY booked_us, slot, seq;

-- name: events_correcting
-- The rows that correct a row.
SELECT slot, seq, booked_us FROM events WHERE corrects_slot = ? AND corrects_seq = ?
ORDER BY booked_us, slot, seq;

-- name: event_slot_after
-- The next slot that has rows, whether it is known or not.
SELECT MIN(slot) FROM events WHERE slot > ?;

-- name: event_last_seq
-- The last row of a slot.
SELECT MAX(seq) FROM events WHERE slot = ?;

-- name: export_progress
-- Which exports passed a slot's row: how far each got there.
SELECT e.name, c.seq FROM exports e LEFT JOIN cursors c ON c.export = e.name AND c.slot = ?
ORDER BY e.name;

-- name: verify_totals
-- The kept totals.
SELECT month, day, channel, action, network, slot, events, units, list_micros, charged_micros,
    adjusted_micros, refunded_micros, settled_micros
FROM totals;

-- name: verify_party_totals
-- The kept totals by customer and payer.
SELECT customer, payer, month, channel, action, network, slot, events, units, list_micros, charged_micros,
    adjusted_micros, refunded_micros, settled_micros
FROM party_totals;

-- name: verify_counters
-- The counters.
SELECT customer, subscription, action, start_us, granted, opening, used, held, overage FROM counters;

-- name: verify_held
-- What the slots hold of each counter.
SELECT customer, subscription, action, start_us, SUM(units) FROM held
GROUP BY customer, subscription, action, start_us;

-- name: verify_unpaid_events
-- Use rows of a stretch of a slot that name a payment which is not settled by this very row.
SELECT e.seq FROM events e
LEFT JOIN payments p ON p.id = e.payment AND p.event_slot = e.slot AND p.event_seq = e.seq
    AND p.state IN (5, 9, 10)
WHERE e.slot = ? AND e.seq > ? AND e.seq <= ? AND e.kind = 1 AND e.payment IS NOT NULL AND p.id IS NULL;

-- name: verify_settled_payments
-- Settled payments in the order of their ids, with the row that they name as far as it is their use.
SELECT p.id, p.event_slot, p.event_seq, p.charged_micros, e.charged_micros FROM payments p
LEFT JOIN events e ON e.slot = p.event_slot AND e.seq = p.event_seq AND e.payment = p.id AND e.kind = 1
WHERE p.state IN (5, 9, 10) AND p.id > ? ORDER BY p.id LIMIT ?;

-- name: payments_recent
-- Payments, the last changed first, from a place on.
SELECT id FROM payments WHERE updated_us < ? OR (updated_us = ? AND id < ?)
ORDER BY updated_us DESC, id DESC LIMIT ?;

-- name: payments_recent_in_state
-- The same in one state (index payments_by_state).
SELECT id FROM payments WHERE state = ? AND (updated_us < ? OR (updated_us = ? AND id < ?))
ORDER BY updated_us DESC, id DESC LIMIT ?;

-- name: payments_of_payer
-- A payer's payments; the networks and tokens that are known lead into the primary key.
SELECT id FROM payments
WHERE network IN (SELECT network FROM rails) AND asset IN (SELECT asset FROM rails) AND payer = ?
ORDER BY occurred_us, id LIMIT ?;

-- name: payments_of_request
-- The payments of one request.
SELECT id FROM payments WHERE request_id = ? ORDER BY occurred_us, id LIMIT ?;

-- name: payments_of_tx
-- The payments settled by one transaction.
SELECT id FROM payments WHERE tx = ? ORDER BY occurred_us, id LIMIT ?;

-- name: payment_shown
-- What may be shown of a payment: never the signed authorization.
SELECT p.id, p.state, p.network, p.asset, p.payer, p.nonce, r.pay_to, r.scheme, a.name, o.name, c.ref,
    p.subscription, s.ref, p.api_key, p.request_id, p.units, p.written_off, p.unit_micros, p.per,
    p.catalog_version, p.authorized_micros, p.charged_micros, p.list_micros, p.valid_before_s,
    p.occurred_us, p.updated_us, p.tx, p.reason, p.event_slot, p.event_seq, e.booked_us
FROM payments p
LEFT JOIN rails r ON r.id = p.rail
LEFT JOIN actions a ON a.id = p.action
LEFT JOIN routes o ON o.id = p.route
LEFT JOIN customers c ON c.id = p.customer
LEFT JOIN seats s ON s.id = p.seat
LEFT JOIN events e ON e.slot = p.event_slot AND e.seq = p.event_seq
WHERE p.id = ?;

-- name: payment_steps_of
-- A payment's history, oldest first.
SELECT at_us, state, note FROM payment_steps WHERE payment = ? ORDER BY n;
