-- The ledger's statements. Parameters are positional; the dialect is what SQLite and PostgreSQL share.

-- name: slot_create
-- A slot's row, the first time it is used.
INSERT INTO slots (slot, epoch, lease_until_us, batches, seq, head)
VALUES (?, 0, 0, 0, 0, ?)
ON CONFLICT (slot) DO NOTHING;

-- name: slot_take
-- Take a slot over: the epoch fences whoever had it.
UPDATE slots SET epoch = epoch + 1, lease_until_us = ? WHERE slot = ?
RETURNING epoch, batches, seq, head;

-- name: slot_state
-- Where a slot stands, to learn the outcome of a commit whose answer was lost.
SELECT epoch, batches, seq, head FROM slots WHERE slot = ?;

-- name: slot_advance
-- Fence, chain and lease in one: no row means that this process lost its slot.
UPDATE slots SET batches = batches + 1, seq = ?, head = ?, lease_until_us = ?
WHERE slot = ? AND epoch = ? AND batches = ?;

-- name: slots_with_work
-- Slots other than this one that left holds or streams behind (their owner may be alive).
SELECT slot FROM held WHERE slot <> ? AND units <> 0
UNION
SELECT slot FROM streams WHERE slot <> ?;

-- name: slots_with_payments
-- Slots other than this one that left unfinished payments behind (their owner may be alive).
SELECT DISTINCT slot FROM payments WHERE slot <> ? AND state IN (1, 2, 3, 4, 7, 10);

-- name: slots_all
-- Every slot, for verification and exports.
SELECT slot, epoch, seq, head FROM slots ORDER BY slot;

-- name: registry_generation
-- What a process remembers of customers, keys, contracts and catalog holds while this number stays.
SELECT generation FROM registry WHERE id = 1;

-- name: months_closed
-- Accounting months that were closed.
SELECT month FROM months;

-- name: counter_read
-- A counter, to be changed in this transaction.
SELECT granted, opening, used, held, catalog_version, list_micros, list_per, over_micros, over_per, overage
FROM counters WHERE customer = ? AND subscription = ? AND action = ? AND start_us = ?;

-- name: counter_write
-- A counter's new state; the first use of a period creates it.
INSERT INTO counters (customer, subscription, action, start_us, granted, opening, used, held,
    catalog_version, list_micros, list_per, over_micros, over_per, overage)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (customer, subscription, action, start_us) DO UPDATE SET
    granted = excluded.granted, used = excluded.used, held = excluded.held, overage = excluded.overage;

-- name: cap_read
-- A contract's overage money in one billing period.
SELECT spent_micros, held_micros FROM caps WHERE customer = ? AND subscription = ? AND start_us = ?;

-- name: cap_write
-- A cap's new state.
INSERT INTO caps (customer, subscription, start_us, spent_micros, held_micros)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (customer, subscription, start_us) DO UPDATE SET
    spent_micros = excluded.spent_micros, held_micros = excluded.held_micros;

-- name: held_add
-- What a slot holds of a counter, changed by a difference.
INSERT INTO held (slot, customer, subscription, action, start_us, units)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (slot, customer, subscription, action, start_us) DO UPDATE SET
    units = held.units + excluded.units;

-- name: held_of_slot
-- What a dead slot still holds.
SELECT customer, subscription, action, start_us, units FROM held WHERE slot = ? AND units <> 0;

-- name: held_clear
-- A dead slot holds nothing any more.
DELETE FROM held WHERE slot = ?;

-- name: stream_begin
-- A measured stream, before its first byte leaves.
INSERT INTO streams (slot, request_id, units, held, use, updated_us) VALUES (?, ?, ?, ?, ?, ?);

-- name: stream_note
-- What a running stream has used so far.
UPDATE streams SET units = ?, updated_us = ? WHERE slot = ? AND request_id = ?;

-- name: stream_end
-- A stream that is booked, in the same transaction, or not to be booked.
DELETE FROM streams WHERE slot = ? AND request_id = ?;

