-- The registry's statements: customers, seats, keys, contracts, catalogs. Same dialect as queries.sql.

-- name: registry_lock
-- Writers of the registry take turns, so that `max + 1` gives each its own id.
UPDATE registry SET generation = generation WHERE id = 1;

-- name: registry_bump
-- Tell every process that what it remembers may no longer hold.
UPDATE registry SET generation = generation + 1 WHERE id = 1;

-- name: catalogs_published
-- Every published catalog, oldest first, without its text.
SELECT version, effective_us, published_us, digest FROM catalogs ORDER BY version;

-- name: catalog_read
-- One published catalog.
SELECT body, effective_us FROM catalogs WHERE version = ?;

-- name: catalog_create
-- Publish a catalog; it is never changed afterwards.
INSERT INTO catalogs (version, effective_us, published_us, body, digest) VALUES (?, ?, ?, ?, ?);

-- name: customer_by_ref
-- A customer by the seller's own id.
SELECT id, ref, name, email, created_us, archived_us FROM customers WHERE ref = ?;

-- name: customer_by_id
-- A customer by its number.
SELECT id, ref, name, email, created_us, archived_us FROM customers WHERE id = ?;

-- name: customers_page
-- Customers in the order of the seller's ids, after one of them; the archived only if asked for.
SELECT id, ref, name, email, created_us, archived_us FROM customers
WHERE ref > ? AND (archived_us IS NULL OR ? = 1)
ORDER BY ref LIMIT ?;

-- name: customer_create
-- A new customer.
INSERT INTO customers (id, ref, name, email, created_us, archived_us)
SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ?, ?, NULL FROM customers
RETURNING id;

-- name: customer_update
-- What may be edited and erased.
UPDATE customers SET name = ?, email = ? WHERE id = ?;

-- name: customer_archive
-- Out of the lists; its number stays, since events name it.
UPDATE customers SET archived_us = ? WHERE id = ? AND archived_us IS NULL;

-- name: references_of
-- A customer's ids in other systems.
SELECT system, value FROM customer_refs WHERE customer = ? ORDER BY system;

-- name: references_all
-- The same for every customer.
SELECT customer, system, value FROM customer_refs ORDER BY customer, system;

-- name: reference_holders
-- Which customers another system's id belongs to.
SELECT customer FROM customer_refs WHERE system = ? AND value = ? ORDER BY customer;

-- name: reference_set
-- A customer's id in another system, new or changed.
INSERT INTO customer_refs (customer, system, value) VALUES (?, ?, ?)
ON CONFLICT (customer, system) DO UPDATE SET value = excluded.value;

-- name: reference_remove
-- Forget a customer's id in another system.
DELETE FROM customer_refs WHERE customer = ? AND system = ?;

-- name: seat_by_ref
-- A named user by the seller's own id.
SELECT id, customer, ref, name FROM seats WHERE customer = ? AND ref = ?;

-- name: seats_of
-- A customer's named users.
SELECT id, customer, ref, name FROM seats WHERE customer = ? ORDER BY ref;

-- name: seats_all
-- Everybody's named users, to write their ids beside keys.
SELECT id, customer, ref, name FROM seats ORDER BY id;

-- name: seat_create
-- A new named user.
INSERT INTO seats (id, customer, ref, name)
SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ? FROM seats
RETURNING id;

-- name: seat_rename
-- What may be edited and erased.
UPDATE seats SET name = ? WHERE id = ?;

-- name: key_by_digest
-- The key a caller presented, with its customer's and its seat's own ids.
SELECT k.id, k.customer, k.seat, k.hint, k.created_us, k.expires_us, k.revoked_us, k.replaces, c.ref, s.ref
FROM api_keys k JOIN customers c ON c.id = k.customer LEFT JOIN seats s ON s.id = k.seat
WHERE k.hash = ?;

-- name: key_by_id
-- The same by its number.
SELECT k.id, k.customer, k.seat, k.hint, k.created_us, k.expires_us, k.revoked_us, k.replaces, c.ref, s.ref
FROM api_keys k JOIN customers c ON c.id = k.customer LEFT JOIN seats s ON s.id = k.seat
WHERE k.id = ?;

-- name: keys_of
-- One customer's keys.
SELECT k.id, k.customer, k.seat, k.hint, k.created_us, k.expires_us, k.revoked_us, k.replaces, c.ref, s.ref
FROM api_keys k JOIN customers c ON c.id = k.customer LEFT JOIN seats s ON s.id = k.seat
WHERE k.customer = ? ORDER BY k.id;

