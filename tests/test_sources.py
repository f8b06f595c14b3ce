"""All sources of a site at once: files, exchanges, clinical records and a database give tables."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from data_contracts.deidentification.policy import Policy, PolicyError, write_key
from data_contracts.deidentification.tokens import SCHEME
from data_contracts.intake import Table, read_tables
from data_contracts.manifest import Exchange, SiteManifest
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.sources import opened

SHARED = Path(__file__).parents[2] / "shared/data"
pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the sample files are not beside this clone"
)
IDENTIFIERS = ("SMITH", "12345678901", "8189991234", "JONES", "Vlad", "Blake")


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., SiteManifest]:
    """A payer with the sample files of some exchanges."""
    write_key(tmp_path / "network.key")

    def made(*exchanges: Exchange, on_error: str = "quarantine") -> SiteManifest:
        paths = {}
        for name in exchanges:
            paths[name] = tmp_path / name
            paths[name].mkdir(exist_ok=True)
            pattern = "x12/*/*" if name == "x12" else "fhir_pas/*"
            for file in SHARED.glob(pattern):
                shutil.copy(file, paths[name])
        return SiteManifest(
            "payer-1",
            "payer",
            {},
            origin="public",
            on_error=on_error,  # type: ignore[arg-type]
            exchanges=paths,
            policy=Policy(
                mode="expert_determination",
                certificate="ED-1",
                expires=date(2099, 12, 31),
                scheme=SCHEME,
                key_file=tmp_path / "network.key",
            ),
            business_line="COMM",
            folder=tmp_path,
        )

    return made


def rows(tables: dict[str, Table], name: str, *columns: str) -> list[tuple[object, ...]]:
    return tables[name].rows.select(columns).rows()


def test_a_278_and_its_response_become_a_request_and_its_decision(
    site: Callable[..., SiteManifest],
) -> None:
    tables = read_tables(site("x12"), only=("pa_request", "pa_decision"))
    request = ("request_category", "certification_type", "service_type", "place_of_service")
    # UM*SC*I*3*11:B: specialty care, initial, consultation (pooled), office. Its only diagnosis is
    # in ICD-9-CM (HI*BF), which the contract does not hold. BHT04 is 2 May 2005, 11:01.
    assert rows(tables, "pa_request", *request) == [("SC", "I", "other", "11")]
    asked = ("service_year", "request_day", "dx_principal", "channel", "business_line")
    assert rows(tables, "pa_request", *asked) == [(2005, 0, None, "X12", "COMM")]
    # HCR*A1 at 11:02, a minute later; DTP*AAH*RD8*20050502-20050602 is 31 days.
    decision = ("exchange_seq", "action_code", "auth_period_days")
    assert rows(tables, "pa_decision", *decision) == [(0, "A1", 31)]
    assert tables["pa_decision"].rows["decision_hours"].item() == pytest.approx(1 / 60)
    (of_request,), (of_decision,) = (
        rows(tables, name, "request_token") for name in ("pa_request", "pa_decision")
    )
    assert of_request == of_decision
    (origin,) = tables["pa_request"].provenance.rows()
    assert (Path(origin[0]).name, origin[1]) == ("Example_3_1_1_Request.txt", "segment 11")


def test_exchanges_of_both_formats_stand_in_the_same_tables(
    site: Callable[..., SiteManifest],
) -> None:
    findings = Findings("quarantine")
    tables = read_tables(site("x12", "fhir"), findings=findings)
    assert set(tables) == {"pa_request", "pa_decision", "claim_payment", "clinical_outcome"}
    assert set(tables["pa_request"].rows["channel"]) == {"X12", "FHIR"}
    # One 835 names a month 23; a bundle is empty, a Claim has no item, an answer no Claim.
    assert sorted(refusal.rpartition("/")[2].partition(",")[0] for refusal in findings.refused) == [
        "bundle-minimal.json",
        "claim-only.json",
        "claimresponse-pended.json",
        "managed-care.835",
    ]
    told = " ".join((*findings.refused, *findings.notes))
    for identifier in IDENTIFIERS:
        assert identifier not in told
        for table in tables.values():
            assert identifier not in table.rows.write_json()


@pytest.mark.parametrize(("zone", "hours"), [("America/Chicago", 1.0), (None, 6.0)])
def test_an_answer_in_fhir_to_a_278_is_timed_by_the_zone_of_the_278(
    zone: str | None, hours: float, site: Callable[..., SiteManifest], tmp_path: Path
) -> None:
    manifest = dataclasses.replace(site("x12", "fhir"), timezone=zone and ZoneInfo(zone))
    for file in (*(tmp_path / "x12").iterdir(), *(tmp_path / "fhir").iterdir()):
        if "Request" not in file.name:
            file.unlink()
    # BHT04 and BHT05 are 2 May 2005, 11:01: in the summer of Chicago 16:01 UTC.
    answer = {
        "resourceType": "ClaimResponse",
        "use": "preauthorization",
        "created": "2005-05-02T17:01:00Z",
        "request": {"identifier": {"value": "111099"}},
        "requestor": {"identifier": {"value": "8189991234"}},
        "outcome": "complete",
        "disposition": "Granted",
    }
    (tmp_path / "fhir/answer.json").write_text(json.dumps(answer))
    findings = Findings()
    tables = read_tables(manifest, only=("pa_decision",), findings=findings)
    assert rows(tables, "pa_decision", "action_code", "decision_hours") == [("A1", hours)]
    noted = [note for note in findings.notes if "local times of X12 taken as UTC" in note]
    assert [findings.notes[note] for note in noted] == ([] if zone else [1])


def test_one_bad_file_fails_the_reading_where_the_site_wants_it_so(
    site: Callable[..., SiteManifest],
) -> None:
    with pytest.raises(ReaderError, match=r"managed-care.835, segment 4 \(BPR16\)"):
        read_tables(site("x12", on_error="fail"))


def test_a_reading_that_failed_is_not_begun_again_for_the_next_table(
    site: Callable[..., SiteManifest],
) -> None:
    files: list[Path] = []
    with opened(site("x12", on_error="fail"), Findings(), files.append) as sources:
        for table in ("pa_request", "pa_decision"):
            with pytest.raises(ReaderError, match=r"managed-care.835, segment 4 \(BPR16\)"):
                sources.of(table)
    assert len(set(files)) == len(files)


def test_nothing_is_left_of_a_reading(site: Callable[..., SiteManifest], tmp_path: Path) -> None:
    manifest = site("x12", "fhir")
    before = sorted(tmp_path.rglob("*"))
    read_tables(manifest)
    assert sorted(tmp_path.rglob("*")) == before


def test_exchanges_are_not_read_under_safe_harbor(site: Callable[..., SiteManifest]) -> None:
    manifest = dataclasses.replace(site("x12"), policy=Policy())
    with pytest.raises(PolicyError, match=r"164\.514"):
        read_tables(manifest)


def test_nothing_is_read_on_a_ground_that_has_expired(site: Callable[..., SiteManifest]) -> None:
    manifest = site("x12")
    expired = dataclasses.replace(manifest.policy, expires=date(2020, 1, 1))
    with pytest.raises(PolicyError, match="expired on 2020-01-01"):
        read_tables(dataclasses.replace(manifest, policy=expired))


def test_a_site_that_is_written_loads_the_same(
    site: Callable[..., SiteManifest], tmp_path: Path
) -> None:
    manifest = site("x12", "fhir")
    assert SiteManifest.load(manifest.write(tmp_path)) == manifest


def test_a_table_of_which_no_message_tells_is_empty_and_no_mistake(
    site: Callable[..., SiteManifest], tmp_path: Path
) -> None:
    manifest = site("x12")
    for file in (tmp_path / "x12").iterdir():
        if "Example" not in file.name:
            file.unlink()
    tables = read_tables(manifest)
    assert {name: table.rows.height for name, table in tables.items()} == {
        "pa_request": 1,
        "pa_decision": 1,
        "claim_payment": 0,
    }


def test_a_file_name_that_is_no_utf_8_is_told_all_the_same(
    site: Callable[..., SiteManifest], tmp_path: Path
) -> None:
    manifest = site("x12", on_error="fail")
    for file in (tmp_path / "x12").iterdir():
        if "Request" not in file.name:
            file.unlink()
        else:
            os.rename(os.fsencode(file), os.fsencode(tmp_path / "x12") + b"/caf\xe9.278")
    (origin,) = read_tables(manifest, only=["pa_request"])["pa_request"].provenance["file"]
    assert origin.endswith("caf\\xe9.278")
