"""Mappings are proposed from names and values, measured on real-looking exports, and show no value.

`site_exports.txt` holds the headers and the mappings that a person would choose. The rules and the
threshold were made with the exports called "tuned"; those called "held out" were written when both
were fixed. The "published" ones have names that others chose: CMS (Chronic Conditions Warehouse,
data dictionary of carrier claims) and the Tuva Project (input layer, medical_claim).
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.columns import values_among
from data_contracts.mapping.column_names import identifier_in, resemblance, words
from data_contracts.mapping.proposal import Proposal, propose, to_commented_toml
from data_contracts.mapping.spellings import CODE_SPELLINGS, LABELS, SPELLINGS
from data_contracts.mapping.table_mapping import TableMapping, code_list
from data_contracts.readers.findings import ReaderError

TABLES = ("pa_request", "pa_decision", "claim_payment", "clinical_outcome")
REQUEST, DECISION = CONTRACTS["pa_request"], CONTRACTS["pa_decision"]
PLANTED = "Zaphod9Secret"  # planted in values; nothing that is shown may hold it


@dataclass
class Export:
    """A system's export and its true mapping.

    Attributes:
        system: What wrote it.
        table: Contract that it feeds.
        use: "tuned", "held out" or "published".
        truth: Column -> field, "ignore" or "-".
        values: Column -> distinct values.
        codes: Column -> value -> code, where the contract has another ("?" for none).
    """

    system: str
    table: str
    use: str
    truth: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def sample(self) -> pl.DataFrame:
        return sample(**self.values)

    def proposals(self) -> tuple[Proposal, ...]:
        return propose(self.sample, CONTRACTS[self.table].schema, source=self.system)


def sample(**values: list[str]) -> pl.DataFrame:
    rows = max(map(len, values.values()))
    padded = {name: (of + [None] * rows)[:rows] for name, of in values.items()}  # type: ignore[list-item]
    return pl.DataFrame(padded, schema=dict.fromkeys(values, pl.String))


def exports() -> Iterator[Export]:
    export = None
    lines = (Path(__file__).parent / "site_exports.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("== "):
            if export:
                yield export
            export = Export(*line.removeprefix("== ").split(" | "))
        elif export and line:
            name, export.truth[name], cells = line.split(" | ", 2)
            pairs = [cell.strip().partition("=") for cell in cells.split(" ; ")]
            export.values[name] = [value for value, _, _ in pairs]
            export.codes[name] = {value: code for value, equals, code in pairs if equals}
    assert export
    yield export


EXPORTS = list(exports())


def one(frame: pl.DataFrame, column: str, table: str = "pa_request") -> Proposal:
    return {p.column: p for p in propose(frame, CONTRACTS[table].schema, source="t.csv")}[column]


def proposed_fields(proposals: tuple[Proposal, ...]) -> dict[str, str]:
    return {p.column: p.field for p in proposals if p.confident and p.field}


# --- how good proposals are --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "precision", "recall"),
    [("tuned", 0.95, 0.95), ("held out", 0.95, 0.80), ("published", 0.85, 0.65)],
)
def test_confident_proposals_are_mostly_right_and_find_most_fields(
    use: str, precision: float, recall: float
) -> None:
    right = proposed = wanted = 0
    for export in EXPORTS:
        if export.use == use:
            found = proposed_fields(export.proposals())
            right += sum(export.truth[column] == name for column, name in found.items())
            proposed += len(found)
            wanted += sum(truth not in ("ignore", "-") for truth in export.truth.values())
    assert right / proposed >= precision, f"{right} of {proposed} proposals are right"
    assert right / wanted >= recall, f"{right} of {wanted} fields are found"


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: f"{export.system}, {export.table}")
def test_every_identifier_is_proposed_to_be_ignored_and_no_field_is(export: Export) -> None:
    ignored = {p.column for p in export.proposals() if p.ignore}
    assert ignored >= {column for column, truth in export.truth.items() if truth == "ignore"}
    assert {export.truth[column] for column in ignored} <= {"ignore", "-"}


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: f"{export.system}, {export.table}")
def test_codes_of_a_field_that_is_found_are_right(export: Export) -> None:
    for proposal in export.proposals():
        if export.truth[proposal.column] == proposal.field:
            code_of = {value: code for code, of in proposal.codes.items() for value in of}
            code_of |= dict.fromkeys(proposal.unknown_codes, "?")
            expected = export.codes[proposal.column]
            if max(map(len, expected), default=0) > 24:
                expected = {}  # values so long are not shown
            assert code_of == {value: code for value, code in expected.items() if value != code}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_with_the_contracts_own_names_is_mapped_onto_itself(
    texts: Mapping[str, pl.DataFrame], table: str
) -> None:
    found = proposed_fields(propose(texts[table], CONTRACTS[table].schema, source="t.csv"))
    assert found == {name: name for name in texts[table].columns}


@pytest.mark.parametrize(
    ("names", "field", "values"),
    [
        ("DX{}", "dx_other", ["E11.9", "I10", "N18.30"]),
        ("ICD_DX_CD_{:02}", "dx_other", ["E11.9", "I10", "N18.30"]),
        ("diagnosis_code_{}", "dx_other", ["E119", "I10", "N1830"]),
        ("ICD10_DIAG_{}", "dx_other", ["E119", "I10", "N1830"]),
    ],
)
def test_the_first_of_numbered_diagnoses_is_the_principal_and_the_others_are_one_list(
    names: str, field: str, values: list[str]
) -> None:
    columns = [names.format(number) for number in range(1, 13)]
    found = proposed_fields(
        propose(sample(**dict.fromkeys(columns, values)), REQUEST.schema, source="t.csv")
    )
    assert found == {columns[0]: "dx_principal", **dict.fromkeys(columns[1:], field)}


def test_numbered_modifiers_are_one_list_and_stand_so_in_site_toml() -> None:
    table = sample(CPT=["72148"], MOD1=["LT"], MOD2=["26"], MOD_3=["59"], DX=["I10"])
    proposals = propose(table, REQUEST.schema, source="t.csv")
    found = proposed_fields(proposals)
    assert [found.get(name) for name in ("MOD1", "MOD2", "MOD_3")] == ["modifier"] * 3
    read = tomllib.loads(to_commented_toml(proposals, REQUEST, "t.csv"))
    columns = read["tables"]["pa_request"]["columns"]
    assert columns["modifier"] == ["MOD1", "MOD2", "MOD_3"]
    assert columns["dx_principal"] == "DX"


# --- what decides ------------------------------------------------------------------------------


def test_values_that_do_not_fit_take_the_confidence_from_a_good_name() -> None:
    fitting = one(sample(CPT_CODE=["72148", "J1745"]), "CPT_CODE")
    assert (fitting.field, fitting.confident) == ("procedure_code", True)
    assert fitting.reason == "a usual name; 100% of 2 distinct values fit"
    # 0.4 of a score comes from the name alone, 0.6 from values: 0.4 + 0.6 / 3 of three.
    doubtful = one(sample(CPT_CODE=["72148", "MRI lumbar", "Infliximab"]), "CPT_CODE")
    assert (doubtful.field, doubtful.confident) == ("procedure_code", False)
    assert doubtful.score == pytest.approx(0.6)
    assert doubtful.reason == "a usual name; 33% of 3 distinct values fit"


def test_a_number_outside_the_declared_range_fits_half() -> None:
    # risk_score is declared from 0 to 6, and negative scores break the contract.
    proposal = one(sample(RAF_SCORE=["0.8", "5", "12", "-1"]), "RAF_SCORE")
    assert proposal.score == pytest.approx(0.4 + 0.6 * (1 + 1 + 0.5 + 0) / 4)


def test_an_empty_column_is_mapped_by_its_name() -> None:
    proposal = one(sample(CPT=["72148"], NDC=[]), "NDC")
    assert (proposal.field, proposal.confident) == ("ndc", True)
    assert proposal.reason == "a usual name; no values to see"


def test_a_field_has_one_column_and_a_second_one_as_good_makes_it_doubtful() -> None:
    frame = sample(CPT=["72148"], HCPCS=["J1745"])
    proposals = propose(frame, REQUEST.schema, source="t.csv")
    assert [p.field for p in proposals] == ["procedure_code", None]
    assert not proposals[0].confident
    assert proposals[0].reason.endswith('; "HCPCS" is as near')


@pytest.mark.parametrize("name", ["DIAG_CD_2", "dx2", "ICD10_CM_3"])
def test_a_number_in_a_name_tells_columns_apart(name: str) -> None:
    assert one(sample(**{"DX1": ["I10"], name: ["E119"]}), name).field == "dx_other"
    # One word of two is shared; a number weighs as much as two words: 2 * 1 / (3 + 3).
    assert resemblance(words("DX1"), words("DX_2")) == pytest.approx(1 / 3)


def test_an_x12_element_before_a_name_counts_by_itself_and_the_words_after_it_do_too() -> None:
    frame = sample(
        TRN02_Token=["0f3a9c1e77b2d455"],
        UM06_HasteOfTheReviewAskedFor=["U"],
        HI01_2_Diagnosis=["I10"],
        HI02_2_Diagnosis=["E119"],
    )
    assert proposed_fields(propose(frame, REQUEST.schema, source="t.csv")) == {
        "TRN02_Token": "request_token",
        "UM06_HasteOfTheReviewAskedFor": "level_of_service",
        "HI01_2_Diagnosis": "dx_principal",
        "HI02_2_Diagnosis": "dx_other",
    }


@pytest.mark.parametrize(
    "values",
    [
        ["123-45-6789"],
        ["(305) 555-0134", "305-555-0178"],
        ["a.b@example.org"],
        ["https://example.org/a"],
        ["10.0.0.1"],
        ["1EG4-TE5-MK73"],  # the example of CMS for a Medicare Beneficiary Identifier
        ["1497758544"],  # ten digits from 1 or 2, as NPIs are
        ["2024-03-01", "20240301", "3/1/2024", "01-Mar-2024", "2024-03-01T10:11:12Z"],
    ],
)
def test_values_like_an_identifiers_are_ignored_whatever_the_columns_name(
    values: list[str],
) -> None:
    proposal = one(sample(CPT=["72148"], QUANTITY=values), "QUANTITY")
    assert (proposal.ignore, proposal.field) == (True, None)
    assert proposal.reason.endswith(", by its values")


def test_a_first_line_that_is_no_header_is_thought_of_and_not_repeated() -> None:
    frame = sample(**{PLANTED: ["x"], "E11.9": ["y"]})
    with pytest.raises(ReaderError, match=r"t\.csv: no column resembles .* header") as caught:
        propose(frame, REQUEST.schema, source="t.csv")
    assert PLANTED not in str(caught.value)


# --- what is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: f"{export.system}, {export.table}")
def test_the_block_is_toml_and_maps_the_sample_once_the_rest_is_ignored(export: Export) -> None:
    contract = CONTRACTS[export.table]
    proposals = export.proposals()
    block = to_commented_toml(proposals, contract, "export.csv", separator=";")
    section = tomllib.loads(block)["tables"][export.table]
    mapping = TableMapping.parse(section, export.table, Path("/site/site.toml"))
    assert (mapping.path, mapping.separator) == (Path("/site/export.csv"), ";")
    assert {
        column: name for name, columns in mapping.columns.items() for column in columns
    } == proposed_fields(proposals)
    section["ignore"] += [p.column for p in proposals if not p.confident]
    mapping = TableMapping.parse(section, export.table, Path("/site/site.toml"))
    mapped = mapping.apply(export.sample.lazy(), contract.schema, source="t.csv").collect()
    for name, codes in mapping.codes.items():
        assert set(mapped[name].drop_nulls()) >= set(codes)
        unknown = [p.unknown_codes for p in proposals if p.field == name]
        allowed = {*code_list(contract.schema.columns()[name]), *unknown[0]}
        assert set(mapped[name].drop_nulls()) <= allowed


def test_a_doubtful_column_of_a_list_is_commented_out_alone() -> None:
    frame = sample(
        DX1=["I10"], DX2=["E11.9", "I10"], DX3=["N18.30", "E11.9"], DX4=["x y", "none", "?", "I10"]
    )
    block = to_commented_toml(propose(frame, REQUEST.schema, source="t.csv"), REQUEST, "t.csv")
    assert 'dx_other = ["DX2", "DX3"]  # 1.00: a usual name; 100%' in block
    assert '\n# dx_other = "DX4"  # 0.55: a usual name; 25% of 4' in block


def test_values_that_look_like_somebody_are_not_shown_among_codes() -> None:
    frame = sample(
        DX=["I10"], UOM=["days", "visits", "hours", "Jane Doe", "123-45-6789", "pallets"]
    )
    proposal = one(frame, "UOM")
    assert proposal.unknown_codes == ("pallets",)
    assert not proposal.confident
    assert "Jane" not in to_commented_toml((proposal,), REQUEST, "t.csv")


def test_doubtful_lines_are_commented_out_and_what_is_left_to_a_person_is_listed() -> None:
    frame = sample(
        SSN=["123-45-6789"],
        DECISION=["Approved", "Denied", "XX"],
        REVIEW_DISPOSITION=["CT"],
        TURNAROUND=["3"],
        FOO=["x"],
    )
    proposals = propose(frame, DECISION.schema, source="t.csv")
    assert to_commented_toml(proposals, DECISION, "d.csv").splitlines()[3:] == [
        "[tables.pa_decision]",
        'path = "d.csv"',
        "ignore = [",
        '    "SSN",  # looks like class G, Social Security numbers',
        "]",
        "# Not recognized; map each one onto a field, or add it to ignore:",
        '#   "REVIEW_DISPOSITION"',
        '#   "FOO"',
        "",
        "[tables.pa_decision.columns]",
        'action_code = "DECISION"  # 0.80: a usual name; 67% of 3 distinct values fit',
        '# decision_hours = "TURNAROUND"  # 0.67: name 67% alike; 100% of 1 distinct values fit',
        "",
        "[tables.pa_decision.codes.action_code]",
        'A1 = ["Approved"]',
        'A3 = ["Denied"]',
        '# No code is known for "XX": such rows break the contract.',
        "",
        "# Required, and not found for certain; if it is the same on every row:",
        "# [tables.pa_decision.constants]",
        '# exchange_seq = ""',
        '# decision_hours = ""',
    ]


def test_no_value_is_shown_but_short_ones_of_a_column_with_few_codes_mostly_understood() -> None:
    frame = sample(
        CPT=[PLANTED, "72148"],
        NETWORK_STATUS=["PAR", "NONPAR", PLANTED],
        CHANNEL=["Fax", "Portal", f"{PLANTED} and more than 24"],
        LOB=["Medicare", *(f"{PLANTED}{number}" for number in range(3))],
        CLAIM_TYPE=["Dental"] * 40,
        PRIORITY=["Routine", "Urgent", *("U" + " " * n + "rgent" for n in range(1, 2))],
        FOO=[PLANTED],
    )
    proposals = propose(frame, REQUEST.schema, source="t.csv")
    of = {p.column: p for p in proposals}
    assert of["NETWORK_STATUS"].unknown_codes == (PLANTED,)  # two of three are understood
    assert (of["CHANNEL"].codes, of["CHANNEL"].unknown_codes) == ({}, ())  # a value is long
    assert (of["LOB"].codes, of["LOB"].unknown_codes) == (
        {},
        (),
    )  # three of four are not understood
    assert of["CLAIM_TYPE"].codes == {"oral": ("Dental",)}
    block = to_commented_toml([p for p in proposals if p.column != "NETWORK_STATUS"], REQUEST, "t")
    assert PLANTED not in block


@pytest.mark.parametrize(("distinct", "shown"), [(20, True), (21, False)])
def test_values_of_a_column_with_many_of_them_are_not_shown(distinct: int, shown: bool) -> None:
    # Case and punctuation do not matter to what a value means, so that many mean the same.
    urgent = ["stat" + "." * number for number in range(distinct)]
    proposal = one(sample(PRIORITY=urgent), "PRIORITY")
    assert proposal.codes == ({"U": tuple(sorted(urgent))} if shown else {})
    assert proposal.confident == shown  # without its codes the line would be of no use
    assert proposal.reason.endswith("too many or too long to show as codes") != shown


def test_names_and_codes_of_any_characters_are_written_as_toml() -> None:
    name = 'Decision\n"code"\x7f'
    frame = sample(**{name: ['"Approved"\\', "D\ténied", "denied"], "😀": ["x"]})
    proposals = propose(frame, DECISION.schema, source="t.csv")
    block = to_commented_toml(proposals, DECISION, "d\x7f.csv")
    section = tomllib.loads(block)["tables"]["pa_decision"]
    assert section["path"] == "d\x7f.csv"
    assert section["columns"] == {"action_code": name}
    assert section["codes"] == {"action_code": {"A1": ['"Approved"\\'], "A3": ["denied"]}}
    assert '# No code is known for "D\\ténied"' in block
    assert "#   column 2 (whose name may be a value)" in block


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: f"{export.system}, {export.table}")
def test_no_name_of_an_export_looks_like_a_value(export: Export) -> None:
    assert values_among(export.truth) == set()


def test_names_that_look_like_values_are_neither_mapped_nor_shown() -> None:
    frame = sample(
        DECISION=["Approved"], JANE=["x"], **{"Decision 03/15/2024": ["Denied"], "SMITH": ["y"]}
    )
    proposals = propose(frame, DECISION.schema, source="t.csv")
    assert proposed_fields(proposals) == {"DECISION": "action_code"}
    block = to_commented_toml(proposals, DECISION, "d.csv")
    for place in (2, 3, 4):
        assert f"#   column {place} (whose name may be a value)\n" in block
    assert not any(name in block for name in ("JANE", "2024", "SMITH"))


def test_a_code_that_is_no_bare_key_is_quoted() -> None:
    frame = sample(SEX=["F"], AGE_GROUP=["90+ ", "0 9"])
    proposals = propose(frame, CONTRACTS["clinical_outcome"].schema, source="t.csv")
    section = tomllib.loads(to_commented_toml(proposals, CONTRACTS["clinical_outcome"], "t.csv"))[
        "tables"
    ]["clinical_outcome"]
    assert section["codes"] == {"sex": {"female": ["F"]}, "age_band": {"0-9": ["0 9"]}}


# --- the spellings themselves ------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_no_spelling_stands_for_two_fields_of_a_table_or_names_an_identifier(table: str) -> None:
    columns = CONTRACTS[table].schema.columns()
    assert set(columns) <= set(SPELLINGS)
    field_of: dict[frozenset[str], str] = {}
    for name in columns:
        for phrase in (name, *SPELLINGS[name]):
            assert identifier_in(phrase) is None, phrase
            assert field_of.setdefault(frozenset(words(phrase)), name) == name, phrase


def test_every_spelling_of_a_code_is_understood_as_that_code() -> None:
    for name, spellings in [*CODE_SPELLINGS.items(), *LABELS.items()]:
        table = next(t for t in TABLES if name in CONTRACTS[t].schema.columns())
        for code, said in spellings.items():
            for word in [said] if isinstance(said, str) else said:
                if len(word) <= 24 and word != code:
                    assert one(sample(**{name: [word]}), name, table).codes == {code: (word,)}
