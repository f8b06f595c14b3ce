"""Public data sets: fetching them, and what their loaders make of the rows."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import polars as pl
import pytest

from data_contracts.catalog import CONTRACTS
from data_contracts.errors import ManifestError
from data_contracts.fields import Available, terms_of
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from data_contracts.network import Network, site_folders
from data_contracts.public import (
    ca_dmhc_imr,
    ca_dmhc_imr_codes,
    uci_diabetes_130,
    uci_diabetes_codes,
)
from data_contracts.public import uci_heart_disease as heart
from data_contracts.public.fetch import FetchError, _NoDowngrade, fetch
from data_contracts.public.registry import PUBLIC
from data_contracts.public.site_folders import tokens
from data_contracts.public.sources import Source, SourceFile
from data_contracts.readers.findings import ReaderError

REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real_files = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"the publishers' files are not at {REAL}"
)

NAMES = ("uci-diabetes-130", "ca-dmhc-imr", "uci-heart-disease")
PUBLIC_TABLES = ("hospital_encounter", "imr_determination", "cardiac_exam")


def rows_of(network: Path, table: str) -> pl.DataFrame:
    """All sites' rows of a table, with the name of the site."""
    parts = [
        pl.read_parquet(folder / f"{table}.parquet").with_columns(site=pl.lit(folder.name))
        for folder in site_folders(network)
    ]
    return pl.concat(parts)


# --- the contracts --------------------------------------------------------------------------------


@pytest.mark.parametrize("table", PUBLIC_TABLES)
def test_every_field_has_terms_and_a_description(table: str) -> None:
    for name, column in CONTRACTS[table].schema.columns().items():
        assert column.description, name
        assert terms_of(column).sites, name


@pytest.mark.parametrize("table", PUBLIC_TABLES)
def test_every_number_declares_its_range(table: str) -> None:
    for name, column in CONTRACTS[table].schema.columns().items():
        if column.dtype.is_numeric():
            low, high = terms_of(column).declared_range or (0, 0)
            assert low < high, name


def test_what_is_predicted_is_known_only_at_follow_up() -> None:
    late = {
        f"{table}.{name}"
        for table in PUBLIC_TABLES
        for name, column in CONTRACTS[table].schema.columns().items()
        if terms_of(column).available_at is not Available.SUBMISSION
    }
    assert late == {"imr_determination.appeal_outcome", "cardiac_exam.disease_present"}


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_depends_on_kind_and_id_only() -> None:
    first, again, other = tokens("patient", pl.Series(["7", "8", "7"]))
    assert first == other != again
    assert tokens("patient", pl.Series([7])).item() == first
    assert tokens("encounter", pl.Series(["7"])).item() != first
    assert pl.Series([first]).str.contains(r"^[0-9a-f]{32}$").all()


# --- small files in the publishers' formats -------------------------------------------------------

DIABETES_HEADER = (
    "encounter_id,patient_nbr,race,gender,age,weight,admission_type_id,discharge_disposition_id,"
    "admission_source_id,time_in_hospital,payer_code,medical_specialty,num_lab_procedures,"
    "num_procedures,num_medications,number_outpatient,number_emergency,number_inpatient,diag_1,"
    "diag_2,diag_3,number_diagnoses,max_glu_serum,A1Cresult,"
    + ",".join(uci_diabetes_codes.DRUGS)
    + ",change,diabetesMed,readmitted"
)
NO_DRUGS = ",".join(["No"] * 17 + ["Up"] + ["No"] * 5)
ID_LABELS = """admission_type_id,description
1,Emergency
,
discharge_disposition_id,description
1,Discharged to home
11,Expired
13,Hospice / home
14,Hospice / medical facility
19,"Expired at home. Medicaid only, hospice."
20,"Expired in a medical facility. Medicaid only, hospice."
21,"Expired, place unknown. Medicaid only, hospice."
,
admission_source_id,description
7, Emergency Room
"""


