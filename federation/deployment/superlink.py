"""The network's SuperLink, as the coordinator's own tools reach it, over loopback."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import NodeStatus, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.task_identity import TaskIdentity

from data_contracts.errors import GroundTruthError
from federation.deployment.bundles import Bundle
from federation.deployment.grid import DeployedGrid
from federation.deployment.runtime import Runtime

logger = logging.getLogger("groundtruth.coordinator")

_OUTAGE_SECONDS: Final = 120.0
"""How long a run waits for a SuperLink that does not answer."""


class SuperLinkError(GroundTruthError):
    """The SuperLink cannot be reached, or refuses what it is asked."""


class SuperLinkUnreachableError(SuperLinkError):
    """Nobody answers at the SuperLink's address."""


@dataclass(frozen=True, slots=True)
class Node:
    """A SuperNode that the SuperLink knows.

    Attributes:
        node_id: Flower's number of it.
        public_key: Its key, as PEM.
        online: Whether it is connected.
        since: When it came or went last, as ISO 8601; "" if it never came.
    """

    node_id: int
    public_key: bytes
    online: bool
    since: str


@dataclass(frozen=True, slots=True)
class SuperLink:
    """A SuperLink.

    Attributes:
        address: Where it listens, as host:port.
        certificates: The network's CA, as PEM.
        secret: The secret with which apps are started.
    """

    address: str
    certificates: bytes
    secret: bytes

    def wait(self, seconds: float) -> None:
        """Wait until the SuperLink answers: it may have been started just now.

        Raises:
            SuperLinkUnreachableError: It does not after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.nodes()
                return
            except SuperLinkUnreachableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def nodes(self) -> tuple[Node, ...]:
        """All registered SuperNodes.

        Raises:
            SuperLinkError: The SuperLink cannot be reached.
        """
        with self._control() as control:
            listed = control.ListNodes(ListNodesRequest()).nodes_info
        return tuple(
            Node(
                node.node_id,
                node.public_key,
                node.status == NodeStatus.ONLINE,
                node.last_activated_at
                if node.status == NodeStatus.ONLINE
                else node.last_deactivated_at,
            )
            for node in listed
            if node.status != NodeStatus.UNREGISTERED
        )

    def register(self, public_key: bytes, name: str) -> int:
        """Let the SuperNode with this key in; returns its number."""
        with self._control() as control:
            request = RegisterNodeRequest(public_key=public_key, name=name)
            return int(control.RegisterNode(request).node_id)

    def unregister(self, node_id: int) -> None:
        """Shut a SuperNode out."""
        with self._control() as control:
            control.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    @contextmanager
    def run(self, bundle: Bundle, plan: str) -> Iterator[Grid]:
        """A run of Flower's, in which this process is the ServerApp; it ends with the block.

        Args:
            bundle: The app that sites are to run.
            plan: The run plan's text: all that the sites are told beside the app.

        Raises:
            SuperLinkError: The SuperLink cannot be reached, or refuses the run.
        """
        run_id = self._start(bundle, plan)
        runtime = Runtime(self.address, self.secret, self.certificates)
        task = None
        try:
            with _explained():
                # Whoever can reach the control interface can start runs. Theirs end here.
                while (task := runtime.acquire(TaskType.SERVER_APP)) and task.run_id != run_id:
                    logger.warning("a run that nobody here has started was ended")
                    with task:
                        task.finish("not started by the coordinator")
            if task is None:
                raise SuperLinkError(
                    "the SuperLink does not give the run to this process; is another "
                    "`groundtruth run` at work on this coordinator?"
                )
            with task, _explained():
                _, flower_run, _ = task.pull()
                grid = DeployedGrid(
                    self.address, root_certificates=self.certificates, token=task.token
                )
                grid._retry_invoker.max_time = _OUTAGE_SECONDS  # ours would wait for ever
                grid.set_run(flower_run)
                before = TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id
                TaskIdentity.run_id = flower_run.run_id
                TaskIdentity.node_id = SUPERLINK_NODE_ID
                TaskIdentity.task_id = task.task_id
                try:
                    yield grid
                    task.finish()
                except BaseException as error:
                    _quietly(task.finish, f"{type(error).__name__}")
                    raise
                finally:
                    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before
                    grid.close()
        except BaseException:
            _quietly(self._stop, run_id)
            raise

    def _start(self, bundle: Bundle, plan: str) -> int:
        with self._control() as control:
            given = control.StartRun(
                StartRunRequest(
                    fab=fab_to_proto(Fab(bundle.sha256, bundle.content, {})),
                    override_config=user_config_to_proto({"plan": plan}),
                )
            )
        if not given.HasField("run_id"):
            raise SuperLinkError("the SuperLink has refused the run; its log says why")
        return int(given.run_id)

    def _stop(self, run_id: int) -> None:
        with self._control() as control:
            control.StopRun(StopRunRequest(run_id=run_id))

    @contextmanager
    def _control(self) -> Iterator[ControlHttpClient]:
        client = ControlHttpClient.from_server_address(
            server_address=self.address,
            insecure=False,
            root_certificates=self.certificates,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )
        with _explained(), client:
            yield client


@contextmanager
def _explained() -> Iterator[None]:
    """Say in our words what the connection or the SuperLink complains of."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        words = said.message if said else f"HTTP status {error.response.status_code}"
        raise SuperLinkError(f"the SuperLink refuses: {words}") from None
    except httpx.HTTPError as error:
        raise SuperLinkUnreachableError(
            f"the SuperLink cannot be reached ({type(error).__name__}): is `groundtruth "
            "coordinator start` running on this machine?"
        ) from None


def _quietly(call: Callable[..., object], *arguments: object) -> None:
    """Call what only tidies up: its failure must not hide the reason."""
    try:
        call(*arguments)
    except (SuperLinkError, httpx.HTTPError) as error:
        logger.warning("could not tidy up at the SuperLink: %s", error)
