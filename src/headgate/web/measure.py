"""How many units an answer used: stated in code or in a header, read from its body, or counted in bytes.

A `Meter` watches one answer's messages as they pass, and can say at any moment what is known so far. It keeps
nothing of a body but what it needs: the bytes of a JSON document up to JSON_BYTES, one line and one event of
an SSE stream up to EVENT_BYTES. What is longer cannot be measured, and `on_unmeasured` decides (contract §5).

What the application states wins over what is read: `usage(request).record`, then the header `Headgate-Units`
(which is always taken off the answer), then what `measure` names.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from headgate.model.booking import Billed
from headgate.model.catalog import Action
from headgate.model.money import MAX_UNITS
from headgate.web.problems import Message, Scope
from headgate.web.usage import Usage

log = logging.getLogger("headgate.web")
UNITS_HEADER = b"headgate-units"
JSON_BYTES = 16 * 1024 * 1024
EVENT_BYTES = 1024 * 1024
_UNITS_LENGTH = len(UNITS_HEADER)
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
_DEEPEST = 1000
_LINE_END = re.compile(rb"\r\n|\n|\r")
_ABSENT: Any = object()
NO_NUMBER = -1
_ACCEPT_ENCODING = b"accept-encoding"
_PACKED = frozenset({b"gzip", b"deflate"})
_READABLE = _PACKED | {b"identity"}


def take_units_header(start: Message) -> int | None:
    """The value of `Headgate-Units`, which is for Headgate only and taken off; None: absent or no number."""
    headers = start.get("headers", ())
    for name, _ in headers:
        if len(name) == _UNITS_LENGTH and name.lower() == UNITS_HEADER:
            break
    else:
        return None
    stated = [value for name, value in headers if name.lower() == UNITS_HEADER]
    start["headers"] = [pair for pair in headers if pair[0].lower() != UNITS_HEADER]
    text = stated[0] if len(set(stated)) == 1 else b""
    units = int(text) if text.isdigit() and len(text) < 20 else NO_NUMBER
    return units if 0 <= units <= MAX_UNITS else None


def resolve(document: Any, pointer: str) -> Any:
    """What a JSON pointer names in a decoded document (RFC 6901 §4); `_ABSENT` where it names nothing."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and _INDEX.fullmatch(name) and int(name) < len(document):
            document = document[int(name)]
        else:
            return _ABSENT
    return document


