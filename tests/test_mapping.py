"""A site's own columns and codes become the contract's, lazily; what does not fit is refused."""

import os
import tomllib
from pathlib import Path

import polars as pl
import pytest

from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.columns import UnknownColumnError
from data_contracts.intake import read_tables
from data_contracts.manifest import ManifestError, SiteManifest
from data_contracts.mapping.table_mapping import TableMapping
from data_contracts.readers.tabular import scan

REQUEST, DECISION = CONTRACTS["pa_request"].schema, CONTRACTS["pa_decision"].schema
SOURCE = "site site-1, table pa_request (requests.csv)"
TOKEN = "0f3a9c1e77b2d455"  # noqa: S105 - made up
PLANTED = "Zaphod9Secret"  # planted in data and values; no message may hold it
FILE = Path("/site/site.toml")

SECTION = """
[tables.pa_request]
path = "requests.csv"
separator = ";"
encoding = "utf8"
ignore = ["INTERNAL_NOTE", ""]
[tables.pa_request.columns]
procedure_code = "PROC_CD"
policy_id = "GROUP"
reviewer = "GROUP"
[tables.pa_request.codes.network_status]
in = ["PAR", "IN NETWORK"]
out = ["NONPAR"]
[tables.pa_request.constants]
channel = "X12"
item_sequence = 1
eligibility_verified = true
"""


def parse(text: str, table: str = "pa_request", file: Path = FILE) -> TableMapping:
    return TableMapping.parse(tomllib.loads(text)["tables"][table], table, file)


def mapping(body: str) -> TableMapping:
    return parse(f'[tables.pa_request]\npath = "requests.csv"\n{body}')


def columns(**of: str) -> str:
    lines = (f'{field} = "{column}"\n' for field, column in of.items())
    return f"[tables.pa_request.columns]\n{''.join(lines)}"


def frame(**values: object) -> pl.LazyFrame:
    return pl.LazyFrame({name: [value] for name, value in values.items()})


# --- what is read ------------------------------------------------------------------------------


def test_a_section_says_where_the_file_is_and_what_its_columns_and_codes_mean() -> None:
    assert parse(SECTION) == TableMapping(
        path=Path("/site/requests.csv"),
        separator=";",
        ignore=("INTERNAL_NOTE", ""),
        columns={"procedure_code": ("PROC_CD",), "policy_id": ("GROUP",), "reviewer": ("GROUP",)},
        codes={"network_status": {"in": ("PAR", "IN NETWORK"), "out": ("NONPAR",)}},
        constants={"channel": "X12", "item_sequence": 1, "eligibility_verified": True},
    )


@pytest.mark.parametrize("text", [SECTION, '[tables.pa_request]\npath = "../t.parquet"\n'])
def test_a_section_that_is_written_reads_the_same(text: str) -> None:
    read = parse(text)
    section = read.section(lambda path: os.path.relpath(path, FILE.parent))
    assert TableMapping.parse(section, "pa_request", FILE) == read


def test_columns_are_renamed_codes_translated_and_constants_added() -> None:
    text = columns(procedure_code="PROC_CD", network_status="PAR_IND")
    text += '[tables.pa_request.codes.network_status]\nin = ["PAR ", "IN"]\nout = ["NP"]\n'
    text += '[tables.pa_request.constants]\nchannel = "X12"\nitem_sequence = 1\n'
    site = pl.LazyFrame(
        {
            "PAR_IND": ["PAR", " NP ", None, "par", "out"],
            "PROC_CD": ["72148", "J1745", " 70551", None, "E0601"],
            "modifier": ["LT|26", None, None, None, None],
            "NOTE": [PLANTED] * 5,
        }
    )
    read = mapping(f'ignore = ["NOTE", "NOT IN THIS EXPORT"]\n{text}')
    table = read.apply(site, REQUEST, source=SOURCE).collect()
    assert table.to_dict(as_series=False) == {
        "modifier": ["LT|26", None, None, None, None],
        "procedure_code": ["72148", "J1745", " 70551", None, "E0601"],
        # Blanks do not matter; case does; what is not listed stays, for the contract to refuse.
        "network_status": ["in", "out", None, "par", "out"],
        "channel": ["X12"] * 5,
        "item_sequence": [1] * 5,
    }


