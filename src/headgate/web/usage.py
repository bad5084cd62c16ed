"""What a handler can read and say about its own use: `usage(request)`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from headgate.model.caller import Caller
from headgate.model.catalog import Action
from headgate.model.errors import InputError
from headgate.model.event import request_id_text
from headgate.model.money import whole_units
from headgate.model.offer import SignedPayment
from headgate.model.payment import payment_text
from headgate.service.admit import Admitted

SCOPE_KEY = "headgate"
TOOL_USE: ContextVar[Usage | None] = ContextVar("headgate_tool_use", default=None)
"""The use of the MCP tool call that is being served: a tool has no ASGI scope to find it on."""


class PaidFor(Protocol):
    """A payment as far as a handler can know it."""

    @property
    def id(self) -> bytes:
        """The same on every retry."""
        ...

    @property
    def signed(self) -> SignedPayment:
        """Who pays."""
        ...

    @property
    def action(self) -> Action:
        """What it was offered for, with its ceiling."""
        ...


class Usage:
    """One request's use of an action.

    `granted` is how many units the plan or the payment leaves for this request (None: no limit).
    """

    __slots__ = ("_admitted", "_caller", "_channel", "_payment", "granted", "units", "voided")

    def __init__(
        self, admitted: Admitted | None = None, channel: str = "", payment: PaidFor | None = None
    ) -> None:
        self._admitted = admitted
        self._channel = channel
        self._payment = payment
        self._caller: Caller | None = None
        self.granted: int | None = None
        if payment is not None:
            self.granted = payment.action.max_units
        elif admitted is not None:
            self.granted = admitted.held or None
        self.units: int | None = None
        self.voided: str | None = None

    @property
    def caller(self) -> Caller | None:
        """Who is served, through which channel; None: the route is not priced. Made when it is asked for."""
        admitted, payment = self._admitted, self._payment
        if self._caller is None and admitted is not None:
            request_id = request_id_text(admitted.request_id)
            self._caller = Caller(
                self._channel,
                admitted.customer_ref,
                admitted.seat_ref,
                None if payment is None else payment.signed.payer_text,
                request_id,
                request_id if payment is None else payment_text(payment.id),
            )
        return self._caller

    def record(self, units: int) -> None:
        """State the measured units of this request; the last call counts. Without a price it does nothing.

        Raises:
            InputError: not a whole number of at least 0, or the action's cost is fixed.
        """
        units = whole_units(units)
        if self._admitted is None:
            return
        action = self._admitted.action
        if not action.variable:
            raise InputError(
                f"{action.name} costs one {action.unit} each time: "
                "set max_units in its configuration to measure it"
            )
        self.units = units

    def void(self, reason: str) -> None:
        """Charge nothing for this request, whatever its answer is."""
        self.voided = reason


def usage(request: Any = None) -> Usage:
    """The use of a request (any object with an ASGI `scope`, or the scope itself).

    In an MCP tool: of the call being served, whether its context is passed or nothing.
    """
    scope = request if isinstance(request, dict) else getattr(request, "scope", None)
    found = TOOL_USE.get() if scope is None else scope.get(SCOPE_KEY)
    return found if isinstance(found, Usage) else Usage()
