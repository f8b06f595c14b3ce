"""Files that run a coordinator or a site as a service: nginx, systemd units, containers.

They are rendered from the templates beside this file. A value goes into one only if it is a plain
host name, port, absolute path or name, in letters that mean nothing to nginx, systemd, YAML or a
shell: so none can end its own directive and begin another.
"""

import ipaddress
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_contracts.errors import GroundTruthError
from federation.deployment.addresses import Address

DEPLOY_FOLDER: Final = "deploy"
"""Folder of these files, in the folder of the coordinator or the site."""

_TEMPLATES = Path(__file__).with_name("templates")
_DISTRIBUTION = "shared-ground-truth"
_PATH = re.compile(r"(/[A-Za-z0-9._+@-]+)+")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")  # useradd(8)
_VERSION = re.compile(r"[0-9A-Za-z.+!]+")  # PEP 440
_PROXY_FILES = {
    "nginx.conf": "nginx.conf.j2",
    "groundtruth-proxy.service": "groundtruth-proxy.service.j2",
}
_IMAGE_FILES = {"Dockerfile": "Dockerfile.j2"}
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # systemd.exec(5), ProtectHome=


class ServiceFilesError(GroundTruthError):
    """The files of a service cannot be written, or would not say what they should."""


def _own_program() -> Path:
    """The `groundtruth` of this installation, or the one that the shell would find."""
    own = Path(sys.executable).with_name("groundtruth")
    found = own if own.exists() else shutil.which("groundtruth")
    return Path(os.path.abspath(found or own))


@dataclass(frozen=True, slots=True)
class CoordinatorService:
    """What the files of a coordinator say.

    Attributes:
        folder: The coordinator's folder.
        address: "host:port" that sites use.
        bind: "host:port" where the SuperLink listens: loopback only.
        listen: "host:port" where nginx listens; by default the address's port, of every interface.
        user: Owner of the folder, and the user that the services run as.
        program: The `groundtruth` command.
        nginx: The `nginx` command.
    """

    folder: Path
    address: str
    bind: str
    listen: str = ""
    user: str = "groundtruth"
    program: Path = field(default_factory=_own_program)
    nginx: Path = Path("/usr/sbin/nginx")

    def values(self) -> dict[str, object]:
        """The templates' variables, all of them checked.

        Raises:
            ServiceFilesError: One could not stand in a file, or the SuperLink would be exposed.
        """
        address, bind, listen = _address(self.address), _address(self.bind), self._listen()
        if bind.ip is None or not bind.ip.is_loopback:
            raise ServiceFilesError(
                f"the SuperLink must not listen on {bind}: whoever reaches it can submit code. "
                f'Set bind = "127.0.0.1:{bind.port}"; nginx lets sites in'
            )
        if self._has_proxy and _clash(listen, bind):
            free = Address(bind.host, 9093 if bind.port == 9092 else 9092)
            raise ServiceFilesError(
                f"nginx would listen on {listen} and the SuperLink on {bind}, the same port: set "
                f'[server] bind = "{free}", and run groundtruth coordinator renew {self.folder}'
            )
        return _common(self.folder, self.user, self.program, "[coordinator]") | {
            "address": address,
            "bind": bind,
            "listen": listen,
            "privileged_port": listen.port < 1024,
            "nginx": _checked_path(self.nginx),
        }

    def templates(self) -> Mapping[str, str]:
        """Name of each file -> its template.

        Where sites reach the SuperLink itself, as on one machine, there is no nginx. A container
        has no addresses of its machine: there is a compose file only if nginx listens on all.
        """
        files = {"groundtruth-coordinator.service": "groundtruth-coordinator.service.j2"}
        if self._has_proxy:
            files |= _PROXY_FILES
            if self._listen().ip == ipaddress.IPv4Address(0):
                files |= {"compose.yaml": "coordinator-compose.yaml.j2", **_IMAGE_FILES}
        return files

    @property
    def _has_proxy(self) -> bool:
        return _address(self.address) != _address(self.bind)

    def _listen(self) -> Address:
        return _address(self.listen or f"0.0.0.0:{_address(self.address).port}")


