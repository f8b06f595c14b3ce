"""Random words from a key: whoever has the key has the words, to all others they are uniform.

Noise and the masks of secure sums are drawn from here. A key serves one purpose, once: two uses of
the same key are the same words, and what they hide can be computed.
"""

from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

KEY_BYTES: Final = 32
"""Length of a key."""

MAX_WORDS: Final = 2**35
"""Words of a key, 256 GiB: RFC 8439 counts blocks of 64 bytes with 32 bits."""


class Keystream:
    """The words of a key, one after the other.

    Args:
        key: 32 bytes, uniformly random and never used for anything else.

    Raises:
        ValueError: The key has another length.

    Guarantees:
        Independent uniform words to whoever cannot tell ChaCha20 from a random function.

    Source: RFC 8439, Section 2.4, with a nonce of zero, as every key is used once.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._encryptor = Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
        self._left = MAX_WORDS

    def words(self, n: int) -> NDArray[np.uint64]:
        """The next n words, little-endian, shape (n,).

        Raises:
            ValueError: The key has fewer words left, or n is negative.
        """
        if not 0 <= n <= self._left:
            raise ValueError(f"{n} words asked of a key that has {self._left} left")
        self._left -= n
        words = np.zeros(n, dtype="<u8")
        # A stream cipher turns zeros into its keystream; it may write where it reads.
        octets = words.view(np.uint8).data
        self._encryptor.update_into(octets, octets)
        return words.astype(np.uint64, copy=False)


def keystream(key: bytes, n: int) -> NDArray[np.uint64]:
    """The first n words of a key, shape (n,); see `Keystream`."""
    return Keystream(key).words(n)
