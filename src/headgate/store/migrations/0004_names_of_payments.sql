-- A payment that came to nothing is forgotten after a while, and the name its payer gave it with it.
CREATE INDEX payment_names_by_payment ON payment_names (payment);