-- name: streams_of_slot
-- Streams that are running, or that a dead process left unbooked.
SELECT request_id, units, held, use FROM streams WHERE slot = ?;

-- name: streams_adopt
-- Give a dead process's streams to whoever takes over.
UPDATE streams SET slot = ? WHERE slot = ?;

-- name: event_insert
-- One ledger row, in the order of `model.event.Event`.
INSERT INTO events (slot, seq, v, kind, channel, action, route, units, written_off, unit_micros, per, prior,
    catalog_version, list_micros, charged_micros, customer, subscription, seat, api_key, period_start_us,
    request_id, occurred_us, booked_us, month, late_for, rail, payer, authorized_micros, tx, payment,
    corrects_slot, corrects_seq, reason, row_hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: events_at
-- Consecutive rows of one slot, `seq` half-open.
SELECT slot, seq, v, kind, channel, action, route, units, written_off, unit_micros, per, prior,
    catalog_version, list_micros, charged_micros, customer, subscription, seat, api_key, period_start_us,
    request_id, occurred_us, booked_us, month, late_for, rail, payer, authorized_micros, tx, payment,
    corrects_slot, corrects_seq, reason, row_hash
FROM events WHERE slot = ? AND seq >= ? AND seq < ? ORDER BY seq;

-- name: totals_add
-- Totals by day, channel, action and network, in the event's own transaction.
INSERT INTO totals (month, day, channel, action, network, slot,
    events, units, list_micros, charged_micros, adjusted_micros, refunded_micros, settled_micros)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (month, day, channel, action, network, slot) DO UPDATE SET
    events = totals.events + excluded.events,
    units = totals.units + excluded.units,
    list_micros = totals.list_micros + excluded.list_micros,
    charged_micros = totals.charged_micros + excluded.charged_micros,
    adjusted_micros = totals.adjusted_micros + excluded.adjusted_micros,
    refunded_micros = totals.refunded_micros + excluded.refunded_micros,
    settled_micros = totals.settled_micros + excluded.settled_micros;

-- name: party_totals_add
-- The same by customer and payer.
INSERT INTO party_totals (customer, payer, month, channel, action, network, slot,
    events, units, list_micros, charged_micros, adjusted_micros, refunded_micros, settled_micros)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (customer, payer, month, channel, action, network, slot) DO UPDATE SET
    events = party_totals.events + excluded.events,
    units = party_totals.units + excluded.units,
    list_micros = party_totals.list_micros + excluded.list_micros,
    charged_micros = party_totals.charged_micros + excluded.charged_micros,
    adjusted_micros = party_totals.adjusted_micros + excluded.adjusted_micros,
    refunded_micros = party_totals.refunded_micros + excluded.refunded_micros,
    settled_micros = party_totals.settled_micros + excluded.settled_micros;

-- name: claim_read
-- The use that an id led to before.
SELECT digest, slot, seq, events FROM claims WHERE customer = ? AND key_hash = ?;

-- name: claim_write
-- An id's first use, in the transaction of its events.
INSERT INTO claims (customer, key_hash, digest, slot, seq, events, claimed_us) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: rail_read
-- The short number of a network, token, recipient and scheme.
SELECT id FROM rails WHERE network = ? AND asset = ? AND pay_to = ? AND scheme = ?;

-- name: rail_create
-- A new short number.
INSERT INTO rails (id, network, asset, pay_to, scheme)
SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ?, ? FROM rails
RETURNING id;

-- name: action_ids
-- Every action's short number.
SELECT name, id FROM actions;

-- name: action_read
-- An action's short number.
SELECT id FROM actions WHERE name = ?;

-- name: action_create
-- A new action's short number.
INSERT INTO actions (id, name) SELECT COALESCE(MAX(id), 0) + 1, ? FROM actions RETURNING id;

-- name: route_read
-- A route's short number.
SELECT id FROM routes WHERE name = ?;

-- name: route_create
-- A new route's short number.
INSERT INTO routes (id, name) SELECT COALESCE(MAX(id), 0) + 1, ? FROM routes RETURNING id;

-- name: payment_insert
-- Claim a payment: the row exists before anything is asked of anybody. No row changed: somebody has it.
INSERT INTO payments (network, asset, payer, nonce, id, state, slot, epoch, rail, action, route, customer,
    subscription, seat, api_key, request_id, binding, body_digest, authorized_micros, charged_micros, units,
    unit_micros, per, list_micros, written_off, catalog_version, valid_before_s, occurred_us, updated_us,
    authorization_json, requirements_json, tx, reason, event_slot, event_seq)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- name: payment_read
-- One payment by its id.
SELECT network, asset, payer, nonce, id, state, slot, epoch, rail, action, route, customer,
    subscription, seat, api_key, request_id, binding, body_digest, authorized_micros, charged_micros, units,
    unit_micros, per, list_micros, written_off, catalog_version, valid_before_s, occurred_us, updated_us,
    authorization_json, requirements_json, tx, reason, event_slot, event_seq
FROM payments WHERE id = ?;

-- name: payment_named
-- The payment that a payer gave a name to.
SELECT payment FROM payment_names WHERE name_hash = ?;

-- name: payment_name
-- Give a payment the name its payer chose; a name whose payment came to nothing passes on.
INSERT INTO payment_names (name_hash, payment) VALUES (?, ?)
ON CONFLICT (name_hash) DO UPDATE SET payment = excluded.payment;

-- name: payment_reclaim
-- Claim a payment again that was released, or whose process died before anything was owed.
UPDATE payments SET state = 1, slot = ?, epoch = ?, rail = ?, action = ?, route = ?, customer = ?,
    subscription = ?, seat = ?, api_key = ?, request_id = ?, binding = ?, authorized_micros = ?,
    unit_micros = ?, per = ?, catalog_version = ?, valid_before_s = ?, occurred_us = ?, updated_us = ?,
    reason = NULL
WHERE id = ? AND state IN (1, 2, 8);

-- name: payment_owner
-- Give a payment to a slot, as long as it is in the state that was seen.
UPDATE payments SET slot = ?, epoch = ? WHERE id = ? AND state = ?;

-- name: payment_intend
-- The work is done: what will be settled, durable before it is.
UPDATE payments SET state = ?, body_digest = ?, charged_micros = ?, units = ?, list_micros = ?,
    written_off = ?, authorization_json = ?, requirements_json = ?, updated_us = ?
WHERE id = ? AND slot = ? AND epoch = ? AND state IN (1, 2);

-- name: payment_state_own
-- Move a payment on that a slot works on: what somebody else has claimed meanwhile is not touched.
UPDATE payments SET state = ?, reason = ?, updated_us = ? WHERE id = ? AND state = ? AND slot = ?;

-- name: payment_state
-- Move a payment on, only from a state that may lead there.
UPDATE payments SET state = ?, reason = ?, updated_us = ? WHERE id = ? AND state = ?;

-- name: payment_settled
-- A payment and its event, in one transaction; only once.
UPDATE payments SET state = 5, tx = ?, reason = NULL, charged_micros = ?, event_slot = ?, event_seq = ?,
    updated_us = ?
WHERE id = ? AND state IN (3, 4, 6, 7);

-- name: payment_unsettled
-- The chain took the transfer back: the payment is open again, and whoever found out resolves it.
UPDATE payments SET state = 7, tx = NULL, reason = ?, event_slot = NULL, event_seq = NULL, slot = ?, epoch = ?,
    updated_us = ?
WHERE id = ? AND state IN (5, 9, 10);

-- name: payment_repeat
-- A settled payment is served again by this process, uncharged.
UPDATE payments SET state = 10, slot = ?, epoch = ?, updated_us = ? WHERE id = ? AND state IN (5, 9, 10);

-- name: payments_to_watch
-- Payments in a state that changed since an instant: the chain may still say otherwise.
SELECT p.id, p.updated_us, p.network, r.pay_to, p.tx, p.payer, p.charged_micros, p.slot, p.epoch
FROM payments p JOIN rails r ON r.id = p.rail
WHERE p.state = ? AND p.updated_us >= ? ORDER BY p.updated_us;

-- name: payment_flows
-- What would be settled of a payment if the stream it pays for ended now.
UPDATE payments SET charged_micros = ?, units = ?, list_micros = ?, written_off = ?, requirements_json = ?,
    body_digest = ?, updated_us = ?
WHERE id = ? AND slot = ? AND epoch = ? AND state = 3;

-- name: payment_served_for
-- The body of the request a payment was served for, where it was settled before the work.
UPDATE payments SET body_digest = ? WHERE id = ?;

-- name: owed_write
-- The work of a payment that is settled before it; the payment may have been claimed before.
INSERT INTO owed (payment, due_us, refund_due) VALUES (?, ?, 0)
ON CONFLICT (payment) DO UPDATE SET due_us = excluded.due_us, refund_due = 0;

-- name: owed_read
-- Whether a payment's work is owed.
SELECT due_us, refund_due FROM owed WHERE payment = ?;

-- name: owed_clear
-- The work was done.
DELETE FROM owed WHERE payment = ?;

-- name: owed_overdue
-- Paid work that was not done in time.
SELECT o.payment, p.state FROM owed o JOIN payments p ON p.id = o.payment
WHERE o.refund_due = 0 AND o.due_us <= ? AND p.state IN (5, 9, 10);

-- name: owed_refund
-- From now on a refund is due for it.
UPDATE owed SET refund_due = 1 WHERE payment = ? AND refund_due = 0;

-- name: payment_step
-- One line of a payment's history; `n` orders them: the instant, then the state.
INSERT INTO payment_steps (payment, n, at_us, state, note) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (payment, n) DO NOTHING;

-- name: payment_steps_count
-- How long its history is.
SELECT COUNT(*) FROM payment_steps WHERE payment = ?;

-- name: payment_steps_cut
-- So many lines of its history after the first so many.
DELETE FROM payment_steps WHERE payment = ? AND n IN (
    SELECT n FROM payment_steps WHERE payment = ? ORDER BY n LIMIT ? OFFSET ?);

-- name: answer_write
-- The answer kept for a payer.
INSERT INTO answers (payment, status, headers, body, kept_until_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (payment) DO UPDATE SET
    status = excluded.status, headers = excluded.headers, body = excluded.body,
    kept_until_us = excluded.kept_until_us;

-- name: answer_keep_until
-- The time an answer is kept runs from the settlement.
UPDATE answers SET kept_until_us = ? WHERE payment = ?;

-- name: answer_read
-- The answer kept for a payer.
SELECT status, headers, body, kept_until_us FROM answers WHERE payment = ?;

-- name: answers_expire
-- Answers whose time is over; one whose payment is not resolved waits for that.
DELETE FROM answers WHERE kept_until_us < ?
    AND payment NOT IN (SELECT id FROM payments WHERE state IN (3, 4, 7, 10));

-- name: payments_released
-- Payments that came to nothing before an instant, oldest first.
SELECT id FROM payments WHERE state = 8 AND updated_us < ? ORDER BY updated_us LIMIT ?;

-- name: payment_forget
-- A payment that came to nothing, once what tells about it is gone.
DELETE FROM payments WHERE id = ? AND state = 8;

-- name: payment_steps_forget
-- Its history.
DELETE FROM payment_steps WHERE payment = ?;

-- name: payment_names_forget
-- The names its payer gave it.
DELETE FROM payment_names WHERE payment = ?;

-- name: answer_forget
-- What was written for its payer before it came to nothing.
DELETE FROM answers WHERE payment = ?;

-- name: payments_to_resume
-- Payments of one slot that a dead process left unfinished.
SELECT id, state, valid_before_s FROM payments WHERE slot = ? AND state IN (1, 2, 3, 4, 7, 10);

-- name: meta_read
-- One fact about this store.
SELECT value FROM meta WHERE name = ?;

-- name: meta_set
-- A fact that may change.
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: meta_create
-- A fact that is fixed when the store is created.
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING;
