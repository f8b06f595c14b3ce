"""OMOP Common Data Model 5.3 and 5.4: an extract becomes events, and rows of `clinical_outcome`.

The CDM knows of no requests for authorization, so that every episode of inpatient care is followed
from its discharge. It knows of no member id either: tokens of patients link the tables of one site
(and its later extracts, where `person_source_value` is filled), but never two sites.

A stay is planned if its conditions say so (chemotherapy or radiotherapy as its sole reason), and
unplanned otherwise, as in CMS's algorithm, which takes every stay as unplanned that it cannot show
to be planned. Its potentially planned procedures are not looked at: their value sets are CMS's and
change every year.

Source: OHDSI, OMOP CDM 5.4; concept ids of the OHDSI Standardized Vocabularies. ICD-10-CM Official
Guidelines I.C.2.e.2: Z51.0, Z51.11 and Z51.12 are coded where the stay is solely for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl

from data_contracts.deidentification.geography import zip3
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import EVENTS
from data_contracts.readers.findings import Findings, at
from data_contracts.readers.omop import concepts
from data_contracts.readers.omop.tables import CdmTable, open_tables
from data_contracts.readers.outcomes import clinical_outcomes, index_stays, last_seen
from data_contracts.readers.partitions import parted

PATIENTS_PER_PART: Final = 25_000
"""With 30 events of each, a part takes about 120 MB of memory."""

_DEMOGRAPHICS: Final = {
    "sex": ("gender_concept_id", concepts.SEXES),
    "race": ("race_concept_id", concepts.RACES),
    "ethnicity": ("ethnicity_concept_id", concepts.ETHNICITIES),
}

_ZIP: Final = r"^(\d{3}|\d{5}(-?\d{4})?)$"


@dataclass(frozen=True, slots=True)
class OmopEvents:
    """What an extract tells, as lazy frames.

    Attributes:
        person: Events of kind "person" (see `events.py`).
        visit: Events of kind "visit".
        lab: Events of kind "lab".
        observed: `patient_token`, `start_on`, `end_on` of the observation periods; None without.
        cost: `patient_token`, `incurred_on`, `eligible` (USD); None where costs are not all known.
        deaths_known: Whether the extract has a table of deaths.
    """

    person: pl.LazyFrame
    visit: pl.LazyFrame
    lab: pl.LazyFrame
    observed: pl.LazyFrame | None
    cost: pl.LazyFrame | None
    deaths_known: bool


def omop_outcomes(
    folder: Path,
    tokens: Tokens,
    site: str,
    findings: Findings,
    private: Path,
    *,
    patients_per_part: int = PATIENTS_PER_PART,
) -> list[pl.LazyFrame]:
    """`file`, `place` and the columns of `clinical_outcome`: a row per episode of inpatient care.

    `death_90d` is true or null where the extract has no table of deaths: deaths after discharge
    would be missed.

    Memory: that of `read_omop`, and that for the events of one part of the patients.

    Args:
        folder: The extract; see `tables.open_tables`.
        tokens: The network's tokens.
        site: Name of the site, part of every token.
        findings: What is refused, and what is left out of or doubtful in what is kept.
        private: A private folder, in which the events of all patients lie until rows are read.
        patients_per_part: How many patients a part has, about.

    Returns:
        One frame for each part, to be collected one after the other.

    Raises:
        ReaderError: As `read_omop` says; or events cannot be written.
    """
    events = read_omop(folder, tokens, site, findings)
    patients = int(events.person.select(pl.len()).collect(engine="streaming").item())
    parts = -(-patients // patients_per_part)

    def of(kind: str, frame: pl.LazyFrame | None) -> list[pl.LazyFrame] | list[None]:
        return [None] * parts if frame is None else parted(frame, private, kind, parts)

    visits = parted(events.visit, private, "visit", parts)
    labs = parted(events.lab, private, "lab", parts)
    last_day = last_seen(pl.concat(visits), pl.concat(labs)).collect(engine="streaming").item()
    return [
        _outcomes(person, visit, lab, cost, observed, last_day, deaths_known=events.deaths_known)
        for person, visit, lab, cost, observed in zip(
            parted(events.person, private, "person", parts),
            visits,
            labs,
            of("cost", events.cost),
            of("observed", events.observed),
            strict=True,
        )
    ]


def _outcomes(
    person: pl.LazyFrame,
    visit: pl.LazyFrame,
    lab: pl.LazyFrame,
    cost: pl.LazyFrame | None,
    observed: pl.LazyFrame | None,
    last_day: date | None,
    *,
    deaths_known: bool,
) -> pl.LazyFrame:
    rows = clinical_outcomes(index_stays(visit), person, visit, lab, cost, observed, last_day)
    if deaths_known:
        return rows
    return rows.with_columns(pl.when("death_90d").then(True).alias("death_90d"))


def read_omop(folder: Path, tokens: Tokens, site: str, findings: Findings) -> OmopEvents:
    """The events of an OMOP CDM extract; values are checked and counted here, then streamed.

    Memory: identifiers and tokens of all persons, about 200 bytes each, numbers and days of visits
    where costs hang on them, and some hundred megabytes with which polars streams files.

    Args:
        folder: The extract; see `tables.open_tables`.
        tokens: The network's tokens.
        site: Name of the site, part of every token.
        findings: What is refused, and what is left out of or doubtful in what is kept.

    Raises:
        ReaderError: The extract is no OMOP CDM 5.3 or 5.4, or rows are refused (and `on_error` is
            "fail").
    """
    tables = open_tables(folder, findings)
    for name, lost in (
        ("death", "deaths after discharge"),
        ("measurement", "laboratory values"),
        ("condition_occurrence", "planned stays"),
        ("observation_period", "the end of each patient's follow-up (the extract's is taken)"),
        ("cost", "costs"),
        ("location", "ZIP codes"),
    ):
        if name not in tables:
            findings.note(f"OMOP extract without table {name}, or an empty one: {lost} unknown")
    people = _people(tables["person"], tokens, site, findings)
    visits = _visits(tables, tokens, site, people, findings)
    return OmopEvents(
        person=_persons(tables, people, findings),
        visit=visits,
        lab=_labs(tables, people, findings),
        observed=_observed(tables.get("observation_period"), people, findings),
        cost=_costs(tables, people, findings),
        deaths_known="death" in tables,
    )


def _people(person: CdmTable, tokens: Tokens, site: str, findings: Findings) -> pl.DataFrame:
    """`person_id`, `patient_token`, `birth_year`; the site's own identifier if all have one."""
    rows = person.rows.select("person_id", "person_source_value", "year_of_birth").collect()
    ids = rows["person_source_value"]
    if ids.null_count():
        findings.note(
            "OMOP patient told apart by person_id, which a new extract may change", len(ids)
        )
        ids = rows["person_id"].cast(pl.String)
    hashed = pl.Series("patient_token", [tokens.patient(f"omop {site}", one) for one in ids])
    if repeated := len(hashed) - hashed.n_unique():
        raise at(
            person.file,
            "column person_source_value",
            f"{repeated} rows repeat that of another row, so that two persons would be one; merge "
            "them, or leave the column out",
        )
    return rows.select("person_id", hashed, pl.col("year_of_birth").alias("birth_year"))


