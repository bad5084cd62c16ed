"""Headgate sells the same API actions by seat, by overage and by x402 payment, in one ledger."""

from headgate.app import Headgate
from headgate.model.caller import Caller, Identity
from headgate.web.usage import Usage, usage

__all__ = ["Caller", "Headgate", "Identity", "Usage", "__version__", "usage"]
__version__ = "0.1.0"
