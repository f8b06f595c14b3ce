"""A site's node at the coordinator: whether it is let in, and that no dead one stands in its way.

Flower lets a SuperNode in only if it is registered, its clock is right, and no SuperNode of the
same key is connected. One that died without a word counts as connected for a minute; here the site
signs it off by itself, with its own key, and starts at once.
"""

import contextlib
import json
from pathlib import Path
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from data_contracts.errors import GroundTruthError
from federation.private_files import write_whole

_FILE: Final = "node.json"


class NotAdmittedError(GroundTruthError):
    """The coordinator does not let the site's node in."""


def sign_off(address: str, certificates: bytes, key_file: Path, state: Path) -> None:
    """Make sure that the coordinator lets this site in, and takes it for offline now.

    Args:
        address: The coordinator's address, as host:port.
        certificates: The network's CA, as PEM.
        key_file: The site's key towards Flower.
        state: The site's state folder, where the node's number is kept.

    Raises:
        NotAdmittedError: It does not.
    """
    key = load_ssh_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - `read_node_key` made sure
    public = key.public_key()
    client = FleetHttpClient.from_server_address(
        address,
        insecure=False,
        root_certificates=certificates,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, public),
        ],
    )
    known = state / _FILE
    with client:
        if known.exists():
            number = int(json.loads(known.read_text(encoding="utf-8"))["node_id"])
            _deactivate(client, number)
        try:
            given = client.ActivateNode(
                ActivateNodeRequest(
                    public_key=public_key_to_bytes(public),
                    heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
                )
            )
        except httpx.HTTPStatusError as error:
            raise NotAdmittedError(_why(error)) from None
        except httpx.HTTPError as error:
            raise NotAdmittedError(
                f"the coordinator at {address} cannot be reached ({type(error).__name__})"
            ) from None
        _deactivate(client, given.node_id)
    write_whole(known, json.dumps({"node_id": given.node_id}).encode())


def _deactivate(client: FleetHttpClient, number: int) -> None:
    with contextlib.suppress(httpx.HTTPError):  # it is offline already
        client.DeactivateNode(DeactivateNodeRequest(node_id=number))


def _why(error: httpx.HTTPStatusError) -> str:
    if error.response.status_code == httpx.codes.UNAUTHORIZED:
        return (
            "the coordinator does not believe what this site signs. Compare the clocks (both need "
            "NTP), then ask the coordinator whether the site was admitted with its key of today"
        )
    return (
        "the coordinator does not let this site in: it was not admitted yet, or was revoked, or "
        "another client runs with the same key. Ask the coordinator (`groundtruth coordinator "
        "status`); if it was admitted just now, try again in a minute"
    )