def encounter(
    encounter_id: int,
    patient: int,
    *,
    race: str = "Caucasian",
    age: str = "[70-80)",
    disposition: str = "1",
    payer: str = "MC",
    specialty: str = "Cardiology",
    diag_1: str = "428",
    readmitted: str = "NO",
) -> str:
    return (
        f"{encounter_id},{patient},{race},Female,{age},?,6,{disposition},7,3,{payer},{specialty},"
        f"41,0,12,0,1,2,{diag_1},250.4,V45,9,None,>8,{NO_DRUGS},Ch,Yes,{readmitted}"
    )


def diabetes_files(folder: Path, *rows: str) -> Path:
    folder.mkdir()
    (folder / "diabetic_data.csv").write_text("\n".join([DIABETES_HEADER, *rows]) + "\n")
    (folder / "IDs_mapping.csv").write_text(ID_LABELS)
    return folder


def test_deaths_and_hospices_are_left_out_and_counted(tmp_path: Path) -> None:
    dispositions = ("1", "11", "13", "14", "19", "20", "21", "11", "3")
    source = diabetes_files(
        tmp_path / "raw", *(encounter(n, n, disposition=d) for n, d in enumerate(dispositions))
    )
    network = uci_diabetes_130.build(source, tmp_path / "network", seed=5)
    kept = rows_of(tmp_path / "network", "hospital_encounter")["discharge_disposition"]
    assert kept.to_list() == ["home", "skilled_nursing_facility"]
    assert network.settings["rows_in_source"] == 9
    assert network.settings["excluded"]["11 Expired"] == 2
    assert sum(network.settings["excluded"].values()) == 7
    assert Network.load(tmp_path / "network") == network


def test_small_payers_are_merged_and_unknown_ones_stand_apart(tmp_path: Path) -> None:
    payers = ("MC", "MC", "MC", "HM", "WC", "?", "?")
    rows = (encounter(n, n, payer=payer) for n, payer in enumerate(payers))
    source = diabetes_files(tmp_path / "raw", *rows)
    uci_diabetes_130.build(source, tmp_path / "network", seed=5, smallest_site=3)
    sites = rows_of(tmp_path / "network", "clinical_outcome")["site"].value_counts()
    assert dict(sites.iter_rows()) == {"payer-mc": 3, "payer-small": 2, "payer-unknown": 2}


def test_a_patient_keeps_the_token_at_every_site_and_in_both_tables(tmp_path: Path) -> None:
    source = diabetes_files(
        tmp_path / "raw",
        encounter(1, 700, payer="MC"),
        encounter(2, 700, payer="HM"),
        encounter(3, 701, payer="HM"),
    )
    uci_diabetes_130.build(source, tmp_path / "network", seed=5, smallest_site=1)
    stays = rows_of(tmp_path / "network", "hospital_encounter")
    at_mc = stays.filter(pl.col("site") == "payer-mc")["patient_token"].item()
    assert stays["patient_token"].is_in([at_mc]).sum() == 2
    assert stays["patient_token"].n_unique() == 2
    keys = ["site", "patient_token", "request_token"]
    assert stays.select(keys).equals(rows_of(tmp_path / "network", "clinical_outcome").select(keys))


