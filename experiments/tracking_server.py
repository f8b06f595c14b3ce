"""A team's MLflow server: PostgreSQL behind it, artifacts in a folder, and nobody without a login.

FOLDER/server.env   secrets that the first start draws, 0600: the administrator's password, and the
                    key that signs the pages' forms
FOLDER/auth.ini     where MLflow keeps its users: the same database
FOLDER/artifacts/   reports and models, served by the server alone

The database's password is in none of them: its driver reads ~/.pgpass or PGPASSWORD.
"""

import importlib.util
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import urlsplit

from federation.settings import ConfigError

ADMINISTRATOR = "admin"
_NEEDED = ("flask", "flask_wtf", "psycopg")


def prepare(folder: Path, database: str, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Write what MLflow's server needs to ask everybody for a password.

    Args:
        folder: Folder of the server; made if there is none.
        database: URL of the PostgreSQL database, without a password.
        host: The only address to listen on.
        port: Port to listen on.

    Returns:
        The server's command, which starts with our own Python, and its environment.

    Raises:
        ConfigError: The URL is unfit, others may read what is there, or a package is missing.
    """
    uri = _database_uri(database)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the tracking server needs {', '.join(missing)}: "
            "pip install 'shared-ground-truth[tracking-server]'"
        )
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        raise ConfigError(f"{folder} is open to others, who could read reports: chmod 700 it")
    secret = _secrets(folder / "server.env")
    users = folder / "auth.ini"
    users.write_text(
        "[mlflow]\n"
        f"database_uri = {uri.replace('%', '%%')}\n"  # MLflow's reader takes % for a reference
        f"admin_username = {ADMINISTRATOR}\n"
        "default_permission = READ\n"
        # A run is some 250 requests, and a password's hash is slow to check.
        "auth_cache_ttl_seconds = 10\n",
        encoding="utf-8",
    )
    environment = os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Jobs of language models' evaluation, for which MLflow would start eight processes more.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-P", "-m", "mlflow", "--env-file", str(secret), "server"]
    command += ["--app-name", "basic-auth", "--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", host, "--port", str(port)]
    return command, environment


def _database_uri(url: str) -> str:
    """The database's URL as SQLAlchemy reads it. No message repeats it: it may hold a password."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise ConfigError("--database is no URL") from None
    if parts.scheme != "postgresql" or not parts.path.strip("/"):
        raise ConfigError("--database must be postgresql://USER@HOST/DATABASE")
    if password or "password" in parts.query:
        raise ConfigError(
            "--database holds a password, which every user of this machine could see: put it into "
            "~/.pgpass or PGPASSWORD"
        )
    return parts._replace(scheme="postgresql+psycopg").geturl()


def _secrets(file: Path) -> Path:
    """The file of the server's secrets, made at the first start."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        if file.stat().st_mode & 0o077:
            raise ConfigError(f"{file} may be read by others: chmod 600 it") from None
        return file
    with open(descriptor, "w", encoding="ascii") as written:
        written.write(
            f"MLFLOW_AUTH_ADMIN_PASSWORD={secrets.token_urlsafe(24)}\n"
            f"MLFLOW_FLASK_SERVER_SECRET_KEY={secrets.token_urlsafe(48)}\n"
        )
    return file