def test_a_list_may_lie_in_several_columns() -> None:
    site = pl.LazyFrame(
        {
            "DX1": ["M54.5", "I10", "I10", "I10"],
            "DX2": ["E11.9", None, "", None],
            "DX3": [" I10 ", "N18.30", None, " "],
            "MOD": [26, None, None, 50],
        }
    )
    text = 'dx_principal = "DX1"\ndx_other = ["DX2", "DX3"]\nmodifier = ["MOD"]\n'
    read = mapping(f"[tables.pa_request.columns]\n{text}")
    table = read.apply(site, REQUEST, source=SOURCE).collect()
    assert table["dx_other"].to_list() == ["E11.9|I10", "N18.30", None, None]
    assert table["modifier"].to_list() == [26, None, None, 50]
    assert TableMapping.parse(read.section(str), "pa_request", FILE).columns == read.columns


@pytest.mark.parametrize("field", ["dx_principal", "patient_token", "quantity", "channel"])
def test_only_a_list_of_codes_may_lie_in_several_columns(field: str) -> None:
    read = mapping(f'[tables.pa_request.columns]\n{field} = ["A", "B"]\n')
    with pytest.raises(ManifestError, match=f"{field} has one column; only a list of codes"):
        read.apply(frame(A="1", B="2"), REQUEST, source=SOURCE)


def test_a_column_with_a_fields_own_name_may_have_codes_and_one_column_may_feed_two_fields() -> (
    None
):
    text = columns(policy_id="GROUP", payer_id="GROUP")
    text += '[tables.pa_request.codes.channel]\nfax = ["F"]\n'
    table = mapping(text).apply(frame(GROUP="a", channel="F"), REQUEST, source=SOURCE).collect()
    assert table.row(0, named=True) == {"channel": "fax", "payer_id": "a", "policy_id": "a"}


def test_flags_and_pseudonyms_have_codes_too() -> None:
    text = columns(eligibility_verified="ELIG", payer_id="PLAN")
    text += '[tables.pa_request.codes.eligibility_verified]\ntrue = ["ACTIVE"]\nfalse = ["TERM"]\n'
    text += '[tables.pa_request.codes.payer_id]\npayer-a = ["00123"]\n'
    table = mapping(text).apply(frame(ELIG="TERM", PLAN="00123"), REQUEST, source=SOURCE).collect()
    assert table.row(0, named=True) == {"eligibility_verified": "false", "payer_id": "payer-a"}


def test_codes_that_a_typed_file_holds_as_numbers_are_the_codes_written_like_them() -> None:
    text = columns(certification_type="UM02", network_status="PAR")
    text += '[tables.pa_request.codes.network_status]\nin = ["1"]\nout = ["0"]\n'
    site = pl.LazyFrame({"UM02": [3, 1], "PAR": [0, 1]})
    table = mapping(text).apply(site, REQUEST, source=SOURCE).collect()
    assert table["certification_type"].to_list() == ["3", "1"]
    assert table["network_status"].to_list() == ["out", "in"]


def test_an_ignored_column_is_not_even_looked_at(tmp_path: Path) -> None:
    def look(_: pl.Series) -> pl.Series:
        raise AssertionError("an ignored column was read")

    read = mapping(f'ignore = ["NOTE"]\n{columns(procedure_code="PROC")}')
    site = frame(PROC="72148", NOTE=PLANTED)
    watched = site.with_columns(pl.col("NOTE").map_batches(look, return_dtype=pl.String))
    assert read.apply(watched, REQUEST, source=SOURCE).collect().row(0) == ("72148",)
    site.collect().write_parquet(tmp_path / "t.parquet")
    plan = read.apply(scan(tmp_path / "t.parquet"), REQUEST, source=SOURCE).explain()
    assert "PROJECT 1/2 COLUMNS" in plan
    site.collect().write_csv(tmp_path / "t.csv")
    text = scan(tmp_path / "t.csv", ignore=read.ignore)
    assert "PROJECT 1/2 COLUMNS" in read.apply(text, REQUEST, source=SOURCE).explain()