def test_the_source_s_values_become_the_contract_s(tmp_path: Path) -> None:
    source = diabetes_files(
        tmp_path / "raw",
        encounter(1, 1, diag_1="8", race="Hispanic", age="[90-100)", readmitted="<30"),
        encounter(2, 2, diag_1="?", race="?", age="[0-10)", readmitted=">30"),
        encounter(3, 3, diag_1="E812", race="AfricanAmerican", specialty="PhysicianNotFound"),
        encounter(4, 4, diag_1="38.1", specialty="?", disposition="18"),
    )
    uci_diabetes_130.build(source, tmp_path / "network", seed=5)
    stays = rows_of(tmp_path / "network", "hospital_encounter")
    assert stays["diag_1"].to_list() == ["008", None, "E812", "038.1"]
    assert stays["medical_specialty"].to_list() == ["Cardiology", "Cardiology", None, None]
    assert stays["discharge_disposition"].to_list() == ["home", "home", "home", None]
    assert stays["admission_type"].null_count() == 4
    assert stays["max_glu_serum"].unique().to_list() == ["not_measured"]
    assert stays.row(0, named=True)["insulin"] == "up"
    outcomes = rows_of(tmp_path / "network", "clinical_outcome")
    assert outcomes["age_band"].to_list() == ["90+", "0-9", "70-79", "70-79"]
    assert outcomes["race"].to_list() == [None, None, "black", "white"]
    assert outcomes["ethnicity"].to_list() == ["hispanic", None, None, None]
    assert outcomes["readmission_30d"].to_list() == [True, False, False, False]
    assert outcomes["followup_days_observed"].to_list() == [30] * 4


@pytest.mark.parametrize(
    ("good", "bad"),
    [(",7,3,MC", ",99,3,MC"), (",41,0,12", ",forty,0,12"), (",250.4,", ",25O.4,"), ("Ch", "??")],
)
def test_a_value_that_the_publisher_does_not_list_is_an_error(
    tmp_path: Path, good: str, bad: str
) -> None:
    source = diabetes_files(tmp_path / "raw", encounter(1, 1).replace(good, bad))
    with pytest.raises(ReaderError, match=r"diabetic_data\.csv: .*pinned edition"):
        uci_diabetes_130.build(source, tmp_path / "network", seed=5)
    assert not (tmp_path / "network").exists()


def test_a_missing_raw_file_is_named(tmp_path: Path) -> None:
    source = diabetes_files(tmp_path / "raw", encounter(1, 1))
    (source / "IDs_mapping.csv").unlink()
    with pytest.raises(ReaderError, match=r"IDs_mapping\.csv: no such file; fetch"):
        uci_diabetes_130.build(source, tmp_path / "network", seed=5)


def test_labels_without_the_excluded_ids_are_refused(tmp_path: Path) -> None:
    source = diabetes_files(tmp_path / "raw", encounter(1, 1))
    (source / "IDs_mapping.csv").write_text(ID_LABELS.replace("11,Expired\n", ""))
    with pytest.raises(ReaderError, match="deaths and hospices are missing"):
        uci_diabetes_130.build(source, tmp_path / "network", seed=5)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    source = diabetes_files(tmp_path / "raw", encounter(1, 1))
    with pytest.raises(ManifestError, match="not an empty folder"):
        uci_diabetes_130.build(source, source, seed=5)
    assert {file.name for file in source.iterdir()} == {"diabetic_data.csv", "IDs_mapping.csv"}


IMR_ROWS = """Reference ID;Report Year;Diagnosis Category;Diagnosis Sub Category;\
Treatment Category;Treatment Sub Category;Determination;Type;Age Range;Patient Gender
MN16-1;2016;Infectious;Hepatitis;Pharmacy/Prescription Drugs;Anti-virals;\
Overturned Decision of Health Plan;Medical Necessity;11_20;Male
EI16-2;2009;;;;;Upheld Decision of Health Plan;Experimental/Investigational;;
UR16-3;2003;Mental;Autism;Urology;Other;Upheld Decision of Health Plan;Urgent Care;65+;Female
"""


def test_reviews_go_to_groups_of_treatments(tmp_path: Path) -> None:
    (tmp_path / "imr_determinations_2001_2016.csv").write_text(IMR_ROWS)
    network = ca_dmhc_imr.build(tmp_path, tmp_path / "network", seed=5)
    rows = rows_of(tmp_path / "network", "imr_determination").sort("report_year", descending=True)
    assert rows["site"].to_list() == ["imr-pharmacy", "imr-other", "imr-surgery"]
    assert rows["age_band"].to_list() == ["11-20", None, "65+"]
    assert rows["sex"].to_list() == ["male", None, "female"]
    assert rows["review_type"].to_list() == ["medical_necessity", "experimental", "urgent_care"]
    assert rows["appeal_outcome"].to_list() == ["overturned", "upheld", "upheld"]
    assert rows["patient_token"].n_unique() == 3
    assert network.partition.startswith("artificial: ")


