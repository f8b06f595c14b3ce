"""The mechanism of the synthetic network, chunk by chunk.

A chunk holds a fixed number of patients. Its noise comes from the seed, the chunk's number and the
stage (patients, requests, review, ...) alone, so that presets with the same seed share patients,
and a chunk does not depend on how many others there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from data_contracts.synthetic.outcomes import FollowUps, follow_up
from data_contracts.synthetic.population import Requests, draw_patients, draw_requests
from data_contracts.synthetic.review import Reviews, review
from data_contracts.synthetic.settings import Mechanism
from data_contracts.synthetic.sites import Sites

PATIENTS_PER_CHUNK: Final = 32_768
"""Fixed: another size gives other data for the same seed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the network, with its truth.

    Attributes:
        number: Number of the chunk, from 0.
        first_patient: Number of its first patient within the network.
        first_request: Number of its first request within the network.
        n_patients: Patients with at least one request.
        requests: What was asked.
        reviews: What was answered.
        follow_ups: What happened.
        extras: Noise for what has no part in the mechanism (codes, claims).
    """

    number: int
    first_patient: int
    first_request: int
    n_patients: int
    requests: Requests
    reviews: Reviews
    follow_ups: FollowUps
    extras: np.random.Generator


def simulate(mechanism: Mechanism, sites: Sites, n_requests: int, seed: int) -> Iterator[Chunk]:
    """Simulate a network of exactly `n_requests` requests, chunk by chunk."""
    number = first_patient = first_request = 0
    while first_request < n_requests:
        noise = [
            np.random.Generator(np.random.SFC64(sequence))
            for sequence in np.random.SeedSequence(seed, spawn_key=(number,)).spawn(5)
        ]
        patients = draw_patients(mechanism.population, sites, noise[0], PATIENTS_PER_CHUNK)
        requests = draw_requests(
            mechanism, sites, patients, noise[1], limit=n_requests - first_request
        )
        reviews = review(mechanism, sites, requests, noise[2])
        n_patients = int(requests.patient[-1]) + 1
        yield Chunk(
            number=number,
            first_patient=first_patient,
            first_request=first_request,
            n_patients=n_patients,
            requests=requests,
            reviews=reviews,
            follow_ups=follow_up(mechanism, requests, reviews, noise[3]),
            extras=noise[4],
        )
        number += 1
        first_patient += n_patients
        first_request += len(requests)
