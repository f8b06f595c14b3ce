"""Memory of a process that no file on disk backs: pages of mapped files can be given back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EVERY = 0.01  # seconds


@contextmanager
def anonymous_memory() -> Iterator[list[float]]:
    """Samples of this process's anonymous memory in MB (10^6 bytes) while the context lasts.

    The first stands there at once; `max` of them afterwards is the peak. Linux only.
    """
    stop, samples = threading.Event(), [_now()]

    def sample() -> None:
        while not stop.wait(_EVERY):
            samples.append(_now())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        stop.set()
        sampler.join()


def _now() -> float:
    """RssAnon of /proc/self/status, which counts in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6