def _known(
    rows: pl.LazyFrame, people: pl.DataFrame, table: str, findings: Findings
) -> pl.LazyFrame:
    """Rows of persons, with `patient_token`; rows of nobody are counted and left out."""
    strangers = rows.join(people.lazy(), on="person_id", how="anti").select(pl.len())
    _note(findings, strangers, f"OMOP {table} row of a person who is not in table person")
    return rows.join(people.lazy(), on="person_id")


def _note(findings: Findings, count: pl.LazyFrame, what: str) -> None:
    if found := int(count.collect(engine="streaming").item()):
        findings.note(what, found)


def _from(table: CdmTable, name: str) -> tuple[pl.Expr, pl.Expr]:
    """Where a row comes from."""
    return (
        pl.lit(table.file.name).alias("file"),
        pl.format(f"{name} row {{}}", "row").alias("place"),
    )


def _event(rows: pl.LazyFrame, kind: str) -> pl.LazyFrame:
    return rows.select(EVENTS[kind].names()).cast(EVENTS[kind])


def _coded(column: str, words: Mapping[int, str]) -> pl.Expr:
    """A concept as a word of the contract; one that has none there is "unknown", none is null."""
    return pl.when(pl.col(column).is_not_null()).then(_word(column, words, "unknown"))


def _word(column: str, words: Mapping[int, str], default: str | None = None) -> pl.Expr:
    """A concept as a word, batch by batch: polars itself would hold the whole column for it."""

    def replaced(concept: pl.Series) -> pl.Series:
        return concept.replace_strict(words, default=default, return_dtype=pl.String)

    return pl.col(column).map_batches(replaced, return_dtype=pl.String, is_elementwise=True)


