"""x402 as spoken with buyers, facilitators and chains; with `devnet`, the only code that imports the SDK."""