def test_another_determination_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "imr_determinations_2001_2016.csv"
    file.write_text(IMR_ROWS.replace("Upheld Decision", "Postponed Decision"))
    with pytest.raises(ReaderError, match="pinned edition"):
        ca_dmhc_imr.build(tmp_path, tmp_path / "network", seed=5)


def heart_files(folder: Path, first_row: str) -> Path:
    folder.mkdir()
    for name in heart.SITES:
        (folder / name).write_text("63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0\n")
    (folder / "processed.va.data").write_text(first_row + "\n")
    return folder


def test_missing_values_of_the_heart_data(tmp_path: Path) -> None:
    source = heart_files(tmp_path / "raw", "60,0,4,0,0,?,-9,132,-9,-.5,?,?,-9,3")
    heart.build(source, tmp_path / "network", seed=5)
    rows = rows_of(tmp_path / "network", "cardiac_exam")
    complete, gaps = rows.row(0, named=True), rows.row(3, named=True)
    assert (complete["site"], gaps["site"]) == ("cleveland", "va-long-beach")
    assert None not in complete.values()
    assert {name for name, value in gaps.items() if value is None} == {
        "resting_blood_pressure",
        "cholesterol",
        "fasting_glucose_over_120",
        "resting_ecg",
        "exercise_angina",
        "st_slope",
        "major_vessels",
        "thallium_scan",
    }
    assert gaps["st_depression"] == -0.5
    assert (complete["disease_present"], gaps["disease_present"]) == (False, True)
    assert rows["patient_token"].n_unique() == 4


@pytest.mark.parametrize(
    "row", ["60,0,4", "60,0,9,0,0,?,-9,132,-9,-.5,?,?,-9,3", "?,x" + ",1" * 12, "1," * 14 + "1"]
)
def test_a_malformed_work_up_is_an_error(tmp_path: Path, row: str) -> None:
    source = heart_files(tmp_path / "raw", row)
    with pytest.raises(ReaderError, match="not what its publisher describes"):
        heart.build(source, tmp_path / "network", seed=5)


# --- the publishers' files ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The network of a public data set, built once for all tests."""

    @cache
    def build(name: str) -> Path:
        out = tmp_path_factory.mktemp("public") / name
        dataset = PUBLIC[name]
        dataset.build(REAL / dataset.source.folder, out, seed=5)
        return out

    return build


@needs_real_files
@pytest.mark.parametrize("name", NAMES)
def test_the_real_tables_pass_their_contracts_as_a_site_reads_them(
    name: str, real_network: Callable[[str], Path]
) -> None:
    for folder in site_folders(real_network(name)):
        manifest = SiteManifest.load(folder)
        assert manifest.origin == "public"
        for table in read_tables(manifest).values():
            assert table.counts.valid == table.counts.raw


@needs_real_files
@pytest.mark.parametrize("name", NAMES)
def test_the_real_files_are_the_pinned_ones(name: str, real_network: Callable[[str], Path]) -> None:
    pinned = {file.name: file.sha256 for file in PUBLIC[name].source.files}
    network = Network.load(real_network(name))
    assert network.sources == pinned
    assert network.settings["rows_in_source"] == PUBLIC[name].source.rows


