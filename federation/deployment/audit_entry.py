"""What an entry of an audit log can say: a closed set of events and fields, each value checked.

**No values from data.** No entry takes free text. A reason is given as the error itself, and only
errors of ours, which never repeat a value from data, are put in words; of any other the name of its
class is kept. Everything else is an identifier, a digest, a count or a date.
"""

import contextlib
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypedDict, cast

from data_contracts.errors import GroundTruthError
from data_contracts.vocabulary import PSEUDONYM_PATTERN
from federation.printable import printable
from federation.run_state import RUN_ID_PATTERN

LONGEST_REASON: Final = 300
"""Characters that are kept of a reason."""

_SHA256: Final = "[0-9a-f]{64}"
_NAME: Final = "[a-z][a-z0-9_-]{0,63}"
_PATTERNS: Final[Mapping[str, str]] = {
    "app": _SHA256,
    "certificate": _SHA256,
    "digest": _SHA256,
    "key": f"{_SHA256}|[0-9a-f]{{4}}( [0-9a-f]{{4}}){{7}}",  # the latter as `fingerprint` prints it
    "ledger": _SHA256,
    "network": _NAME,
    "plan": _SHA256,
    "run": RUN_ID_PATTERN,
    "site": PSEUDONYM_PATTERN,
    "step": _NAME,
    "task": _NAME,
    "until": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
}
_COUNTS: Final = ("attempt", "restarts", "round", "rounds", "sites", "size")
_LARGEST_COUNT: Final = 10**12


class AuditLogError(GroundTruthError):
    """The audit log refuses."""


class AuditEntryError(AuditLogError):
    """An entry lacks something, or holds what no entry may hold."""


class Event(StrEnum):
    """What an entry can be about; nothing else."""

    NETWORK_CREATED = "network created"
    CERTIFICATE_RENEWED = "certificate renewed"
    SITE_ADMITTED = "site admitted"
    SITE_REVOKED = "site revoked"
    INVITATION_JOINED = "invitation joined"
    PEERS_PINNED = "peers pinned"
    APP_OFFERED = "app offered"
    APP_APPROVED = "app approved"
    APP_REJECTED = "app rejected"
    REQUEST_ANSWERED = "request answered"
    REQUEST_REFUSED = "request refused by policy"
    REQUEST_FAILED = "request failed"
    RUN_STARTED = "run started"
    RUN_RESUMED = "run resumed"
    RUN_FINISHED = "run finished"
    RUN_FAILED = "run failed"
    SITE_DROPPED = "site dropped"
    SITE_READMITTED = "site re-admitted"
    SERVICE_STARTED = "service started"
    SERVICE_STOPPED = "service stopped"
    BUDGET_CHANGED = "budget changed"
    LOG_REPAIRED = "log repaired"

    @property
    def outcome(self) -> str:
        """How it ended for who wanted something: done, refused or failed."""
        if self in (Event.APP_REJECTED, Event.REQUEST_REFUSED):
            return "refused"
        failed = (Event.REQUEST_FAILED, Event.RUN_FAILED, Event.SITE_DROPPED)
        return "failed" if self in failed else "done"


_NEEDED: Final[Mapping[Event, tuple[str, ...]]] = {
    Event.NETWORK_CREATED: ("network",),
    Event.SITE_ADMITTED: ("site",),
    Event.SITE_REVOKED: ("site",),
    Event.APP_OFFERED: ("app",),
    Event.APP_APPROVED: ("app",),
    Event.APP_REJECTED: ("app",),
    Event.REQUEST_ANSWERED: ("run",),
    Event.REQUEST_REFUSED: ("reason",),
    Event.RUN_STARTED: ("run", "plan"),
    Event.RUN_RESUMED: ("run",),
    Event.RUN_FINISHED: ("run",),
    Event.RUN_FAILED: ("run", "reason"),
    Event.SITE_DROPPED: ("run", "site"),
    Event.SITE_READMITTED: ("run", "site"),
    Event.BUDGET_CHANGED: ("epsilon", "ledger"),
    Event.LOG_REPAIRED: ("size", "digest"),
}


class Fields(TypedDict, total=False):
    """What an entry can say beside who, when and which event.

    Attributes:
        app: SHA-256 of an app bundle.
        attempt: Attempt at a round, from 1.
        certificate: SHA-256 of a certificate.
        digest: SHA-256 of what was set aside from a torn log.
        epsilon: Privacy budget that holds from now on.
        key: A public key's SHA-256, or its `federation.identity.fingerprint`.
        ledger: Hash of the entry in the privacy ledger that tells more.
        network: Id of the network.
        plan: SHA-256 of the run plan.
        reason: The refusal or failure.
        restarts: How often a service was started again.
        round: Round, from 1.
        rounds: Number of rounds.
        run: Id of the run.
        site: Pseudonym of the site that it is about.
        sites: Number of sites.
        size: Bytes that were set aside from a torn log.
        step: Step of the plan.
        task: Task of the plan.
        until: Last day on which a certificate is valid, as YYYY-MM-DD.
    """

    app: str
    attempt: int
    certificate: str
    digest: str
    epsilon: float
    key: str
    ledger: str
    network: str
    plan: str
    reason: BaseException
    restarts: int
    round: int
    rounds: int
    run: str
    site: str
    sites: int
    size: int
    step: str
    task: str
    until: str


def checked(event: Event, fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of an entry as they are written.

    Raises:
        AuditEntryError: There is no such event or field, one is missing, or one has a wrong value.
    """
    if not isinstance(event, Event):
        raise AuditEntryError("an entry of the audit log is about an event that there is not")
    if missing := [name for name in _NEEDED.get(event, ()) if name not in fields]:
        raise AuditEntryError(f"an entry {event.value!r} must say its {', '.join(missing)}")
    return {name: _value(name, value) for name, value in fields.items()}


def fitting(values: Mapping[str, object]) -> Fields:
    """Those of some values, from whoever, that an entry can hold."""
    found: dict[str, object] = {}
    for name, value in values.items():
        with contextlib.suppress(AuditEntryError):
            found[name] = _value(name, value)
    return cast(Fields, found)


def _value(name: str, value: object) -> object:
    if name in _PATTERNS and isinstance(value, str) and re.fullmatch(_PATTERNS[name], value):
        return value
    if name in _COUNTS and type(value) is int and 0 <= value <= _LARGEST_COUNT:
        return value
    if (
        name == "epsilon"
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= sys.float_info.max
    ):
        return float(value)
    if name == "reason" and isinstance(value, BaseException):
        told = f": {value}" if isinstance(value, GroundTruthError) else ""
        return printable(type(value).__name__ + told, LONGEST_REASON)
    if name in Fields.__annotations__:
        raise AuditEntryError(f"what an entry of the audit log gives as its {name} is not one")
    raise AuditEntryError("an entry of the audit log has a field that none has")
