"""Headgate sells one API through three channels (seat, overage, x402) and books them in one ledger."""

__version__ = "0.1.0"
