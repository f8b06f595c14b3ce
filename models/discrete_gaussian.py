"""Exact draws of the discrete Gaussian, in integers alone.

N_Z(0, sigma^2) gives the integer z a probability proportional to exp(-z^2 / (2 sigma^2)). With
sigma = 2^k every probability below is exp(-x / 2^m) for integers x and m, so nothing is rounded
and no floating-point number occurs (Mironov 2012 shows what those give away).

Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy" (NeurIPS 2020),
Algorithms 1 to 3.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.keystream import Keystream

Words = NDArray[np.uint64]

MAX_LOG2_STD: Final = 24
"""Largest k for which all products fit into 64 bits."""

CUT: Final = 64
"""Values of 64 standard deviations or more are not drawn: P < 1e-889 for each value."""

_BLOCK = 1 << 15
"""Candidates that are drawn at a time; few enough for a processor's cache."""


def discrete_gaussian(n: int, *, log2_std: int, key: bytes) -> NDArray[np.int64]:
    """Independent draws of N_Z(0, 4^log2_std), the same for the same key.

    Args:
        n: How many.
        log2_std: k of the standard deviation 2^k, from 1 to 24.
        key: 32 random bytes; see `Keystream`.

    Returns:
        Shape (n,), each below 64 * 2^log2_std in absolute value.

    Raises:
        ValueError: n is negative, log2_std out of range or the key has the wrong length.

    Guarantees:
        The draws are those of N_Z(0, 4^log2_std) but for a total variation distance of n * 1e-889
        (see `CUT`), given uniform words. The time taken depends on the draws as a whole, hardly on
        any one of them: candidates are drawn and rejected thousands at a time.
    """
    if n < 0 or not 1 <= log2_std <= MAX_LOG2_STD:
        raise ValueError(f"cannot draw {n} values with standard deviation 2^{log2_std}")
    stream = Keystream(key)
    drawn = np.empty(n, dtype=np.int64)
    filled = 0
    while filled < n:
        # About 48 of 100 candidates become draws.
        candidates = min(_BLOCK, 9 * (n - filled) // 4 + 16)
        accepted = _accepted(stream, candidates, log2_std)[: n - filled]
        drawn[filled : filled + accepted.size] = accepted
        filled += accepted.size
    return drawn


def _accepted(stream: Keystream, n: int, k: int) -> NDArray[np.int64]:
    """Those of n candidates that become draws; Algorithm 3 with t = sigma = 2^k."""
    size, negative = _discrete_laplace(stream, n, k)
    distance = size - np.uint64(1 << k)  # modulo 2^64; its square is right all the same
    square = distance * distance
    # exp(-square / 2^(2k + 1)), the fractional part of the exponent first, then the whole one.
    scale = np.uint64(2 * k + 1)
    whole = square >> scale
    accept = _bernoulli_exp(stream, square - (whole << scale), 2 * k + 1)
    far = np.flatnonzero(accept & (whole > 0))
    accept[far] = _geometric(stream, far.size) >= whole[far]
    values = size[accept].astype(np.int64)
    return np.where(negative[accept], -values, values)


def _discrete_laplace(stream: Keystream, n: int, k: int) -> tuple[Words, NDArray[np.bool_]]:
    """Size and sign of draws with P(y) ~ exp(-|y| / 2^k), of n candidates; Algorithm 2."""
    words = stream.words(n)
    # The k highest bits are uniform on [0, 2^k); the lowest bit is the sign.
    low, negative = words >> np.uint64(64 - k), (words & np.uint64(1)).astype(np.bool_)
    drawn = _bernoulli_exp(stream, low, k)
    low, negative = low[drawn], negative[drawn]
    high = _geometric(stream, low.size)
    size = low + (high << np.uint64(k))
    # Minus zero would count zero twice. Far beyond the cut squares would overflow.
    keep = ~(negative & (size == 0)) & (high < CUT)
    return size[keep], negative[keep]


def _geometric(stream: Keystream, n: int) -> Words:
    """Numbers of successes before the first failure, each with probability 1/e."""
    counts = np.zeros(n, dtype=np.uint64)
    alive = np.arange(n)
    while alive.size:
        # 1/e is exp(-x / 2^m) with x = 2^m; m = 1 is the least that `_bernoulli_exp` takes.
        alive = alive[_bernoulli_exp(stream, np.full(alive.size, 2, dtype=np.uint64), 1)]
        counts[alive] += 1
    return counts


def _bernoulli_exp(stream: Keystream, x: Words, m: int) -> NDArray[np.bool_]:
    """True with probability exp(-x / 2^m), for 0 <= x <= 2^m and 1 <= m <= 49; Algorithm 1.

    Trial K succeeds with probability x / (K 2^m); the answer is whether the first to fail has an
    odd number.
    """
    answer = np.ones(x.size, dtype=np.bool_)
    trial = 1
    alive = np.flatnonzero(stream.words(x.size) >> np.uint64(64 - m) < x)
    while alive.size:
        trial += 1
        answer[alive] = trial % 2 == 1
        alive = alive[_below(stream, x[alive], (1 << (64 - m)) // trial, trial << m)]
    return answer


def _below(stream: Keystream, x: Words, width: int, n_cells: int) -> NDArray[np.bool_]:
    """True with probability x / n_cells: whether a uniform cell in [0, n_cells) is below x.

    A cell is `width` words wide; words beyond the last cell are drawn again.
    """
    last = n_cells * width - 1
    words = stream.words(x.size)
    while (beyond := np.flatnonzero(words > last)).size:
        words[beyond] = stream.words(beyond.size)
    return words < x * width