def _persons(
    tables: Mapping[str, CdmTable], people: pl.DataFrame, findings: Findings
) -> pl.LazyFrame:
    person, death = tables["person"], tables.get("death")
    for column, words in _DEMOGRAPHICS.values():
        others = person.rows.select((~pl.col(column).is_in(list(words))).sum())
        _note(findings, others, f"OMOP {column} that the contract has no word for")
    rows = person.rows.join(people.lazy(), on="person_id").join(
        _zips(tables.get("location"), findings), on="location_id", how="left"
    )
    died = pl.LazyFrame(schema={"person_id": pl.Int64, "died_on": pl.Date})
    if death is not None:
        deaths = _known(death.rows, people, "death", findings)
        died = deaths.select("person_id", pl.col("death_date").alias("died_on"))
    # The parts may name no day, as 31 June: then the year alone counts.
    parts = pl.format("{}-{}-{}", "year_of_birth", "month_of_birth", "day_of_birth")
    birth = pl.coalesce("birth_datetime", parts.str.to_date("%Y-%m-%d", strict=False))
    demographics = [_coded(*told).alias(name) for name, told in _DEMOGRAPHICS.items()]
    rows = rows.join(died, on="person_id", how="left")
    return _event(
        rows.with_columns(*_from(person, "person"), birth.alias("birth_date"), *demographics),
        "person",
    )


def _zips(location: CdmTable | None, findings: Findings) -> pl.LazyFrame:
    """`location_id`, `zip3`; a ZIP code that has lost its leading zero is unknown."""
    if location is None:
        return pl.LazyFrame(schema={"location_id": pl.Int64, "zip3": pl.String})
    rows = location.rows.select("location_id", pl.col("zip").str.strip_chars())
    odd = rows.select((~pl.col("zip").str.contains(_ZIP)).sum())
    _note(findings, odd, "OMOP location with a zip that is no US ZIP code of 3, 5 or 9 digits")
    codes = rows.filter(pl.col("zip").str.contains(_ZIP)).collect()
    prefixes = [zip3(code) for code in codes["zip"]]
    return codes.select("location_id", pl.Series("zip3", prefixes, dtype=pl.String)).lazy()


def _visits(
    tables: Mapping[str, CdmTable],
    tokens: Tokens,
    site: str,
    people: pl.DataFrame,
    findings: Findings,
) -> pl.LazyFrame:
    visit = tables["visit_occurrence"]
    rows = _known(visit.rows, people, "visit_occurrence", findings)
    concept, start = pl.col("visit_concept_id"), pl.col("visit_start_date")
    others = ~concept.is_in(list(concepts.VISIT_KINDS)).fill_null(False)
    for what, rule in (
        ("that begins before its patient is born", start.dt.year() < pl.col("birth_year")),
        ("of another kind than is known here, read as outpatient", others),
        ("without an end, which is followed from no discharge", pl.col("visit_end_date").is_null()),
    ):
        _note(findings, rows.select(rule.sum()), f"OMOP visit {what}")
    if death := tables.get("death"):
        late = rows.join(death.rows.drop("row"), on="person_id").select(
            (start > pl.col("death_date")).sum()
        )
        _note(findings, late, "OMOP visit that begins after its patient's death")

    def token(ids: pl.Series) -> pl.Series:
        made = (None if one is None else tokens.visit(f"omop {site}", str(one)) for one in ids)
        return pl.Series(list(made), dtype=pl.String)

    planned = _planned(tables.get("condition_occurrence"))
    is_planned = pl.col("planned").fill_null(False) & (concept != concepts.THROUGH_EMERGENCY)
    kind = _word("visit_concept_id", concepts.VISIT_KINDS, "outpatient")
    events = rows.join(planned, on="visit_occurrence_id", how="left").with_columns(
        *_from(visit, "visit_occurrence"),
        kind.alias("kind"),
        start.alias("start_on"),
        pl.col("visit_end_date").alias("end_on"),
        pl.col("discharged_to_concept_id").is_in(concepts.DIED).alias("died"),
        pl.when(kind == "inpatient").then(is_planned).alias("planned"),
    )
    # Hashing is slow, and no visit but a stay is ever told by its token.
    stays = pl.when(pl.col("kind") == "inpatient").then("visit_occurrence_id")
    hashed = stays.map_batches(token, return_dtype=pl.String, is_elementwise=True)
    return _event(events.with_columns(hashed.alias("visit_token")), "visit")


def _planned(condition: CdmTable | None) -> pl.LazyFrame:
    """`visit_occurrence_id` of planned stays, and `planned`."""
    if condition is None:
        return pl.LazyFrame(schema={"visit_occurrence_id": pl.Int64, "planned": pl.Boolean})
    code = pl.col("condition_source_value").str.replace_all(".", "", literal=True)
    return (
        condition.rows.filter(code.is_in(concepts.PLANNED_CODES))
        .select("visit_occurrence_id", pl.lit(True).alias("planned"))
        .unique()
    )


