"""`site init`: a commented site.toml from a few answers, for a person to read and complete.

Columns of flat files that are not named as in the contract get a proposal; the site's own files
are looked at for that, their header and a sample of rows, and nothing else is kept of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final, cast, get_args

import polars as pl

from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.policy import Mode
from data_contracts.deidentification.tokens import SCHEME
from data_contracts.errors import ManifestError
from data_contracts.fields import Role
from data_contracts.manifest import MANIFEST_NAME, Exchange, Origin, SiteManifest
from data_contracts.mapping.proposal import propose, to_commented_toml
from data_contracts.readers.tabular import scan

SAMPLE_ROWS: Final = 10_000
_USUAL = ("pa_request", "pa_decision", "claim_payment", "clinical_outcome")
_KEY_FILE = "network.key"
_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True, slots=True)
class Answers:
    """What `site init` has to know.

    Attributes:
        name: Network pseudonym of the site.
        role: Payer or provider.
        origin: private, public or synthetic.
        tables: Contract name -> flat file or directory of Parquet parts.
        exchanges: "x12", "fhir" or "omop" -> file or directory.
        mode: On which legal ground the tables are used.
        certificate: Id of the expert's certificate, under that mode.
        dua: Id of the data use agreement, under that mode.
        expires: Last day of either.
        key_file: File with the network's key, where tokens are derived.
    """

    name: str
    role: Role
    origin: Origin = "private"
    tables: Mapping[str, Path] = field(default_factory=dict)
    exchanges: Mapping[Exchange, Path] = field(default_factory=dict)
    mode: Mode = "safe_harbor"
    certificate: str = ""
    dua: str = ""
    expires: date | None = None
    key_file: Path | None = None


def answered(
    ask: Callable[[str, str], str],
    *,
    name: str,
    role: str,
    tables: Sequence[str],
    exchanges: Mapping[str, Path | None],
    mode: str,
    certificate: str,
    dua: str,
    expires: str,
    key_file: Path | None,
) -> Answers:
    """Answers from options, and questions for what they leave open.

    Args:
        ask: Asks a person: question and default -> answer; gives the default where nobody is there.
        name: See `Answers`, as are the others; "" or None where not given.
        role: payer or provider.
        tables: CONTRACT=FILE.
        exchanges: "x12", "fhir" or "omop" -> path.
        mode: The legal ground.
        certificate: Id of the certificate.
        dua: Id of the agreement.
        expires: A date, as YYYY-MM-DD.
        key_file: The network's key.

    Raises:
        ManifestError: An answer cannot be used.
    """
    name = name or ask("Pseudonym of this site in the network", "")
    role = role or ask("Is it a payer or a provider?", "provider")
    if role not in get_args(Role):
        raise ManifestError(f"the role is {' or '.join(get_args(Role))}, not {role!r}")
    flat = dict(_contract_and_file(text) for text in tables)
    told = {exchange: path for exchange, path in exchanges.items() if path is not None}
    if not flat and not told:
        for contract in _USUAL:
            if path := ask(f"File or folder of {contract} (CSV or Parquet; empty if none)", ""):
                flat[contract] = Path(path)
        for exchange in get_args(Exchange):
            if path := ask(f"File or folder of {exchange.upper()} (empty if none)", ""):
                told[exchange] = Path(path)
    if not flat and not told:
        raise ManifestError("no data: give --table CONTRACT=FILE, --x12, --fhir or --omop")
    ground = mode or ask(
        f"Legal ground ({', '.join(get_args(Mode))})",
        "expert_determination" if told else "safe_harbor",
    )
    if ground not in get_args(Mode):
        raise ManifestError(f"the mode is one of {', '.join(get_args(Mode))}, not {ground!r}")
    if ground == "expert_determination":
        certificate = certificate or ask("Id of the expert's certificate", "")
    elif ground == "limited_data_set":
        dua = dua or ask("Id of the data use agreement", "")
    if ground != "safe_harbor":
        expires = expires or ask("Its last day (YYYY-MM-DD)", "")
    if told and key_file is None:
        key_file = Path(ask("File with the network's key", _KEY_FILE))
    try:
        last_day = date.fromisoformat(expires) if expires else None
    except ValueError:
        raise ManifestError(f"expires is a day as YYYY-MM-DD, not {expires!r}") from None
    return Answers(
        name=name,
        role=cast(Role, role),
        tables=flat,
        exchanges=cast(Mapping[Exchange, Path], told),
        mode=cast(Mode, ground),
        certificate=certificate,
        dua=dua,
        expires=last_day,
        key_file=key_file,
    )


def _contract_and_file(text: str) -> tuple[str, Path]:
    contract, equals, path = text.partition("=")
    if not equals or not path:
        raise ManifestError(f"--table takes CONTRACT=FILE, not {text!r}")
    return contract, Path(path)


def init_site(folder: Path, answers: Answers) -> tuple[Path, list[str]]:
    """Write `folder/site.toml`; it must not exist.

    Args:
        folder: The site's folder; made where it does not exist.
        answers: What it is made of.

    Returns:
        The file, and what a person has to do next.

    Raises:
        ManifestError: The file exists, or an answer cannot be used.
        ReaderError: A flat file cannot be read.
    """
    file = folder / MANIFEST_NAME
    if file.exists():
        raise ManifestError(f"{file} exists and is kept: change it by hand, or name another folder")
    for name in answers.tables:
        if name not in CONTRACTS:
            known = ", ".join(CONTRACTS)
            raise ManifestError(f"{name!r} is no contract; contracts are {known}")
    folder.mkdir(parents=True, exist_ok=True)
    steps: list[str] = []
    plain: list[str] = []
    proposed: list[str] = []
    for name, path in answers.tables.items():
        block, open_questions = _table(name, path, folder)
        (plain if block.count("\n") == 0 else proposed).append(block)
        steps += open_questions
    parts = [_SITE.format(name=answers.name, role=answers.role, origin=answers.origin)]
    if answers.tables:
        parts.append("\n".join(["[tables]", *plain]) if plain else "")
        parts += proposed
    if answers.exchanges:
        lines = [
            f"{name} = {_quoted(_shown(path, folder))}" for name, path in answers.exchanges.items()
        ]
        if "x12" in answers.exchanges:
            lines.append(_TIMEZONE)
        parts.append("\n".join(["[sources]", *lines]))
        parts.append(_CROSSWALK)
        steps.append("list payers and provider groups in a crosswalk: see [crosswalk]")
    if answers.key_file is not None and not answers.key_file.exists():
        # A key that is still to come belongs beside site.toml, unless its place was named in full.
        answers = replace(answers, key_file=folder / answers.key_file)
        steps.append(
            f"put the network's key into {answers.key_file} (chmod 600); whoever begins a network "
            "makes it with `groundtruth network key`"
        )
    parts.append(_policy(answers, folder))
    text = "\n\n".join(part for part in parts if part) + "\n"
    file.write_text(text, encoding="utf-8")
    try:
        SiteManifest.load(file)
    except Exception:
        file.unlink()
        raise
    return file, [*steps, f"groundtruth site check {folder}"]


def _table(name: str, path: Path, folder: Path) -> tuple[str, list[str]]:
    """The lines of one flat file, and what is left to a person."""
    separator = _separator(path)
    frame = scan(path, separator=separator)
    columns = frame.collect_schema().names()
    contract = CONTRACTS[name]
    shown = _shown(path, folder)
    if separator == "," and set(columns) <= set(contract.schema.column_names()):
        return f"{name} = {_quoted(shown)}", []
    sample = frame.select(pl.col(columns).cast(pl.String, strict=False)).head(SAMPLE_ROWS)
    proposals = propose(sample.collect(), contract.schema, source=path.name)
    unsure = sum(not proposal.confident for proposal in proposals)
    left = f", {unsure} of {len(columns)} columns are left to you" if unsure else ""
    step = f"confirm how the columns of {path.name} are mapped onto {name}{left}"
    return to_commented_toml(proposals, contract, shown, separator).rstrip(), [step]


def _separator(path: Path) -> str:
    """What parts the cells of a CSV file's first line."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return ","
    with path.open("rb") as file:
        header = file.readline(1 << 20)
    return max(_SEPARATORS, key=lambda separator: header.count(separator.encode()))


