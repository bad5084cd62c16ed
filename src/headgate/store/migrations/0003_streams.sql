-- Work that is under way while its answer already flows, and work that was paid for before it was done.

-- Measured streams of customers, from before their first byte until they are booked. `units` is what is booked
-- if nothing more is heard of the stream, written anew every few seconds; `held` of them are part of the slot's
-- holds. `use` is the booking (JSON), so that whoever takes over the slot of a dead process can do it.
CREATE TABLE streams (
    slot BIGINT NOT NULL,
    request_id {bytes} NOT NULL,
    units BIGINT NOT NULL,
    held BIGINT NOT NULL,
    use {bytes} NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (slot, request_id)
) {clustered};

-- Payments that settle before the work: the work is owed from the intent until it was served once with 2xx. At
-- `due_us` a refund is due, which `refund_due` says from then on; the payment still opens the work.
CREATE TABLE owed (
    payment {bytes} NOT NULL PRIMARY KEY,
    due_us BIGINT NOT NULL,
    refund_due BIGINT NOT NULL
) {clustered};