-- name: keys_all
-- Everybody's keys.
SELECT k.id, k.customer, k.seat, k.hint, k.created_us, k.expires_us, k.revoked_us, k.replaces, c.ref, s.ref
FROM api_keys k JOIN customers c ON c.id = k.customer LEFT JOIN seats s ON s.id = k.seat
ORDER BY k.id;

-- name: key_create
-- A new key: its hash, never itself.
INSERT INTO api_keys (id, customer, seat, hash, hint, created_us, expires_us, revoked_us, replaces)
SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ?, ?, ?, ?, NULL, ? FROM api_keys
RETURNING id;

-- name: key_successor
-- The key that replaced one.
SELECT id FROM api_keys WHERE replaces = ?;

-- name: key_expire
-- Let a key end at a time.
UPDATE api_keys SET expires_us = ? WHERE id = ?;

-- name: key_revoke
-- End a key now; the first revocation stands.
UPDATE api_keys SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL;

-- name: keys_revoke_all
-- End all keys of a customer.
UPDATE api_keys SET revoked_us = ? WHERE customer = ? AND revoked_us IS NULL;

-- name: subscription_by_id
-- One contract.
SELECT id, customer, start_us, end_us, canceled_us, time_zone, anchor FROM subscriptions WHERE id = ?;

-- name: subscriptions_of
-- One customer's contracts, oldest first.
SELECT id, customer, start_us, end_us, canceled_us, time_zone, anchor FROM subscriptions
WHERE customer = ? ORDER BY start_us, id;

-- name: subscriptions_all
-- Everybody's contracts.
SELECT id, customer, start_us, end_us, canceled_us, time_zone, anchor FROM subscriptions
ORDER BY customer, start_us, id;

-- name: subscription_create
-- A new contract.
INSERT INTO subscriptions (id, customer, start_us, end_us, canceled_us, time_zone, anchor, created_us)
SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ?, NULL, ?, ?, ? FROM subscriptions
RETURNING id;

-- name: subscription_end
-- A renewal: the contract ends later, or no more.
UPDATE subscriptions SET end_us = ? WHERE id = ?;

-- name: subscription_cancel
-- The contract stops at a time.
UPDATE subscriptions SET canceled_us = ? WHERE id = ?;

-- name: terms_of
-- What was agreed under one contract; later agreements for the same time replace earlier ones.
SELECT subscription, from_us, catalog_version, plan, seats, negotiated FROM terms
WHERE subscription = ? ORDER BY from_us, n;

-- name: terms_of_customer
-- The same for all contracts of one customer.
SELECT t.subscription, t.from_us, t.catalog_version, t.plan, t.seats, t.negotiated
FROM terms t JOIN subscriptions s ON s.id = t.subscription
WHERE s.customer = ? ORDER BY t.subscription, t.from_us, t.n;

-- name: terms_all
-- The same for every contract.
SELECT subscription, from_us, catalog_version, plan, seats, negotiated FROM terms
ORDER BY subscription, from_us, n;

-- name: terms_add
-- One more agreement; none is ever rewritten.
INSERT INTO terms (subscription, n, from_us, catalog_version, plan, seats, negotiated)
SELECT ?, COALESCE(MAX(n), 0) + 1, ?, ?, ?, ?, ? FROM terms WHERE subscription = ?;

-- name: counters_of_period
-- The counters of one contract's billing period, by action.
SELECT action, granted, opening, used, held, catalog_version, list_micros, list_per, over_micros, over_per,
    overage
FROM counters WHERE customer = ? AND subscription = ? AND start_us = ? ORDER BY action;

-- name: counter_openings
-- Use before the import, of one contract, whatever billing period it fell in.
SELECT action, opening FROM counters
WHERE customer = ? AND subscription = ? AND opening <> 0 ORDER BY action;

-- name: counter_grant
-- What a running billing period grants after its contract changed; creates the counter with today's prices.
INSERT INTO counters (customer, subscription, action, start_us, granted, opening, used, held,
    catalog_version, list_micros, list_per, over_micros, over_per)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (customer, subscription, action, start_us) DO UPDATE SET granted = excluded.granted;

-- name: cap_held
-- What the held units may cost, reckoned again after what is granted changed.
UPDATE caps SET held_micros = ? WHERE customer = ? AND subscription = ? AND start_us = ?;
