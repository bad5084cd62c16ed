"""What a handler can read and say about its own use: `usage(request)`."""

from __future__ import annotations

from typing import Any

from headgate.model.caller import Caller
from headgate.model.catalog import Action
from headgate.model.errors import InputError

SCOPE_KEY = "headgate"


class Usage:
    """One request's use of an action.

    `granted` is how many units the plan or the payment leaves for this request (None: no limit). `caller` says
    who is served through which channel (None: the route is not priced).
    """

    __slots__ = ("_action", "caller", "granted", "units", "voided")

    def __init__(
        self, action: Action | None = None, caller: Caller | None = None, granted: int | None = None
    ) -> None:
        self._action = action
        self.caller = caller
        self.granted = granted
        self.units: int | None = None
        self.voided: str | None = None

    def record(self, units: int) -> None:
        """State the measured units of this request. The last call counts; on a route without a price it does nothing.

        Raises:
            InputError: not a whole number of at least 0, or the action's cost is fixed.
        """
        if not isinstance(units, int) or isinstance(units, bool) or units < 0:
            raise InputError(f"units must be a whole number of at least 0, not {units!r}")
        if self._action is None:
            return
        if not self._action.variable:
            raise InputError(
                f"{self._action.name} costs one {self._action.unit} each time: "
                "set max_units in its configuration to measure it"
            )
        self.units = units

    def void(self, reason: str) -> None:
        """Charge nothing for this request, whatever its answer is."""
        self.voided = reason


def usage(request: Any) -> Usage:
    """The use of a request (any object with an ASGI `scope`, or the scope itself)."""
    scope = request if isinstance(request, dict) else request.scope
    found = scope.get(SCOPE_KEY)
    return found if isinstance(found, Usage) else Usage()
