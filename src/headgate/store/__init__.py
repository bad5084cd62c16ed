"""The ledger's storage: portable SQL, two thin drivers, and the classes that turn rows into model objects."""
