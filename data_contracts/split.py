"""Which patients are held out for testing: a keyed hash, so that every site decides alike.

No patient trains at one site and tests at another, and no site has to tell which of its patients
it holds out.
"""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray


def held_out(patient_tokens: pl.Series, *, key: str, share: float) -> NDArray[np.bool_]:
    """Whether each row's patient belongs to the test set.

    Args:
        patient_tokens: Tokens, one per row, length n; rows of a patient repeat theirs.
        key: The network's split key. Not a secret; another key gives an independent split.
        share: Share of patients held out, in (0, 1).

    Returns:
        Flags of shape (n,).

    Raises:
        ValueError: `share` is not inside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {share}")
    unique = patient_tokens.unique()
    hash_key = hashlib.blake2b(key.encode(), digest_size=32).digest()
    digests = b"".join(
        hashlib.blake2b(token.encode(), key=hash_key, digest_size=8).digest() for token in unique
    )
    flags = np.frombuffer(digests, dtype="<u8") < np.uint64(int(share * 2**64))
    return patient_tokens.is_in(unique.filter(pl.Series(flags)).implode()).to_numpy()
