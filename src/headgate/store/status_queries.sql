-- What `headgate status` reads. Rules of form: queries.sql.

-- name: status_payments
-- Payments by state: how many, what was authorized, and since when the oldest has been like this.
SELECT state, COUNT(*), COALESCE(SUM(authorized_micros), 0), MIN(updated_us)
FROM payments GROUP BY state ORDER BY state;
