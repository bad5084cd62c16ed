"""Standard Webhooks: the published example, rotation, and everything that must not pass."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import InputError
from headgate.overage.signature import SignatureInvalid, read_secrets, sign, verify

# The example that the specification's libraries test themselves with.
PUBLISHED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT_S = 1614265330
AT = AT_S * 1_000_000
BODY = b'{"test": 2432232314}'
SIGNED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(AT_S),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
OLD, NEW = b"o" * 32, b"n" * 32


def test_the_published_example() -> None:
    assert sign(read_secrets(PUBLISHED), SIGNED["webhook-id"], AT_S, BODY) == SIGNED
    assert verify(SIGNED, BODY, read_secrets(PUBLISHED), AT) == SIGNED["webhook-id"]


def test_during_a_rotation_either_secret_is_enough() -> None:
    both = sign([NEW, OLD], "m", AT_S, BODY)
    assert both["webhook-signature"].count("v1,") == 2
    for known in ([OLD], [NEW], [b"x" * 32, OLD]):
        assert verify(both, BODY, known, AT) == "m"
    with pytest.raises(SignatureInvalid):
        verify(both, BODY, [b"x" * 32], AT)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"webhook-id": "msg_other"}, "no signature"),
        ({"webhook-timestamp": str(AT_S + 1)}, "no signature"),
        ({"webhook-timestamp": "now"}, "not a number"),
        ({"webhook-timestamp": "9" * 400}, "not a number"),
        ({"webhook-signature": ""}, "no signature"),
        ({"webhook-signature": SIGNED["webhook-signature"].removeprefix("v1,")}, "no signature"),
        ({"webhook-signature": "v1a," + SIGNED["webhook-signature"][3:]}, "no signature"),
        ({"webhook-signature": "v1,é"}, "no signature"),
    ],
)
def test_a_changed_header_is_refused(changed: dict[str, str], says: str) -> None:
    with pytest.raises(SignatureInvalid, match=says):
        verify(SIGNED | changed, BODY, read_secrets(PUBLISHED), AT)


@pytest.mark.parametrize("missing", sorted(SIGNED))
def test_a_missing_header_is_named(missing: str) -> None:
    with pytest.raises(SignatureInvalid, match=missing):
        verify({k: v for k, v in SIGNED.items() if k != missing}, BODY, read_secrets(PUBLISHED), AT)


@pytest.mark.parametrize(("off_s", "fine"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_five_minutes_old_and_no_more(off_s: int, fine: bool) -> None:
    now_us = AT + off_s * 1_000_000
    if fine:
        assert verify(SIGNED, BODY, read_secrets(PUBLISHED), now_us)
    else:
        with pytest.raises(SignatureInvalid, match="5 minutes"):
            verify(SIGNED, BODY, read_secrets(PUBLISHED), now_us)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_only_the_body_that_was_signed_passes(body: bytes, other: bytes) -> None:
    headers = sign([NEW], "m", AT_S, body)
    assert verify(headers, body, [NEW], AT) == "m"
    if other != body:
        with pytest.raises(SignatureInvalid):
            verify(headers, other, [NEW], AT)


def _secret(length: int) -> str:
    return base64.b64encode(b"k" * length).decode()


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("whsec_" + _secret(32), (b"k" * 32,)),
        (_secret(24), (b"k" * 24,)),
        (f"whsec_{_secret(32)} whsec_{_secret(64)}", (b"k" * 32, b"k" * 64)),
        (f" {_secret(32)}, {_secret(24)} ", (b"k" * 32, b"k" * 24)),
    ],
)
def test_secrets_are_read(text: str, secrets: tuple[bytes, ...]) -> None:
    assert read_secrets(text) == secrets


@pytest.mark.parametrize(
    "text", ["", "  ", "whsec_", _secret(23), _secret(65), "whsec_correct horse", f"{_secret(32)} hunter2!"]
)
def test_a_bad_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InputError, match="openssl rand -base64 32") as raised:
        read_secrets(text)
    for part in text.split():
        assert part.removeprefix("whsec_") == "" or part.removeprefix("whsec_") not in str(raised.value)
