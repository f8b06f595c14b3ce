"""What a coordinator keeps of a run, so that it can go on after it was killed at any moment.

A training is a generator that asks for noisy sums, so the sums so far *are* its state: played back,
they give the same model, the same next query, and no site is asked anything twice. Beside them
stands who takes part with which keys, the attempt that was going on, and a mirror of what the sites
must have charged, which is held against their ledgers before the run goes on.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.errors import GroundTruthError
from federation.private_files import write_whole
from federation.roster import KeyOffer
from models.training import NoisySum

_FORMAT = 1


class CheckpointError(GroundTruthError):
    """A run cannot go on from what was kept of it."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round cost.

    Attributes:
        step: Step of the training.
        round: Number of the round within its step, from 1.
        seconds: Wall-clock time, retries included.
        values: Values that each site sent.
        noise_std: Standard deviation of the noise in each value of the sum.
        sensitivity: L2 sensitivity of one site's answer.
        sites: Sites in the sum.
        mu: What the sum cost a patient whom it concerns; None without privacy.
        retries: How often the round was repeated because sites had vanished.
    """

    step: str
    round: int
    seconds: float
    values: int
    noise_std: float
    sensitivity: float
    sites: int
    mu: float | None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Dropout:
    """A site that left the run.

    Attributes:
        site: Its name.
        step: Step at which it was missed; "hello" before the first.
        round: Round of the step.
        reason: Why, as far as the coordinator can know.
        back: Step and round from which it took part again; "" if it did not.
    """

    site: str
    step: str
    round: int
    reason: str
    back: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a round that was going on.

    Attributes:
        step: Step of the round.
        round: Its number.
        retry: Number of the retry in the run, or 0.
        present: The sites that were asked, in the plan's order.
        query: Digest of the query, hexadecimal.
    """

    step: str
    round: int
    retry: int
    present: tuple[str, ...]
    query: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run so far.

    Attributes:
        run: The run's identifier.
        plan: Digest of its plan.
        offers: The sites' keys for the run.
        rounds: What the rounds cost.
        sums: The sum of each round.
        dropouts: Sites that left.
        sites: Sites that take part at the moment, in the plan's order.
        gone: Sites that do not, but may come back.
        retries: Retries so far.
        attempt: The attempt that is going on, among `sites`; None between two rounds.
        asked: Site -> the releases that it may have charged.
        answered: Site -> the releases that it has charged for certain.
    """

    run: str
    plan: str
    offers: tuple[KeyOffer, ...]
    rounds: tuple[RoundRecord, ...]
    sums: tuple[NoisySum, ...]
    dropouts: tuple[Dropout, ...]
    sites: tuple[str, ...]
    gone: tuple[str, ...]
    retries: int
    attempt: Attempt | None
    asked: Mapping[str, tuple[str, ...]]
    answered: Mapping[str, tuple[str, ...]]

    def write(self, file: Path) -> None:
        """Write the checkpoint in place of an older one, whole or not at all.

        Raises:
            CheckpointError: It cannot be written.
        """
        body = json.dumps(_encoded(asdict(self))).encode()
        head = {"format": _FORMAT, "sha256": hashlib.sha256(body).hexdigest()}
        try:
            write_whole(file, json.dumps(head).encode() + b"\n" + body, mode=0o600)
            _sync(file.parent)
        except OSError as error:
            raise CheckpointError(
                f"{file} cannot be written: {error.strerror}. The run stops here rather than go "
                "on without it; make room, and go on with --resume"
            ) from None

    @classmethod
    def read(cls, file: Path) -> "Checkpoint":
        """The checkpoint in a file.

        Raises:
            CheckpointError: It is missing or not what was written.
        """
        try:
            head, _, body = file.read_bytes().partition(b"\n")
            if json.loads(head) != {"format": _FORMAT, "sha256": hashlib.sha256(body).hexdigest()}:
                raise ValueError("the checksum is another")
            return cls._decoded(json.loads(body))
        except FileNotFoundError:
            raise CheckpointError(f"{file} does not exist: no run can go on from there") from None
        except (ValueError, KeyError, TypeError, OSError):
            raise CheckpointError(
                f"{file} is damaged, or of another release, so the run cannot go on from it. What "
                "its sites have released stays charged; start a new run"
            ) from None

    @classmethod
    def _decoded(cls, raw: Mapping[str, Any]) -> "Checkpoint":
        attempt = raw["attempt"]
        return cls(
            run=raw["run"],
            plan=raw["plan"],
            offers=tuple(KeyOffer(**_decoded(offer)) for offer in raw["offers"]),
            rounds=tuple(RoundRecord(**record) for record in raw["rounds"]),
            sums=tuple(NoisySum(**_decoded(total)) for total in raw["sums"]),
            dropouts=tuple(Dropout(**dropout) for dropout in raw["dropouts"]),
            sites=tuple(raw["sites"]),
            gone=tuple(raw["gone"]),
            retries=raw["retries"],
            attempt=attempt and Attempt(**{**attempt, "present": tuple(attempt["present"])}),
            asked={site: tuple(names) for site, names in raw["asked"].items()},
            answered={site: tuple(names) for site, names in raw["answered"].items()},
        )


def _sync(folder: Path) -> None:
    """Have a folder's new names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encoded(value: Any) -> Any:
    """Plain values, with arrays and bytes as text that gives back the same bits."""
    if isinstance(value, np.ndarray):
        return {"float64": base64.b64encode(value.astype("<f8").tobytes()).decode()}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return value


def _decoded(row: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, Mapping) and set(value) == {"float64"}:
            return np.frombuffer(base64.b64decode(value["float64"]), "<f8").astype(np.float64)
        if isinstance(value, Mapping) and set(value) == {"bytes"}:
            return base64.b64decode(value["bytes"])
        return value

    return {key: one(value) for key, value in row.items()}
