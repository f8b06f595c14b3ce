"""Local times of X12 become UTC by the zone that site.toml names, as FHIR's are."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.errors import ManifestError
from data_contracts.manifest import SiteManifest
from data_contracts.readers.events import Spool, spool
from data_contracts.readers.findings import Findings, ReaderError
from data_contracts.readers.x12 import read_x12
from experiments.site_init import Answers, init_site

CROSSWALK = Crosswalk(Tokens(bytes(range(32))))
CHICAGO = ZoneInfo("America/Chicago")
CHANGE = "a time in an hour at which clocks are changed, taken by the offset before the change"
REQUEST = (
    f"ISA*00*{'':10}*00*{'':10}*ZZ*{'SENDER':15}*ZZ*{'RECEIVER':15}*240105*1200*^*00501*000000001*0"
    "*P*:~GS*HI*SENDER*RECEIVER*20240105*1200*7*X*005010X217~ST*278*0001*005010X217~"
    "BHT*0007*13*B1*{}~HL*1**20*1~NM1*X3*2*PLAN*****46*789312~HL*2*1*21*1~"
    "NM1*1P*2*GROUP*****XX*1999999984~HL*3*2*22*1~NM1*IL*1*DOE*ANN****MI*M1~HL*4*3*EV*0~TRN*1*T7~"
    "UM*HS*I~SE*12*0001~GE*1*7~IEA*1*000000001~"
)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Spool]:
    with spool(tmp_path) as opened:
        yield opened


def submitted(
    told: str, events: Spool, folder: Path, timezone: ZoneInfo | None
) -> tuple[datetime, Findings]:
    """When a request with this day and time (BHT04, BHT05) was submitted."""
    (folder / "a.278").write_text(REQUEST.format(told))
    findings = Findings()
    read_x12(folder / "a.278", events, CROSSWALK, findings, timezone=timezone)
    return events.scan("request").collect()["submitted_at"].item(), findings


@pytest.mark.parametrize(
    ("told", "utc"),
    [
        ("20240105*0930", datetime(2024, 1, 5, 15, 30)),  # winter: 6 hours behind UTC
        ("20240705*093015", datetime(2024, 7, 5, 14, 30, 15)),  # summer: 5 hours
        ("20231231*2000", datetime(2024, 1, 1, 2)),
        ("20240105", datetime(2024, 1, 5, 6)),  # no time: the midnight of Chicago
        # The second Sunday of March, 2:00 becomes 3:00; the first of November, 2:00 becomes 1:00.
        ("20240310*0159", datetime(2024, 3, 10, 7, 59)),
        ("20240310*0300", datetime(2024, 3, 10, 8)),
        ("20241103*0059", datetime(2024, 11, 3, 5, 59)),
        ("20241103*0200", datetime(2024, 11, 3, 8)),
    ],
)
def test_a_local_time_becomes_utc(told: str, utc: datetime, events: Spool, tmp_path: Path) -> None:
    moment, findings = submitted(told, events, tmp_path, CHICAGO)
    assert moment == utc
    assert findings.notes == {}


@pytest.mark.parametrize(
    ("told", "utc"),
    [
        ("20240310*0230", datetime(2024, 3, 10, 8, 30)),  # is on no clock; still 6 hours
        ("20241103*0130", datetime(2024, 11, 3, 6, 30)),  # is twice on the clock; still 5 hours
    ],
)
def test_a_time_that_is_twice_or_never_on_the_clock_has_the_offset_before_the_change(
    told: str, utc: datetime, events: Spool, tmp_path: Path
) -> None:
    moment, findings = submitted(told, events, tmp_path, CHICAGO)
    assert moment == utc
    assert findings.notes == {CHANGE: 1}


def test_without_a_zone_a_time_stays_as_it_stands(events: Spool, tmp_path: Path) -> None:
    moment, findings = submitted("20240310*0230", events, tmp_path, None)
    assert moment == datetime(2024, 3, 10, 2, 30)
    assert findings.notes == {}


@pytest.mark.parametrize(
    ("told", "zone"), [("99991231*2359", "America/Chicago"), ("00010101*0000", "Asia/Tokyo")]
)
def test_a_time_beyond_the_calendar_is_refused(
    told: str, zone: str, events: Spool, tmp_path: Path
) -> None:
    with pytest.raises(ReaderError, match=r"segment 4 \(BHT05\): a time must stand here"):
        submitted(told, events, tmp_path, ZoneInfo(zone))


# --- the zone in site.toml -----------------------------------------------------------------------

SITE = '[site]\nname = "site-1"\nrole = "payer"\n'


def load(folder: Path, sources: str) -> SiteManifest:
    (folder / "site.toml").write_text(f"{SITE}[sources]\n{sources}\n", encoding="utf-8")
    return SiteManifest.load(folder)


def test_a_site_may_name_the_zone_of_its_x12(tmp_path: Path) -> None:
    manifest = load(tmp_path, 'x12 = "edi"\ntimezone = "America/Chicago"')
    assert manifest.timezone == CHICAGO
    assert SiteManifest.load(manifest.write(tmp_path)) == manifest
    assert load(tmp_path, 'x12 = "edi"').timezone is None


@pytest.mark.parametrize(
    "zone",
    ['"Chicago"', '"america/chicago"', '"America"', '"-06:00"', '""', '"../UTC"', "-6", '["UTC"]'],
)
def test_what_is_no_zone_is_refused_with_an_example(zone: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r'timezone in \[sources\] .*"America/Chicago"'):
        load(tmp_path, f'x12 = "edi"\ntimezone = {zone}')


def test_a_zone_alone_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no data: name a contract table"):
        load(tmp_path, 'timezone = "America/Chicago"')


def test_site_init_writes_the_zone_as_a_line_to_complete(tmp_path: Path) -> None:
    line = '# timezone = "America/Chicago"'
    file, _ = init_site(tmp_path / "a", Answers("a", "payer", exchanges={"x12": Path("edi")}))
    text = file.read_text(encoding="utf-8")
    assert line in text
    file.write_text(text.replace(line, line.removeprefix("# ")), encoding="utf-8")
    assert SiteManifest.load(file).timezone == CHICAGO
    file, _ = init_site(tmp_path / "b", Answers("b", "payer", exchanges={"fhir": Path("fhir")}))
    assert "timezone" not in file.read_text(encoding="utf-8")
