"""Words from a key: the right ones, each of them once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

import models.keystream
from models.keystream import Keystream, keystream

KEY = bytes(range(32))


def test_the_words_are_those_of_rfc_8439() -> None:
    # Appendix A.1, test vectors 1 and 2: key and nonce zero, blocks 0 and 1.
    expected = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    words = keystream(bytes(32), 16)
    assert words.dtype == np.uint64
    assert words.astype("<u8").tobytes() == expected


@given(key=st.binary(min_size=32, max_size=32), sizes=st.lists(st.integers(0, 40), max_size=12))
def test_words_asked_for_in_pieces_are_the_words_asked_for_at_once(
    key: bytes, sizes: list[int]
) -> None:
    stream = Keystream(key)
    pieces = [stream.words(n) for n in sizes]
    assert [piece.shape for piece in pieces] == [(n,) for n in sizes]
    assert np.array_equal(np.concatenate([*pieces, []]), keystream(key, sum(sizes)))


def test_words_that_were_handed_out_belong_to_the_caller() -> None:
    stream = Keystream(KEY)
    first = stream.words(8)
    first[:] = 0
    assert np.array_equal(stream.words(8), keystream(KEY, 16)[8:])


def test_one_bit_of_the_key_changes_every_word() -> None:
    other = bytes([KEY[0] ^ 1, *KEY[1:]])
    # Of 1000 words with 64 bits two are alike with probability 1e-13 at most.
    assert np.intersect1d(keystream(KEY, 1000), keystream(other, 1000)).size == 0


def test_bits_are_balanced_and_bytes_uniform() -> None:
    # Fixed key; for a random one each assertion fails once in 1e6 keys.
    octets = keystream(KEY, 125_000).view(np.uint8)
    counts = np.bincount(octets, minlength=256)
    expected = octets.size / 256
    assert float(((counts - expected) ** 2 / expected).sum()) < chi2.isf(1e-6, 255)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        Keystream(bytes(length))


def test_a_key_has_no_more_words_than_its_counter_has_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert models.keystream.MAX_WORDS * 8 == 256 * 2**30
    monkeypatch.setattr(models.keystream, "MAX_WORDS", 10)
    stream = Keystream(KEY)
    assert stream.words(7).size == 7
    with pytest.raises(ValueError, match="4 words asked of a key that has 3 left"):
        stream.words(4)
    assert stream.words(3).size == 3
    with pytest.raises(ValueError, match="1 words asked of a key that has 0 left"):
        stream.words(1)


def test_a_negative_number_of_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="-1 words"):
        keystream(KEY, -1)