def _shown(path: Path, folder: Path) -> str:
    """A path as it stands in site.toml: relative where it lies in the site's folder."""
    whole, base = path.resolve(), folder.resolve()
    return str(whole.relative_to(base) if whole.is_relative_to(base) else whole)


def _quoted(text: str) -> str:
    """Text as TOML has it; paths hold no control characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _policy(answers: Answers, folder: Path) -> str:
    lines = [*_POLICY.splitlines(), "[deidentification]", f'mode = "{answers.mode}"']
    if answers.certificate:
        lines.append(f"certificate = {_quoted(answers.certificate)}")
    if answers.dua:
        lines.append(f"dua = {_quoted(answers.dua)}")
    if answers.expires is not None:
        lines.append(f"expires = {answers.expires.isoformat()}")
    if answers.key_file is not None:
        lines += [f'scheme = "{SCHEME}"', f"key_file = {_quoted(_shown(answers.key_file, folder))}"]
    return "\n".join(lines)


_SITE = """\
# Who this site is, what it allows, and where its data lie. The file stays at the site.

[site]
name = "{name}"        # pseudonym in the network, never an NPI
role = "{role}"
origin = "{origin}"      # private, public or synthetic; only private data get full protection
on_error = "fail"       # "quarantine" sets rows aside that break a contract, and counts them
# group = ""            # pseudonym of the group or payer as it stands in the tables, if it has one

# What a run may ask. Whoever answers for privacy at this site decides.
max_epsilon = 3.0       # of one run, at delta = 1e-5
budget_epsilon = 10.0   # of all runs together, ever; the site's ledger holds it
max_patients = 1000000  # a round number that the tables will never pass"""

_TIMEZONE = '# timezone = "America/Chicago"  # of times in X12, which names no zone; FHIR does'

_CROSSWALK = """\
# CSV files that name payers (identifier,pseudonym,business_line) and provider groups
# (identifier,pseudonym). Whoever they do not list gets a keyed pseudonym.
# [crosswalk]
# business_line = "COMM"      # of payers without one: MA, MCD_MCO, CHIP, QHP_FFE or COMM
# payers = "payers.csv"
# providers = "providers.csv\""""

_POLICY = """\
# On which legal ground the tables are used (45 CFR 164.514): safe_harbor (years only, random
# tokens), expert_determination (certificate and expires), limited_data_set (dua and expires)."""