def test_no_row_is_read_while_a_mapping_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(pl.LazyFrame, "collect", never)
    mapping(columns(procedure_code="P")).apply(frame(P="72148"), REQUEST, source=SOURCE)


def test_a_mapped_file_gives_the_table_that_a_file_with_the_contracts_names_gives(
    texts: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    plain = texts["pa_decision"]
    plain.write_csv(tmp_path / "plain.csv")
    words = {"A1": "APPROVED", "A2": "PARTIAL", "A3": "DENIED", "A4": "PEND", "A6": "MODIFIED"}
    own = plain.with_columns(pl.col("action_code").replace(words), NOTE=pl.lit(PLANTED))
    own = own.rename({"action_code": "DECISION", "decision_hours": "TAT HRS"})
    section = '[tables.pa_decision]\npath = "own.csv"\nignore = ["NOTE"]\n'
    section += '[tables.pa_decision.columns]\naction_code = "DECISION"\n'
    section += 'decision_hours = "TAT HRS"\n[tables.pa_decision.codes.action_code]\n'
    section += "".join(f'{code} = ["{word}"]\n' for code, word in words.items())
    read = parse(section, "pa_decision")
    read.apply(own.lazy(), DECISION, source=SOURCE).collect().write_csv(tmp_path / "mapped.csv")
    plain_table, mapped_table = (
        read_tables(SiteManifest("site-1", "provider", {"pa_decision": path}))["pa_decision"]
        for path in (tmp_path / "plain.csv", tmp_path / "mapped.csv")
    )
    assert set(plain["action_code"]) & set(words)  # the codes were translated, and back
    assert mapped_table.rows.equals(plain_table.rows)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('seperator = ";"', "unknown key 'seperator'; did you mean 'separator'"),
        ('rows = "x"', "unknown key 'rows'; known are path, separator"),
        ('separator = ";;"', "separator must be one ASCII character"),
        ('separator = "é"', "separator must be one ASCII character"),
        ("separator = '\"'", "separator must be one ASCII character, .* no quote"),
        ("separator = 1", "separator must be one ASCII character"),
        ('encoding = "latin1"', 'the only encoding is "utf8"; convert the file, .* iconv'),
        ('ignore = "NOTE"', "ignore must be a list of texts"),
        ("ignore = [1]", "ignore must be a list of texts"),
        ('columns = "a"', "columns must be a section of its own"),
        ("columns = {ndc = 1}", "columns.ndc must be the name of a column"),
        ('columns = {ndc = ""}', "columns.ndc must be the name of a column"),
        ('columns = {dx_other = ["A", ""]}', "columns.dx_other must be the name of a column"),
        ("columns = {dx_other = []}", "columns.dx_other must be the name of a column"),
        ('columns = {dx_other = ["A", "A"]}', "columns.dx_other names a column twice"),
        ("codes = {channel = 1}", "channel must be a section of its own"),
        ('codes = {channel = {fax = "F"}}', "codes.channel.fax must be a list of texts"),
        ("constants = {channel = ['fax']}", "constants.channel must be a text, a number"),
        ("constants = {service_year = 2024-01-01}", "constants.service_year must be a text"),
        (
            'columns = {ndc = "A"}\nconstants = {ndc = "00074433902"}',
            "field ndc stands under columns and under constants",
        ),
        ('ignore = ["A"]\ncolumns = {ndc = "A"}', "column 'A' is ignored and mapped onto ndc"),
    ],
)
def test_a_wrong_key_or_type_is_named(body: str, reason: str) -> None:
    with pytest.raises(ManifestError, match=rf"/site/site.toml: \[tables.pa_request\].*{reason}"):
        mapping(body)


