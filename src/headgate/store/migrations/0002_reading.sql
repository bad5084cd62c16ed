-- Two small indexes for readers. Both are partial: they hold no row of ordinary use, so they cost booking
-- nothing and the ledger no bytes.

-- Use of customers without a contract ("unassigned"), of which the report tells how much there was.
CREATE INDEX events_unassigned ON events (customer, month)
WHERE channel = 1 AND subscription IS NULL AND customer IS NOT NULL;

-- Which rows correct a row, for its explanation.
CREATE INDEX events_correcting ON events (corrects_slot, corrects_seq) WHERE corrects_slot IS NOT NULL;