@needs_real_files
def test_real_readmissions(real_network: Callable[[str], Path]) -> None:
    stays = rows_of(real_network("uci-diabetes-130"), "hospital_encounter")
    outcomes = rows_of(real_network("uci-diabetes-130"), "clinical_outcome")
    assert stays.height == outcomes.height == 99_343
    assert outcomes["readmission_30d"].sum() == 11_314
    assert stays["patient_token"].n_unique() == 69_990
    assert stays["request_token"].n_unique() == 99_343
    assert (stays["patient_token"].value_counts()["count"] > 1).sum() == 16_341
    sites = dict(stays["site"].value_counts().iter_rows())
    assert len(sites) == 11
    assert sites["payer-unknown"] == 39_398
    assert sites["payer-mc"] == 31_333
    assert sites["payer-small"] == 1_634
    assert min(sites.values()) == sites["payer-og"] == 1_011
    sites_of_patient = stays.group_by("patient_token").agg(pl.col("site").n_unique())["site"]
    assert (sites_of_patient > 1).sum() > 3_000


@needs_real_files
def test_real_exclusions_are_counted_under_the_publisher_s_labels(
    real_network: Callable[[str], Path],
) -> None:
    assert Network.load(real_network("uci-diabetes-130")).settings["excluded"] == {
        "11 Expired": 1_642,
        "13 Hospice / home": 399,
        "14 Hospice / medical facility": 372,
        "19 Expired at home. Medicaid only, hospice.": 8,
        "20 Expired in a medical facility. Medicaid only, hospice.": 2,
    }


@needs_real_files
def test_every_id_that_the_publisher_lists_is_known() -> None:
    labels = uci_diabetes_130.read_labels(REAL / "uci_diabetes_130" / "IDs_mapping.csv")
    known = {
        "admission_type_id": uci_diabetes_codes.ADMISSION_TYPES,
        "discharge_disposition_id": uci_diabetes_codes.DISCHARGE_DISPOSITIONS,
        "admission_source_id": uci_diabetes_codes.ADMISSION_SOURCES,
    }
    excluded = {"discharge_disposition_id": uci_diabetes_codes.EXCLUDED_DISPOSITIONS}
    assert labels.keys() == known.keys()
    for column, levels in known.items():
        missing = uci_diabetes_codes.MISSING_IDS[column]
        assert labels[column].keys() == {*levels, *missing, *excluded.get(column, ())}
        vague = ("Not Available", "NULL", "Not Mapped", "Unknown/Invalid")
        assert {code for code, label in labels[column].items() if label in vague} == set(missing)


@needs_real_files
def test_real_reviews(real_network: Callable[[str], Path]) -> None:
    reviews = rows_of(real_network("ca-dmhc-imr"), "imr_determination")
    assert reviews.height == reviews["request_token"].n_unique() == 19_228
    assert (reviews["appeal_outcome"] == "overturned").sum() == 8_452
    assert reviews["age_band"].null_count() == reviews["sex"].null_count() == 1_195
    assert reviews.filter(pl.col("treatment_category").is_null())["site"].unique().to_list() == [
        "imr-other"
    ]
    assert min(reviews["site"].value_counts()["count"]) >= 800
    for column, names in (
        ("diagnosis_sub_category", ca_dmhc_imr_codes.DIAGNOSIS_SUB_CATEGORIES),
        ("treatment_sub_category", ca_dmhc_imr_codes.TREATMENT_SUB_CATEGORIES),
    ):
        counts = reviews[column].drop_nulls().value_counts()
        assert set(counts.filter(pl.col("count") >= 20)[column]) == set(names)


@needs_real_files
def test_real_work_ups(real_network: Callable[[str], Path]) -> None:
    exams = rows_of(real_network("uci-heart-disease"), "cardiac_exam")
    sizes = {"cleveland": 303, "hungary": 294, "switzerland": 123, "va-long-beach": 200}
    assert dict(exams["site"].value_counts().iter_rows()) == sizes
    assert exams["disease_present"].sum() == 509
    swiss = exams.filter(pl.col("site") == "switzerland")
    assert swiss["cholesterol"].null_count() == 123
    assert exams["cholesterol"].null_count() == 30 + 172
    assert exams["resting_blood_pressure"].null_count() == 60


# --- fetching -------------------------------------------------------------------------------------