@pytest.mark.parametrize("path", ["", 'path = ""', "path = 3", 'path = "a\\u0000"'])
def test_a_section_needs_a_path(path: str) -> None:
    with pytest.raises(ManifestError, match="needs a path"):
        parse(f"[tables.pa_request]\n{path}\n")


def test_one_value_under_two_codes_is_refused_and_not_repeated() -> None:
    with pytest.raises(ManifestError, match="one value stands under fax and under phone") as caught:
        mapping(f'codes.channel = {{fax = ["F", "{PLANTED}"], phone = ["{PLANTED}"]}}')
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (columns(procedure_cod="A"), "columns names 'procedure_cod', .* mean 'procedure_code'"),
        (columns(patient_tokn="A"), "columns names 'patient_tokn', which is no field .*contract$"),
        ("codes.chanel = {fax = []}", "codes names 'chanel', .* did you mean 'channel'"),
        ("constants.zzz = 1", "constants names 'zzz', which is no field of the contract$"),
        (
            'codes.network_status = {inn = ["A"]}\ncolumns.network_status = "A"',
            "'inn' is no code of field network_status; did you mean 'in'",
        ),
        (
            'codes.network_status = {"9" = ["A"]}\ncolumns.network_status = "A"',
            "'9' is no code of field network_status; codes are in, out",
        ),
        ('constants.channel = "carrier pigeon"', "'carrier pigeon' is no code of field channel"),
        ("constants.eligibility_verified = 2", "'2' is no code of field eligibility_verified"),
        ('codes.payer_id = {"00123" = ["A"]}', "codes.payer_id: a code does not fit"),
        ('codes.quantity = {"1" = ["one"]}', "field quantity holds no codes"),
        ('codes.modifier = {LT = ["left"]}', "field modifier holds no codes"),
        (f'codes.patient_token = {{{TOKEN} = ["A"]}}', "patient_token is a token .* no codes"),
        (f'constants.patient_token = "{TOKEN}"', "patient_token is a token .* no constants"),
        ('columns.ndc = "B"', "column 'B', mapped onto ndc, is not in the file$"),
        (
            'columns.ndc = "A"\ncodes.channel = {fax = ["F"]}',
            "codes of field channel are given, but no column",
        ),
    ],
)
def test_what_does_not_fit_the_contract_or_the_file_is_named(body: str, reason: str) -> None:
    site = frame(A=PLANTED, procedure_code=PLANTED)
    with pytest.raises(ManifestError, match=reason) as caught:
        mapping(body).apply(site, REQUEST, source=SOURCE)
    assert str(caught.value).startswith(f"{SOURCE}: ")
    assert PLANTED not in str(caught.value)


def test_a_mapped_column_that_is_absent_is_likened_to_one_that_is_there() -> None:
    with pytest.raises(
        ManifestError, match=r"'PROC_CODE'.* not in the file; did you mean 'Proc Cd'"
    ):
        mapping(columns(procedure_code="PROC_CODE", ndc="NDC")).apply(
            frame(**{"Proc Cd": "72148", "NDC": "x"}), REQUEST, source=SOURCE
        )


def test_an_ignored_column_is_not_likened_to_one_that_is_missing() -> None:
    read = mapping(f'ignore = ["PROC_CD"]\n{columns(procedure_code="PROC_C", ndc="NDC")}')
    with pytest.raises(ManifestError, match=r"is not in the file$"):
        read.apply(frame(PROC_CD="72148", NDC="x"), REQUEST, source=SOURCE)


