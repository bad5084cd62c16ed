-- The first ledger. Portable between SQLite and PostgreSQL: {bytes} is BLOB or BYTEA, {clustered} is
-- WITHOUT ROWID or nothing. No sequences, triggers or session state; ids are max + 1 inside the transaction
-- that needs them. Money is BIGINT micro-dollars, time is BIGINT microseconds since the epoch (UTC).

-- What this store is: its mode (test or live, fixed for ever), its secret for receipt links, its birth.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row. `generation` grows with every change of customers, keys, contracts or catalog, in the same
-- transaction, so that one small read tells every process whether what it remembers still holds.
CREATE TABLE registry (
    id INTEGER NOT NULL PRIMARY KEY,
    generation BIGINT NOT NULL
);
INSERT INTO registry (id, generation) VALUES (1, 1);

-- Published catalogs, as canonical JSON; `digest` is its SHA-256. Never changed once published.
CREATE TABLE catalogs (
    version BIGINT NOT NULL PRIMARY KEY,
    effective_us BIGINT NOT NULL,
    published_us BIGINT NOT NULL,
    body TEXT NOT NULL,
    digest {bytes} NOT NULL
);

-- Short numbers for action names: an event carries 1 byte instead of 20.
CREATE TABLE actions (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Short numbers for routes, for the same reason.
CREATE TABLE routes (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Customers. `ref` is the seller's own id; name and email can be edited and erased, events hold only `id`.
CREATE TABLE customers (
    id BIGINT NOT NULL PRIMARY KEY,
    ref TEXT NOT NULL UNIQUE,
    name TEXT,
    email TEXT,
    created_us BIGINT NOT NULL,
    archived_us BIGINT
);

-- A customer's ids in other systems (`stripe = "cus_…"`).
CREATE TABLE customer_refs (
    customer BIGINT NOT NULL,
    system TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (customer, system)
);

-- Named users of a customer.
CREATE TABLE seats (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    ref TEXT NOT NULL,
    name TEXT,
    UNIQUE (customer, ref)
);

-- API keys, as SHA-256 hashes; `hint` is the part that may be shown. `replaces` names the rotated key.
CREATE TABLE api_keys (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    seat BIGINT,
    hash {bytes} NOT NULL UNIQUE,
    hint TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT,
    revoked_us BIGINT,
    replaces BIGINT
);

-- Contracts. What was agreed and when stands in `terms`, one row per change, never rewritten.
CREATE TABLE subscriptions (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    start_us BIGINT NOT NULL,
    end_us BIGINT,
    canceled_us BIGINT,
    time_zone TEXT NOT NULL,
    anchor TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX subscriptions_by_customer ON subscriptions (customer);

-- `negotiated` is JSON: own allowances, overage prices, cap.
CREATE TABLE terms (
    subscription BIGINT NOT NULL,
    n BIGINT NOT NULL,
    from_us BIGINT NOT NULL,
    catalog_version BIGINT NOT NULL,
    plan TEXT NOT NULL,
    seats BIGINT NOT NULL,
    negotiated TEXT NOT NULL,
    PRIMARY KEY (subscription, n)
);

-- One row per running process. `epoch` fences a process that lost its lease, `batches` counts its commits (so
-- that the outcome of one whose answer was lost can be told), `seq` numbers its events, `head` ends its hash
-- chain. A slot is reused by the next process; its chain goes on.
CREATE TABLE slots (
    slot BIGINT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL,
    batches BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    head {bytes} NOT NULL
);

-- Units of an action in one billing period: `granted` by the contract, `opening` used before Headgate
-- (import), `used` booked (opening included), `held` while requests run. The period's prices are pinned here
-- at its first use, so that cumulative amounts telescope: list price, and the contract's overage price.
-- `overage` units of `used` were booked beyond the allowance and take nothing of it.
CREATE TABLE counters (
    customer BIGINT NOT NULL,
    subscription BIGINT NOT NULL,
    action BIGINT NOT NULL,
    start_us BIGINT NOT NULL,
    granted BIGINT NOT NULL,
    opening BIGINT NOT NULL,
    used BIGINT NOT NULL,
    held BIGINT NOT NULL,
    catalog_version BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    list_per BIGINT NOT NULL,
    over_micros BIGINT NOT NULL,
    over_per BIGINT NOT NULL,
    overage BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, subscription, action, start_us)
) {clustered};

-- Overage money of a capped contract in one billing period: `spent` booked, `held` what the held units
-- would cost if all were booked.
CREATE TABLE caps (
    customer BIGINT NOT NULL,
    subscription BIGINT NOT NULL,
    start_us BIGINT NOT NULL,
    spent_micros BIGINT NOT NULL,
    held_micros BIGINT NOT NULL,
    PRIMARY KEY (customer, subscription, start_us)
) {clustered};

-- What each slot holds of each counter, so that a dead process gives back exactly what it took. What that
-- frees of a cap is reckoned from the counter.
CREATE TABLE held (
    slot BIGINT NOT NULL,
    customer BIGINT NOT NULL,
    subscription BIGINT NOT NULL,
    action BIGINT NOT NULL,
    start_us BIGINT NOT NULL,
    units BIGINT NOT NULL,
    PRIMARY KEY (slot, customer, subscription, action, start_us)
) {clustered};

-- Where a payment can be made: network, token, recipient and scheme as one short number.
CREATE TABLE rails (
    id BIGINT NOT NULL PRIMARY KEY,
    network TEXT NOT NULL,
    asset TEXT NOT NULL,
    pay_to TEXT NOT NULL,
    scheme TEXT NOT NULL,
    UNIQUE (network, asset, pay_to, scheme)
);

-- The ledger. Append-only: no statement of Headgate updates or deletes a row. `row_hash` chains each row to
-- the one before it in its slot.
CREATE TABLE events (
    slot BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    v BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    channel BIGINT NOT NULL,
    action BIGINT NOT NULL,
    route BIGINT,
    units BIGINT NOT NULL,
    written_off BIGINT NOT NULL,
    unit_micros BIGINT NOT NULL,
    per BIGINT NOT NULL,
    prior BIGINT NOT NULL,
    catalog_version BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    charged_micros BIGINT NOT NULL,
    customer BIGINT,
    subscription BIGINT,
    seat BIGINT,
    api_key BIGINT,
    period_start_us BIGINT,
    request_id {bytes} NOT NULL,
    occurred_us BIGINT NOT NULL,
    booked_us BIGINT NOT NULL,
    month BIGINT NOT NULL,
    late_for BIGINT,
    rail BIGINT,
    payer {bytes},
    authorized_micros BIGINT,
    tx {bytes},
    payment {bytes},
    corrects_slot BIGINT,
    corrects_seq BIGINT,
    reason TEXT,
    row_hash {bytes} NOT NULL,
    PRIMARY KEY (slot, seq)
) {clustered};
CREATE INDEX events_by_request ON events (request_id);

-- Ids that may be used once per customer: record ids and idempotency keys. `digest` is of the content,
-- `slot`/`seq` name the first event it led to.
CREATE TABLE claims (
    customer BIGINT NOT NULL,
    key_hash {bytes} NOT NULL,
    digest {bytes} NOT NULL,
    slot BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    events BIGINT NOT NULL,
    claimed_us BIGINT NOT NULL,
    PRIMARY KEY (customer, key_hash)
) {clustered};

-- x402 payments: one row per signed authorization. `id` is a hash of what was signed (network, asset, payer,
-- nonce), so that no spelling makes a second row; as the only key it keeps the indexes small. `slot`/`epoch` own it while a
-- process works on it. `authorization_json` is what the facilitator settles, `answer` what the payer gets again.
CREATE TABLE payments (
    network TEXT NOT NULL,
    asset TEXT NOT NULL,
    payer {bytes} NOT NULL,
    nonce {bytes} NOT NULL,
    id {bytes} NOT NULL PRIMARY KEY,
    state BIGINT NOT NULL,
    slot BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    rail BIGINT NOT NULL,
    action BIGINT NOT NULL,
    route BIGINT,
    customer BIGINT,
    subscription BIGINT,
    seat BIGINT,
    api_key BIGINT,
    request_id {bytes} NOT NULL,
    binding {bytes} NOT NULL,
    body_digest {bytes},
    authorized_micros BIGINT NOT NULL,
    charged_micros BIGINT NOT NULL,
    units BIGINT NOT NULL,
    unit_micros BIGINT NOT NULL,
    per BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    written_off BIGINT NOT NULL,
    catalog_version BIGINT NOT NULL,
    valid_before_s BIGINT NOT NULL,
    occurred_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    authorization_json {bytes},
    requirements_json {bytes},
    tx {bytes},
    reason TEXT,
    event_slot BIGINT,
    event_seq BIGINT
) {clustered};
CREATE INDEX payments_by_state ON payments (state, updated_us);
CREATE INDEX payments_by_request ON payments (request_id);
CREATE INDEX payments_by_payer ON payments (payer);

-- Names that payers gave their payments (extension `payment-identifier`), each scoped to its payer: the hash is
-- of payer and name. The first payment under a name keeps it, unless it came to nothing.
CREATE TABLE payment_names (
    name_hash {bytes} NOT NULL PRIMARY KEY,
    payment {bytes} NOT NULL
) {clustered};

-- The answer kept for a payer, apart from the payment so that listing payments stays cheap.
CREATE TABLE answers (
    payment {bytes} NOT NULL PRIMARY KEY,
    status BIGINT NOT NULL,
    headers {bytes} NOT NULL,
    body {bytes},
    kept_until_us BIGINT NOT NULL
);

CREATE INDEX answers_by_time ON answers (kept_until_us);

-- Each payment's history, oldest first.
CREATE TABLE payment_steps (
    payment {bytes} NOT NULL,
    n BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    state BIGINT NOT NULL,
    note TEXT,
    PRIMARY KEY (payment, n)
) {clustered};

-- Totals, kept in the event's own transaction, one set per slot so that processes do not contend.
CREATE TABLE totals (
    month BIGINT NOT NULL,
    day BIGINT NOT NULL,
    channel BIGINT NOT NULL,
    action BIGINT NOT NULL,
    network BIGINT NOT NULL,
    slot BIGINT NOT NULL,
    events BIGINT NOT NULL,
    units BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    charged_micros BIGINT NOT NULL,
    adjusted_micros BIGINT NOT NULL,
    refunded_micros BIGINT NOT NULL,
    settled_micros BIGINT NOT NULL,
    PRIMARY KEY (month, day, channel, action, network, slot)
) {clustered};

-- The same per customer (and plan) or payer; exactly one of them is set, the other is the empty value.
CREATE TABLE party_totals (
    customer BIGINT NOT NULL,
    payer {bytes} NOT NULL,
    month BIGINT NOT NULL,
    channel BIGINT NOT NULL,
    action BIGINT NOT NULL,
    network BIGINT NOT NULL,
    slot BIGINT NOT NULL,
    events BIGINT NOT NULL,
    units BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    charged_micros BIGINT NOT NULL,
    adjusted_micros BIGINT NOT NULL,
    refunded_micros BIGINT NOT NULL,
    settled_micros BIGINT NOT NULL,
    PRIMARY KEY (customer, payer, month, channel, action, network, slot)
) {clustered};

-- Accounting months that were closed. A month without a row is open.
CREATE TABLE months (
    month BIGINT NOT NULL PRIMARY KEY,
    closed_us BIGINT NOT NULL
);

-- Who delivers an export, and how far it got in each slot's events. A cursor moves only after delivery.
CREATE TABLE exports (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    lease_until_us BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    retry_us BIGINT NOT NULL,
    last_error TEXT
);
CREATE TABLE cursors (
    export TEXT NOT NULL,
    slot BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (export, slot)
);