@dataclass
class Publisher:
    """What a loopback server serves, how badly, and which ranges it was asked for."""

    body: bytes = b""
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    lengths: bool = True
    redirect: str = ""
    misplaced: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    told = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            told.asked.append(asked)
            if told.redirect:
                self.send_response(302)
                self.send_header("Location", told.redirect)
                self.end_headers()
                return
            if told.statuses:
                self.send_error(told.statuses.pop(0))
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and told.ranges else 0
            if start >= len(told.body) > 0 and start:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                total = len(told.body)
                self.send_header(
                    "Content-Range", f"bytes {start + told.misplaced}-{total - 1}/{total}"
                )
            if told.lengths:
                self.send_header("Content-Length", str(len(told.body) - start))
            self.end_headers()
            stop = start + told.cut_after.pop(0) if told.cut_after else len(told.body)
            with suppress(ConnectionError):  # the client may hang up on the wrong edition
                self.wfile.write(told.body[start:stop])

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        server.shutdown()
        thread.join()


TABLE = b"".join(b"%06d;row\n" % n for n in range(50_000))
LABELS = b"id,label\n1,Home\n"


def pinned(name: str, contents: bytes) -> SourceFile:
    return SourceFile(name, hashlib.sha256(contents).hexdigest(), len(contents))


def source_of(url: str, *files: SourceFile) -> Source:
    return Source(
        name="a-set",
        title="A set",
        page="https://publisher.example/a-set",
        url=url,
        files=files,
        licence="none",
        citation="none",
        task="none",
        rows=1,
        edition="Pinned is the first edition.",
    )


def one_file(publisher: Publisher) -> Source:
    publisher.body = TABLE
    return source_of(f"{publisher.url}/table.csv", pinned("renamed.csv", TABLE))


