"""Flower's SuperNode, as a process that ends when its connection does.

    python -m federation.deployment.supernode [the options of flower-supernode]

Where a connection is cut in the middle of a TLS handshake, Flower's own gives up and stays there,
deaf: its local interface keeps the process alive. This one ends, and is started anew.
"""

import os

from flwr.supernode.cli import flower_supernode

if __name__ == "__main__":
    flower_supernode()
    os._exit(1)
