"""Tokens of the synthetic network: 128 bits in hexadecimal, the same at every site."""

import hashlib
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

TokenKind = Literal["patient", "request", "claim"]


def tokens(kind: TokenKind, numbers: NDArray[np.int64], seed: int) -> pl.Series:
    """Tokens of numbered patients, requests or claims.

    Two keyed 64-bit mixing permutations side by side: collision-free and cheap, which is all
    that made-up people need. It is *not* a cryptographic hash; a real network hashes with the
    network's secret key.

    Args:
        kind: What is numbered; each kind has its own keys.
        numbers: Numbers of the patients, requests or claims, (n,).
        seed: Seed of the network, from which the keys are derived.

    Returns:
        Strings of 32 hexadecimal digits, (n,).
    """
    key = hashlib.blake2b(f"{kind}:{seed}".encode(), digest_size=16).digest()
    halves = np.empty((len(numbers), 2), dtype=">u8")
    for half in range(2):
        secret = np.uint64(int.from_bytes(key[8 * half : 8 * half + 8], "big"))
        halves[:, half] = _mix(numbers.astype(np.uint64) + secret)
    text = np.frombuffer(halves.tobytes().hex().encode("ascii"), dtype="S32")
    return pl.Series(text.astype("U32").tolist(), dtype=pl.String)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64, a permutation of the 64-bit integers.

    Source: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
