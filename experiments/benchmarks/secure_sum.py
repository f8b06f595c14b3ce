"""What a secure sum costs: seconds of one core, and bytes, per site and round.

Run with `python -m experiments.benchmarks.secure_sum`. Times are process times and medians, so that
a busy machine does not decide them. The process fails where the product's bounds do not hold: ten
sites and a million values within a second, and uploads of at most 1.3 times the plain bytes.
"""

import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.identity import Identity, Registry
from federation.roster import Roster, RunKeys
from federation.secure_sum import Attempt, Upload, mask, open_sum

Result = TypeVar("Result")

_CASES = ((10, 1_000_000), (50, 10_000), (200, 10_000))
_REPEATS = 5
_MAX_SECONDS = 1.0
_MAX_RATIO = 1.3
_HEADINGS = ("sites", "values", "set-up/site", "masking/site", "opening", "upload/plain")


def main() -> None:
    """Print the table and hold it to the bounds."""
    _print(_HEADINGS)
    for n_sites, n_values in _CASES:
        set_up, masking, opening, ratio = measure(n_sites, n_values)
        seconds = (f"{value * 1000:.1f} ms" for value in (set_up, masking, opening))
        _print((str(n_sites), str(n_values), *seconds, f"{ratio:.5f}"))
        if masking > _MAX_SECONDS or ratio > _MAX_RATIO:
            raise SystemExit(f"more than {_MAX_SECONDS} s or {_MAX_RATIO} times the plain bytes")


def measure(n_sites: int, n_values: int) -> tuple[float, float, float, float]:
    """Costs of one run and one of its rounds.

    Args:
        n_sites: Sites in the sum.
        n_values: Length of the vector.

    Returns:
        Seconds that a site needs for its key offer and the check of all others', once per run;
        seconds that it needs to mask, hash and sign; seconds that the coordinator needs to check
        and add all uploads; bytes of an upload over those of the plain words.
    """
    names = tuple(f"site-{number:03d}" for number in range(n_sites))
    identities = {name: Identity(Ed25519PrivateKey.generate()) for name in names}
    registry = Registry({name: identity.public_key for name, identity in identities.items()})
    keys = {name: RunKeys.generate() for name in names}
    run, plan, query = "run", "plan", hashlib.sha256(b"query").digest()
    offers = [keys[name].offer(identities[name], name, run, plan) for name in names]
    attempt = Attempt(run, plan, "gradient", 1, 0, query, names)
    me = names[0]

    def set_up() -> Roster:
        RunKeys.generate().offer(identities[me], me, run, plan)
        return Roster.verified(offers, registry, run=run, plan=plan, sites=names, minimum=2)

    set_up_seconds, roster = _timed(set_up)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, n_values, dtype=np.uint64)

    def upload_of(name: str) -> Upload:
        masked = mask(words, attempt, keys[name], roster, name)
        return Upload.signed(name, attempt, masked, identities[name])

    mask_seconds, mine = _timed(lambda: upload_of(me))
    uploads = [mine, *(upload_of(name) for name in names[1:])]
    open_seconds, total = _timed(lambda: open_sum(uploads, attempt, registry, n_values))
    if not np.array_equal(total, words * np.uint64(n_sites)):
        raise AssertionError("the sum is not that of the words")
    sent = mine.words.nbytes + len(mine.site) + len(mine.attempt) + len(mine.signature)
    return set_up_seconds, mask_seconds, open_seconds, sent / words.nbytes


def _timed(function: Callable[[], Result]) -> tuple[float, Result]:
    seconds = []
    for _ in range(_REPEATS):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def _print(cells: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{cell:>14}" for cell in cells) + "\n")


if __name__ == "__main__":
    main()
