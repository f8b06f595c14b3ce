"""FHIR R4: bundles, single resources and Bulk Data NDJSON become events.

`reading.py` opens files and tells units apart; `versions.py` chooses among copies of a resource;
`addresses.py` says what references mean, `directory.py` what they lead to; `requests.py`,
`decisions.py`, `payments.py` and `clinical.py` map resources to events.
"""

from data_contracts.readers.fhir.reading import read_fhir

__all__ = ["read_fhir"]