def _labs(tables: Mapping[str, CdmTable], people: pl.DataFrame, findings: Findings) -> pl.LazyFrame:
    measurement = tables.get("measurement")
    if measurement is None:
        return pl.LazyFrame(schema=EVENTS["lab"])
    own = _own_concepts(tables.get("concept"))
    loinc, ucum = own["LOINC"] | concepts.LABS, own["UCUM"] | concepts.UNITS
    told = {"source": pl.col("measurement_source_value"), "unit": pl.col("unit_source_value")}
    rows = measurement.rows.with_columns(
        pl.coalesce(
            _word("measurement_concept_id", loinc),
            pl.when(told["source"].is_in(sorted(concepts.LOINC))).then(told["source"]),
        ).alias("loinc"),
        pl.coalesce(
            _word("unit_concept_id", ucum),
            pl.when(told["unit"].is_in(sorted(set(concepts.UNITS.values())))).then(told["unit"]),
        ).alias("ucum"),
    ).filter(pl.col("loinc").is_not_null())
    rows = _known(rows, people, "measurement", findings)
    exact = (
        pl.col("operator_concept_id").is_in(concepts.EQUAL)
        | pl.col("operator_concept_id").is_null()
    )
    for what, rule in (
        ("without a number", ~pl.col("value_as_number").is_finite().fill_null(False)),
        ("that is a bound, not a value", ~exact),
        ("without a unit", pl.col("ucum").is_null()),
    ):
        _note(findings, rows.select(rule.sum()), f"OMOP measurement {what}")
        rows = rows.filter(~rule)
    return _event(
        rows.with_columns(
            *_from(measurement, "measurement"),
            pl.col("value_as_number").alias("value"),
            pl.col("measurement_date").alias("taken_on"),
        ),
        "lab",
    )


def _own_concepts(concept: CdmTable | None) -> dict[str, dict[int, str]]:
    """Vocabulary -> concept id -> code, of the LOINC codes that are read and of all units."""
    codes: dict[str, dict[int, str]] = {"LOINC": {}, "UCUM": {}}
    if concept is not None:
        vocabulary, code = pl.col("vocabulary_id"), pl.col("concept_code")
        wanted = (vocabulary == "UCUM") | (
            (vocabulary == "LOINC") & code.is_in(sorted(concepts.LOINC))
        )
        found = concept.rows.filter(wanted).select("vocabulary_id", "concept_id", "concept_code")
        for name, number, text in found.collect(engine="streaming").iter_rows():
            codes[name][number] = text
    return codes


def _observed(
    period: CdmTable | None, people: pl.DataFrame, findings: Findings
) -> pl.LazyFrame | None:
    if period is None:
        return None
    return _known(period.rows, people, "observation_period", findings).select(
        "patient_token",
        pl.col("observation_period_start_date").alias("start_on"),
        pl.col("observation_period_end_date").alias("end_on"),
    )


def _costs(
    tables: Mapping[str, CdmTable], people: pl.DataFrame, findings: Findings
) -> pl.LazyFrame | None:
    """Costs of visits, on their first day; none where some hang on other events."""
    cost = tables.get("cost")
    if cost is None:
        return None
    domain = pl.col("cost_domain_id").str.to_lowercase()
    others = int(cost.rows.select((domain != "visit").sum()).collect(engine="streaming").item())
    if others:
        findings.note(
            "OMOP cost of another event than a visit, so that cost_90d is unknown", others
        )
        return None
    visits = tables["visit_occurrence"].rows.select(
        pl.col("visit_occurrence_id").alias("cost_event_id"), "person_id", "visit_start_date"
    )
    lost = cost.rows.join(visits, on="cost_event_id", how="anti").select(pl.len())
    _note(findings, lost, "OMOP cost of a visit that is not in table visit_occurrence")
    is_dollar = pl.col("currency_concept_id").fill_null(0).is_in(concepts.US_DOLLAR)
    amount = pl.when(is_dollar).then(pl.coalesce("amount_allowed", "total_paid"))
    unknown = cost.rows.select((amount.is_null() | (amount < 0)).sum())
    _note(findings, unknown, "OMOP cost without amount_allowed or total_paid in US dollars")
    return (
        cost.rows.join(visits, on="cost_event_id")
        .join(people.lazy(), on="person_id")
        .select(
            "patient_token",
            pl.col("visit_start_date").alias("incurred_on"),
            pl.when(amount >= 0).then(amount).alias("eligible"),
        )
    )
