"""Run a command whose whole process tree ends with it, or with us (Linux).

    python -I process_tree.py COMMAND [ARGUMENT ...]

The tree ends when the command does or when standard input closes, which happens however the
process at the other end of that pipe ends. Flower and Ray start sessions of their own and leave
orphans, so no process group holds them all; as child subreaper this process inherits every orphan.
It runs by path, outside its package: standard library only.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def main(command: Sequence[str]) -> int:
    """Run the command, then end what it left; returns its exit code, 0 if it was ended.

    Raises:
        OSError: The system has no child subreapers, or the command cannot be started.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become child subreaper")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # A handler rather than SIG_IGN, which the command would inherit. Only the pipe decides.
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our caller's own
    try:
        while child.poll() is None and not select.select([sys.stdin], [], [], 0.2)[0]:
            pass
    finally:
        _end_children()
    return child.returncode or 0


def _end_children() -> None:
    """Kill child after child; a dead child's children become ours, so none is left in the end.

    Only direct children are killed: their ids cannot pass to a stranger before we wait for them.
    """
    while True:
        for child in _children():
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, after_name = stat.read_bytes().rpartition(b")")
        except OSError:
            continue  # it ended meanwhile
        if int(after_name.split()[1]) == os.getpid():
            yield int(stat.parent.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
