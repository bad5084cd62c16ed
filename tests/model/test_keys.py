"""Keys: a mistyped one is told from an unknown one; only the digest would be stored."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import InputError
from headgate.model.keys import (
    KEY_LENGTH,
    MODES,
    ApiKey,
    KeyState,
    KeyText,
    is_headgate_key,
    new_key,
    read_key,
)

ENTROPY = bytes(range(32))


@given(mode=st.sampled_from(MODES), entropy=st.binary(min_size=32, max_size=32))
def test_a_key_reads_back_as_itself(mode: str, entropy: bytes) -> None:
    key = new_key(mode, entropy)
    assert len(key.secret) == KEY_LENGTH
    assert key.secret.startswith(f"hg_{mode}_")
    assert key.secret.isascii()
    assert read_key(key.secret) == KeyText(mode, key.digest)
    assert key.digest == hashlib.sha256(key.secret.encode()).digest()
    assert len(key.hint) < 16


@given(
    entropy=st.binary(min_size=32, max_size=32),
    position=st.integers(0, KEY_LENGTH - 1),
    other=st.characters(codec="ascii", min_codepoint=33, max_codepoint=126),
)
def test_one_wrong_character_makes_a_key_malformed(entropy: bytes, position: int, other: str) -> None:
    secret = new_key("test", entropy).secret
    wrong = secret[:position] + other + secret[position + 1 :]
    assert (read_key(wrong) is None) == (wrong != secret)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_different_entropy_gives_different_keys(one: bytes, other: bytes) -> None:
    assert (new_key("live", one).secret == new_key("live", other).secret) == (one == other)


def test_the_extremes_have_the_same_length() -> None:
    assert len(new_key("test", bytes(32)).secret) == len(new_key("test", b"\xff" * 32).secret) == KEY_LENGTH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hg_test_",
        "hg_prod_" + new_key("test", ENTROPY).secret[8:],
        "hg_live_" + new_key("test", ENTROPY).secret[8:],  # the checksum covers the mode
        new_key("test", ENTROPY).secret[:-1],
        new_key("test", ENTROPY).secret + " ",
        new_key("test", ENTROPY).secret.swapcase(),
        new_key("test", ENTROPY).secret[:-1] + "é",
        "x" * 10_000,
    ],
)
def test_text_that_is_no_key(text: str) -> None:
    assert read_key(text) is None


def test_what_claims_to_be_a_key() -> None:
    assert is_headgate_key("hg_test_mistyped")
    assert is_headgate_key("hg_live_")
    assert not is_headgate_key("eyJhbGciOiJIUzI1NiJ9.e30.x")
    assert not is_headgate_key("hg_prod_1")


@pytest.mark.parametrize(("mode", "entropy"), [("prod", ENTROPY), ("test", ENTROPY[:31]), ("test", b"")])
def test_what_no_key_can_be_made_of(mode: str, entropy: bytes) -> None:
    with pytest.raises(InputError):
        new_key(mode, entropy)


@pytest.mark.parametrize(
    ("expires_us", "revoked_us", "at_us", "state"),
    [
        (None, None, 10**15, KeyState.ACTIVE),
        (100, None, 99, KeyState.ACTIVE),
        (100, None, 100, KeyState.EXPIRED),
        (None, 100, 99, KeyState.ACTIVE),
        (None, 100, 100, KeyState.REVOKED),
        (50, 100, 100, KeyState.REVOKED),
        (50, 100, 60, KeyState.EXPIRED),
    ],
)
def test_state(expires_us: int | None, revoked_us: int | None, at_us: int, state: KeyState) -> None:
    key = ApiKey(12, 1, 0, "hg_test_abcd…", 0, expires_us, revoked_us)
    assert key.text == "key_12"
    assert key.state_at(at_us) is state