def archive(publisher: Publisher, members: dict[str, bytes]) -> Source:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, contents in members.items():
            file.writestr(name, contents)
    publisher.body = packed.getvalue()
    files = (pinned("table.csv", TABLE), pinned("IDs_mapping.csv", LABELS))
    return source_of(f"{publisher.url}/a+set.zip", *files)


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_file_is_fetched_and_kept(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    seen: list[tuple[str, int, int | None]] = []
    files = fetch(source, tmp_path / "new", progress=lambda *step: seen.append(step))
    assert files == [tmp_path / "new" / "renamed.csv"]
    assert files[0].read_bytes() == TABLE
    assert seen[-1] == ("table.csv", len(TABLE), len(TABLE))
    assert fetch(source, tmp_path / "new") == files
    assert len(publisher.asked) == 1, "a file that is there and right is not fetched again"


def test_only_the_named_members_leave_the_archive(publisher: Publisher, tmp_path: Path) -> None:
    extra = {"../../escaped.csv": b"x", "/etc/escaped.csv": b"y", "notes/readme.txt": b"z"}
    source = archive(
        publisher, extra | {"folder/Table.csv": TABLE, "../../IDS_mapping.csv": LABELS}
    )
    into = tmp_path / "a" / "b" / "into"
    files = fetch(source, into)
    assert [file.read_bytes() for file in files] == [TABLE, LABELS]
    assert names_in(into) == {"table.csv", "IDs_mapping.csv"}
    assert [path.name for path in tmp_path.rglob("*.csv")].count("escaped.csv") == 0


@pytest.mark.parametrize("lengths", [True, False])
def test_an_interrupted_download_goes_on_where_it_ended(
    publisher: Publisher, tmp_path: Path, lengths: bool
) -> None:
    source = one_file(publisher)
    publisher.lengths = lengths
    publisher.cut_after = [len(TABLE) // 2] if lengths else []
    assert fetch(source, tmp_path, pause_seconds=0)[0].read_bytes() == TABLE
    expected = ["", f"bytes={len(TABLE) // 2}-"] if lengths else [""]
    assert publisher.asked == expected
    assert names_in(tmp_path) == {"renamed.csv"}


def test_a_later_call_resumes_what_an_earlier_one_left(
    publisher: Publisher, tmp_path: Path
) -> None:
    source = one_file(publisher)
    publisher.cut_after = [1_000, 1_000, 1_000, 1_000, 1_000]
    with pytest.raises(FetchError, match=r"ended after 5000 of .*--from DIR"):
        fetch(source, tmp_path, pause_seconds=0)
    assert (tmp_path / "table.csv.part").read_bytes() == TABLE[:5_000]
    fetch(source, tmp_path, pause_seconds=0)
    assert publisher.asked[-1] == "bytes=5000-"
    assert names_in(tmp_path) == {"renamed.csv"}


def test_a_server_that_cannot_resume_starts_again(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    publisher.ranges = False
    publisher.cut_after = [len(TABLE) // 2]
    assert fetch(source, tmp_path, pause_seconds=0)[0].read_bytes() == TABLE


def test_a_damaged_part_file_is_thrown_away(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    (tmp_path / "table.csv.part").write_bytes(b"of something else")
    assert fetch(source, tmp_path, pause_seconds=0)[0].read_bytes() == TABLE
    assert publisher.asked == ["bytes=17-", ""]


def test_a_part_file_that_is_too_long_is_thrown_away(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    (tmp_path / "table.csv.part").write_bytes(TABLE + b"more")
    assert fetch(source, tmp_path, pause_seconds=0)[0].read_bytes() == TABLE


def test_a_server_that_continues_elsewhere_is_not_believed(
    publisher: Publisher, tmp_path: Path
) -> None:
    source = one_file(publisher)
    publisher.cut_after, publisher.misplaced = [1_000], 8
    with pytest.raises(FetchError, match="continued at another place"):
        fetch(source, tmp_path, pause_seconds=0)
    assert (tmp_path / "table.csv.part").read_bytes() == TABLE[:1_000]


def test_a_redirect_never_leaves_encryption() -> None:
    secure = Request("https://publisher.example/table.csv")
    headers = HTTPMessage()
    redirects = _NoDowngrade()
    with io.BytesIO() as body, pytest.raises(HTTPError, match="refused") as caught:
        redirects.redirect_request(secure, body, 302, "Found", headers, "http://store.example/x")
    caught.value.close()
    followed = redirects.redirect_request(
        secure, io.BytesIO(), 302, "Found", headers, "https://store.example/x"
    )
    assert followed is not None
    assert followed.full_url == "https://store.example/x"


def test_a_busy_publisher_is_asked_again(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    publisher.statuses = [503, 429]
    fetch(source, tmp_path, pause_seconds=0)
    assert len(publisher.asked) == 3


def test_a_publisher_that_refuses_is_asked_once(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    publisher.statuses = [403, 403]
    with pytest.raises(FetchError, match=r"HTTP 403 .*--from DIR"):
        fetch(source, tmp_path, pause_seconds=0)
    assert len(publisher.asked) == 1


def test_an_unreachable_publisher(tmp_path: Path) -> None:
    source = source_of("http://127.0.0.1:9/table.csv", pinned("table.csv", TABLE))
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/table\.csv cannot be fetched .*--from"):
        fetch(source, tmp_path, pause_seconds=0)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_only_http_is_spoken(publisher: Publisher, tmp_path: Path, url: str) -> None:
    source = one_file(publisher)
    with pytest.raises(FetchError):
        fetch(replace(source, url=url), tmp_path, pause_seconds=0)
    publisher.redirect = url
    with pytest.raises(FetchError):
        fetch(source, tmp_path, pause_seconds=0)
    assert not list(tmp_path.iterdir())


def test_the_wrong_contents_never_get_the_final_name(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    publisher.body = TABLE[:-2] + b"X\n"
    got = hashlib.sha256(publisher.body).hexdigest()
    with pytest.raises(FetchError, match=r"renamed\.csv of a-set .*--from DIR") as caught:
        fetch(source, tmp_path, pause_seconds=0)
    for part in (source.files[0].sha256, got, source.edition):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lengths", [True, False])
def test_a_larger_edition_is_not_received(
    publisher: Publisher, tmp_path: Path, lengths: bool
) -> None:
    source = one_file(publisher)
    publisher.body, publisher.lengths = TABLE * 40, lengths
    with pytest.raises(FetchError, match="not the pinned edition: expected 550000 bytes"):
        fetch(source, tmp_path, pause_seconds=0)
    assert not list(tmp_path.iterdir())


def test_an_archive_of_another_edition(publisher: Publisher, tmp_path: Path) -> None:
    source = archive(publisher, {"table.csv": TABLE + b"new row\n", "IDs_mapping.csv": LABELS})
    with pytest.raises(FetchError, match=r"table\.csv of a-set is not the pinned edition"):
        fetch(source, tmp_path, pause_seconds=0)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_lacks_a_file(publisher: Publisher, tmp_path: Path) -> None:
    source = archive(publisher, {"table.csv": TABLE})
    with pytest.raises(FetchError, match=r"lacks IDs_mapping\.csv"):
        fetch(source, tmp_path, pause_seconds=0)


def test_a_login_page_instead_of_an_archive(publisher: Publisher, tmp_path: Path) -> None:
    source = archive(publisher, {})
    publisher.body = b"<html>please log in</html>"
    with pytest.raises(FetchError, match=r"damaged or no \.zip"):
        fetch(source, tmp_path, pause_seconds=0)


def test_a_corrupted_archive(publisher: Publisher, tmp_path: Path) -> None:
    source = archive(publisher, {"table.csv": TABLE, "IDs_mapping.csv": LABELS})
    half = len(publisher.body) // 2
    publisher.body = publisher.body[:half] + b"\0" * 64 + publisher.body[half + 64 :]
    with pytest.raises(FetchError):
        fetch(source, tmp_path, pause_seconds=0)
    assert "table.csv" not in names_in(tmp_path)


@pytest.mark.parametrize("subfolder", ["", "a_set"])
def test_copies_are_taken_from_a_folder(
    publisher: Publisher, tmp_path: Path, subfolder: str
) -> None:
    source = archive(publisher, {})
    origin = tmp_path / "origin"
    (origin / subfolder).mkdir(parents=True)
    (origin / subfolder / "table.csv").write_bytes(TABLE)
    (origin / subfolder / "IDS_mapping.csv").write_bytes(LABELS)
    files = fetch(source, tmp_path / "into", origin=origin)
    assert [file.read_bytes() for file in files] == [TABLE, LABELS]
    assert publisher.asked == []


def test_a_publisher_s_archive_in_the_folder_will_do(publisher: Publisher, tmp_path: Path) -> None:
    source = archive(publisher, {"table.csv": TABLE, "IDs_mapping.csv": LABELS})
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a+set.zip").write_bytes(publisher.body)
    assert len(fetch(source, tmp_path / "into", origin=origin)) == 2
    assert publisher.asked == []


def test_a_copy_with_the_wrong_hash_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    source = one_file(publisher)
    (tmp_path / "renamed.csv").write_bytes(b"not it")
    with pytest.raises(FetchError, match=r"renamed\.csv of a-set is not the pinned edition"):
        fetch(source, tmp_path / "into", origin=tmp_path)
    assert not list((tmp_path / "into").iterdir())


def test_a_folder_without_the_files_says_which(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"lacks renamed\.csv of a-set .*a_set/"):
        fetch(one_file(publisher), tmp_path / "into", origin=tmp_path)
    with pytest.raises(FetchError, match="no such folder"):
        fetch(one_file(publisher), tmp_path / "into", origin=tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match="cannot be written"):
        fetch(one_file(publisher), tmp_path / "file")


@needs_real_files
@pytest.mark.parametrize("name", NAMES)
def test_real_copies_pass_for_the_pinned_edition(name: str, tmp_path: Path) -> None:
    files = fetch(PUBLIC[name].source, tmp_path, origin=REAL)
    assert [file.name for file in files] == [file.name for file in PUBLIC[name].source.files]