def units_in(text: bytes | bytearray, pointer: str) -> int | None:
    """The units a JSON text states at the pointer; None: it has none; NO_NUMBER: it has what is none.

    `null` counts as having none: providers write it into every event before the one that tells.
    """
    try:
        found = _ABSENT if _too_deep(text) else resolve(msgspec.json.decode(text), pointer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found is _ABSENT or found is None:
        return None
    whole = isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= MAX_UNITS
    return found if whole else NO_NUMBER


def _too_deep(text: bytes | bytearray) -> bool:
    """Whether a JSON text is nested so deeply that decoding it could exhaust the stack.

    Python's own limit is no guard: what an embedded chain needs raises it beyond what the stack holds.
    """
    if text.count(b"[") + text.count(b"{") <= _DEEPEST:
        return False
    depth = 0
    for token in _NESTING.finditer(text):
        first = token[0][:1]
        depth += 1 if first in b"[{" else -1 if first in b"]}" else 0
        if depth > _DEEPEST:
            return True
    return False


class _Bytes:
    """Counts."""

    def __init__(self) -> None:
        self.units: int | None = 0

    def feed(self, body: bytes) -> None:
        assert self.units is not None
        self.units += len(body)

    def end(self) -> None:
        """Nothing is left to read."""


class _Json:
    """Gathers one JSON document, and reads it at its end."""

    def __init__(self, pointer: str) -> None:
        self.units: int | None = None
        self._pointer = pointer
        self._text: bytearray | None = bytearray()

    def feed(self, body: bytes) -> None:
        if self._text is None:
            return
        self._text += body
        if len(self._text) > JSON_BYTES:
            log.error("an answer of more than %d bytes cannot be measured by a JSON pointer", JSON_BYTES)
            self._text = None

    def end(self) -> None:
        if self._text is not None:
            self.units = units_in(self._text, self._pointer)
            self._text = None


class EventReader:
    """Reads an SSE stream as it comes (HTML §9.2.6): the last event that has the pointer tells.

    Chunks may end anywhere, lines with LF, CRLF or CR. An event that the stream's end cuts off from its empty
    line counts too: a server that leaves the line out has still said it.
    """

    def __init__(self, pointer: str) -> None:
        self.units: int | None = None
        self._pointer = pointer
        self._line = bytearray()
        self._data = bytearray()
        self._any = self._long = self._after_cr = False
        self._first = True

    def feed(self, body: bytes) -> None:
        """Take the next bytes."""
        if self._after_cr and body:
            self._after_cr = False
            body = body.removeprefix(b"\n")
        place = 0
        for end in _LINE_END.finditer(body):
            self._add(body[place : end.start()])
            self._end_line()
            place = end.end()
            self._after_cr = end[0] == b"\r" and place == len(body)
        self._add(body[place:])

    def end(self) -> None:
        """The stream is over."""
        self._end_line()
        self._dispatch()

    def _add(self, part: bytes) -> None:
        if len(self._line) + len(self._data) + len(part) > EVENT_BYTES:
            self._long = True
            self._line.clear()
        if not self._long:
            self._line += part
        elif part:
            self._line[:] = b":"  # a line of an event that is skipped: not empty, and nothing of it is kept

    def _end_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            self._dispatch()
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            if self._any:
                self._data += b"\n"
            self._data += value.removeprefix(b" ")
            self._any = True

    def _dispatch(self) -> None:
        if self._any and not self._long:
            found = units_in(self._data, self._pointer)
            self.units = self.units if found is None else found
        self._data.clear()
        self._any = self._long = False


class _Unpacked:
    """A compressed body (gzip, deflate), read as what it holds; what cannot be unpacked measures nothing."""

    def __init__(self, inner: _Json | EventReader) -> None:
        self._inner = inner
        self._unpack: Any = zlib.decompressobj(wbits=47)

    @property
    def units(self) -> int | None:
        return self._inner.units

    def feed(self, body: bytes) -> None:
        while body and self._unpack is not None:
            try:
                self._inner.feed(self._unpack.decompress(body, EVENT_BYTES))
            except zlib.error:
                self._unpack = None
                return
            body = self._unpack.unconsumed_tail

    def end(self) -> None:
        if self._unpack is not None and self._unpack.eof:
            self._inner.end()


_Reader = _Bytes | _Json | EventReader | _Unpacked


class Meter:
    """Measures one answer of an action. Give it the start, then each message; a fixed price is always one.

    `seen` counts the bytes it was given, `sent` those that have left, where that is not the same.
    """

    __slots__ = ("_action", "_ended", "_reader", "_stated", "_usage", "seen", "sent")

    def __init__(self, action: Action, usage: Usage) -> None:
        self._action = action
        self._usage = usage
        self._stated: int | None = None
        self._reader: _Reader | None = None
        self._ended = False
        self.seen = 0
        self.sent = 0

    def begin(self, start: Message) -> None:
        """Take the answer's start; `Headgate-Units` is taken off it."""
        self._stated = take_units_header(start)
        if self._action.variable:
            self._reader = _reader(self._action, start)

    def feed(self, message: Message) -> None:
        """Take one message after the start."""
        body, size = message.get("body", b""), _size(message)
        self.seen += size
        if isinstance(self._reader, _Bytes) and self._reader.units is not None:
            self._reader.units += size - len(body)
        if self._reader is not None and body:
            self._reader.feed(bytes(body))

    def passed(self, message: Message) -> None:
        """A message has left."""
        self.sent += _size(message)

    def end(self) -> None:
        """The answer is whole."""
        if self._reader is not None and not self._ended:
            self._ended = True
            self._reader.end()

    @property
    def known(self) -> int | None:
        """The units that are known so far; None: nothing states them, or what states them is no number."""
        if not self._action.variable:
            return 1
        if self._usage.units is not None:
            return self._usage.units
        if self._stated is not None:
            return self._stated
        units = None if self._reader is None else self._reader.units
        return None if units == NO_NUMBER else units

    @property
    def voided(self) -> bool:
        """Whether the handler said that nothing is to be charged."""
        return self._usage.voided is not None

    def bills(self, status: int) -> bool:
        """Whether an answer with this status is billed, as far as is known."""
        return self._action.bills(status) and not self.voided

    @property
    def _ceiling(self) -> int:
        """The most that can be charged without a measure: the ceiling, within what was held for it."""
        ceiling, granted = self._action.max_units or 0, self._usage.granted
        return ceiling if granted is None else min(ceiling, granted)

    def billable(self, status: int) -> int | None:
        """The units of a whole answer; None: nothing is charged.

        Not a number, negative or missing: `on_unmeasured` decides: the ceiling, or nothing, and the operator
        is told.
        """
        if not self.bills(status):
            return None
        units = self.known
        if units is not None:
            return units
        if self._action.on_unmeasured == "ceiling":
            log.warning("%s: a use could not be measured; its ceiling is charged", self._action.name)
            return self._ceiling
        log.error("%s: a use could not be measured and was not charged; see `measure`", self._action.name)
        return None

    def billed(self, status: int) -> Billed | None:
        """What a payer is charged for a whole answer, up to the ceiling it signed; None: it is not billed.

        What could not be measured and is not to be charged is served for nothing, and is counted as that.
        """
        if not self.bills(status):
            return None
        units = self.billable(status)
        return Billed(0, self._ceiling) if units is None else within(self._action, units)

    def abandoned(self, status: int) -> int:
        """The units of a stream that ended early: what was measured; else the ceiling, if bytes were sent."""
        if not self.bills(status) or not self.sent:
            return 0
        units = self.known
        counted = self._usage.units is None and self._stated is None and isinstance(self._reader, _Bytes)
        if units is not None and counted:
            return min(units, self.sent)  # what was held back at the end has not left
        return self._ceiling if units is None else units


def within(action: Action, units: int) -> Billed:
    """Units up to the action's ceiling; what is beyond is written off."""
    most = units if action.max_units is None else min(units, action.max_units)
    return Billed(most, units - most)


def _size(message: Message) -> int:
    """The bytes of the answer that a message brings."""
    if message.get("type") == "http.response.pathsend":
        return Path(message["path"]).stat().st_size
    return len(message.get("body", b""))


def _reader(action: Action, start: Message) -> _Reader | None:
    """What reads the body, as `measure` and the answer's type say."""
    measure = action.measure
    if measure is None or measure.kind not in ("json", "bytes"):
        return None
    if measure.kind == "bytes":
        return _Bytes()
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    inner = EventReader(measure.pointer) if kind == b"text/event-stream" else _Json(measure.pointer)
    packed = headers.get(b"content-encoding", b"identity").strip().lower() in _PACKED
    return _Unpacked(inner) if packed else inner


def measured(action: Action, usage: Usage, start: Message, messages: Iterable[Message]) -> Meter:
    """The meter of an answer that is there as a whole."""
    meter = Meter(action, usage)
    meter.begin(start)
    for message in messages:
        meter.feed(message)
    meter.end()
    return meter


def ask_readable(scope: Scope, action: Action) -> None:
    """Let the application pack its answer only as it can be unpacked here, where its body is measured.

    Otherwise a caller would choose whether its use can be read by the codings that it accepts.
    """
    if action.measure is None or action.measure.kind != "json":
        return
    accepted = [value for name, value in scope["headers"] if name.lower() == _ACCEPT_ENCODING]
    codings = [each.strip() for each in b",".join(accepted).split(b",")] if accepted else []
    kept = [each for each in codings if each.partition(b";")[0].strip().lower() in _READABLE]
    if len(kept) < len(codings):
        others = [pair for pair in scope["headers"] if pair[0].lower() != _ACCEPT_ENCODING]
        scope["headers"] = [*others, (_ACCEPT_ENCODING, b", ".join(kept) or b"identity")]