@pytest.mark.parametrize("body", [columns(procedure_code="PROC_CD"), "constants.channel = 'fax'"])
def test_a_missing_header_line_is_thought_of_and_its_values_are_not_repeated(body: str) -> None:
    with pytest.raises(
        ManifestError, match=r"no mapped column .* header line is missing"
    ) as caught:
        mapping(body).apply(frame(**{PLANTED: "x", "PROC_CDX": "y"}), REQUEST, source=SOURCE)
    assert PLANTED not in str(caught.value)
    assert "PROC_CDX" not in str(caught.value)


def test_a_column_that_is_neither_mapped_nor_ignored_nor_a_field_fails_the_table() -> None:
    site = frame(PROC="72148", modifier="LT", NOTE=PLANTED, FLAG="x")
    with pytest.raises(
        UnknownColumnError, match="columns 'NOTE', 'FLAG' neither mapped nor"
    ) as caught:
        mapping(columns(procedure_code="PROC")).apply(site, REQUEST, source=SOURCE)
    assert PLANTED not in str(caught.value)


def test_a_column_whose_name_looks_like_a_value_is_told_by_its_place() -> None:
    mapped = mapping(columns(procedure_code="PROC"))
    site = frame(PROC="72148", **{"JANE DOE": "x", "SMITH": "x"})
    with pytest.raises(UnknownColumnError, match=r"columns column 2 \(whose name may be") as caught:
        mapped.apply(site, REQUEST, source=SOURCE)
    assert "column 3 (" in str(caught.value)
    site = frame(modifier="LT", **{"PROC DOE, JANE": "x"})
    with pytest.raises(ManifestError, match=r"'PROC', mapped onto procedure_code, is not in") as no:
        mapped.apply(site, REQUEST, source=SOURCE)
    for message in (str(caught.value), str(no.value)):
        assert not any(name in message.upper() for name in ("JANE", "DOE", "SMITH"))


@pytest.mark.parametrize("name", ["PROC", "modifier"])
def test_a_column_that_stands_twice_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(f"PROC,modifier,{name}\n72148,LT,x\n", encoding="utf-8")
    with pytest.raises(UnknownColumnError, match=f"column '{name}' stands twice"):
        mapping(columns(procedure_code="PROC")).apply(
            scan(tmp_path / "t.csv"), REQUEST, source=SOURCE
        )


@pytest.mark.parametrize(
    ("body", "origin"),
    [(columns(channel="A"), "another column"), ("constants.channel = 'fax'", "a constant")],
)
def test_a_field_that_is_mapped_and_stands_under_its_own_name_is_refused(
    body: str, origin: str
) -> None:
    site = frame(A="fax", channel="fax")
    with pytest.raises(ManifestError, match=f"channel is mapped from {origin}, and the file"):
        mapping(f'ignore = ["A"]\n{body}' if origin == "a constant" else body).apply(
            site, REQUEST, source=SOURCE
        )
    ignoring = mapping(f'ignore = ["channel"]\n{columns(channel="A")}')
    assert ignoring.apply(site, REQUEST, source=SOURCE).collect().row(0) == ("fax",)


@pytest.mark.parametrize(
    "name", ["SSN", "PAT_MRN_ID", "memberId", "BILLING_NPI", "Email", "mbr_nbr", "DOB", "CLAIM_NO"]
)
def test_no_raw_identifier_is_mapped_onto_a_token(name: str) -> None:
    with pytest.raises(ManifestError, match=rf"'{name}' has the name of a raw identifier \("):
        mapping(columns(patient_token=name)).apply(frame(**{name: "1"}), REQUEST, source=SOURCE)


@pytest.mark.parametrize("name", ["MBR_TOKEN", "patHash", "X_PATIENT"])
def test_a_column_of_tokens_may_have_any_other_name(name: str) -> None:
    read = mapping(columns(patient_token=name))
    table = read.apply(frame(**{name: TOKEN}), REQUEST, source=SOURCE).collect()
    assert table.row(0, named=True) == {"patient_token": TOKEN}
