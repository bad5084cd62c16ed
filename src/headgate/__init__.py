"""Headgate sells the same API actions by seat, by overage and by x402 payment, in one ledger.

The public names are imported when they are first used: `headgate --help` needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.app import Headgate
    from headgate.model.caller import Caller, Identity
    from headgate.web.usage import Usage, usage

__all__ = ["Caller", "Headgate", "Identity", "Usage", "__version__", "usage"]
__version__ = "0.1.0"

_WHERE = {
    "Caller": "headgate.model.caller",
    "Headgate": "headgate.app",
    "Identity": "headgate.model.caller",
    "Usage": "headgate.web.usage",
    "usage": "headgate.web.usage",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value