@dataclass(frozen=True, slots=True)
class SiteService:
    """What the files of a site say.

    Attributes:
        folder: The folder of its site.toml.
        user: Owner of the folder's `state`, and the user that the service runs as.
        program: The `groundtruth` command.
    """

    folder: Path
    user: str = "groundtruth"
    program: Path = field(default_factory=_own_program)

    def values(self) -> dict[str, object]:
        """The templates' variables, all of them checked.

        Raises:
            ServiceFilesError: One could not stand in a file.
        """
        return _common(self.folder, self.user, self.program, "")

    def templates(self) -> Mapping[str, str]:
        """Name of each file -> its template."""
        return {
            "groundtruth-site.service": "groundtruth-site.service.j2",
            "compose.yaml": "site-compose.yaml.j2",
            **_IMAGE_FILES,
        }


def render_service_files(service: CoordinatorService | SiteService) -> dict[str, str]:
    """Name of each file of a service -> its text.

    Raises:
        ServiceFilesError: A value could not stand in a file, or the SuperLink would be exposed.
    """
    environment = Environment(  # noqa: S701 - none of the files is HTML; values are checked
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = service.values()
    return {
        name: environment.get_template(template).render(values)
        for name, template in service.templates().items()
    }


def write_service_files(service: CoordinatorService | SiteService) -> tuple[Path, ...]:
    """Write a service's files into `folder/deploy`, in place of older ones.

    Files that it had and needs no more are removed. For a coordinator also `folder/state/proxy` is
    made, where nginx keeps its log.

    Returns:
        The files.

    Raises:
        ServiceFilesError: As `render_service_files`, and then nothing was written; or a file
            cannot be written.
    """
    texts = render_service_files(service)
    deploy = service.folder / DEPLOY_FOLDER
    try:
        if isinstance(service, CoordinatorService):
            (service.folder / "state").mkdir(mode=0o700, parents=True, exist_ok=True)
            (service.folder / "state/proxy").mkdir(mode=0o700, exist_ok=True)
        deploy.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (deploy / name).write_text(text, encoding="utf-8", newline="\n")
        for name in {*_PROXY_FILES, *_IMAGE_FILES, "compose.yaml"} - texts.keys():
            (deploy / name).unlink(missing_ok=True)
    except OSError as error:
        raise ServiceFilesError(f"{error.filename} cannot be written: {error.strerror}") from None
    return tuple(deploy / name for name in texts)


def service_files_told(service: CoordinatorService | SiteService) -> str:
    """Write a service's files, and say where they are, or why there are none."""
    try:
        files = write_service_files(service)
    except ServiceFilesError as error:
        return f"no files to run it as a service were written: {error}"
    return f"to run it as a service: {', '.join(map(str, files))}"


def _common(folder: Path, user: str, program: Path, extra: str) -> dict[str, object]:
    release = version(_DISTRIBUTION)
    if not _USER.fullmatch(user):
        raise ServiceFilesError(
            f"{user!r} is no user of a system: lower-case letters, digits, - and _, 31 at most"
        )
    if not _VERSION.fullmatch(release):
        raise ServiceFilesError(f"{_DISTRIBUTION} has no version: install it with pip")
    return {
        "folder": _checked_path(folder),
        "user": user,
        "program": _checked_path(program),
        "in_home": any(path.is_relative_to(home) for home in _HOMES for path in (folder, program)),
        "requirement": f"{_DISTRIBUTION}{extra}=={release}",
    }


def _clash(listen: Address, bind: Address) -> bool:
    """Whether two servers of one machine cannot have these addresses at the same time."""
    if listen.ip is None or bind.ip is None or listen.port != bind.port:
        return False
    every = listen.ip.is_unspecified and listen.ip.version == bind.ip.version
    return every or listen.ip == bind.ip


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ServiceFilesError(f"{text!r} is no address of a server: {error}") from None


def _checked_path(path: Path) -> str:
    text = path.as_posix()
    if not _PATH.fullmatch(text) or ".." in path.parts:
        raise ServiceFilesError(
            f"{text!r} cannot stand in the files of a service: use an absolute path of letters, "
            "digits and . _ + @ - alone"
        )
    return text
