"""A ledger as JSON lines, which anybody can check without this software.

The first line says how many entries there are, the hash of the last one, and the rule. Every
further line is an entry:

    {"hash":"<64 hexadecimal digits>","prev":"<64 hexadecimal digits>","body":{...}}

hash = SHA-256(prev followed by the text between `"body":` and the last brace), both in ASCII; prev
is the hash of the entry before, 64 zeros for the first. The text is hashed as it stands, so that
no two ways of writing a number can disagree. `seq`, `time` (UTC), `kind` and what the kind is about
are in the body; see `federation.ledger_charges` for what a charge holds and how charges add up.
"""

from pathlib import Path

from federation.ledger import Ledger, LedgerError
from federation.ledger_chain import Head, canonical

_RULE = (
    "each further line is an entry; its hash is SHA-256, in hexadecimal, of prev followed by the "
    'text between "body": and the last brace; prev is the hash of the entry before, 64 zeros for '
    "the first; entries and head are the number of entries and the last hash"
)


class LedgerExportError(LedgerError):
    """The file to export to holds something already."""


def export(ledger: Ledger, file: Path) -> Head:
    """Write all entries of a ledger, verified, to a new file.

    Returns:
        The last entry.

    Raises:
        LedgerExportError: The file exists.
        LedgerDamagedError, LedgerUnavailableError: See there.
    """
    entries = ledger.entries()
    head = entries[-1].head
    first = {
        "format": "groundtruth ledger export 1",
        "entries": head.seq,
        "head": head.hash,
        "rule": _RULE,
    }
    try:
        with file.open("x", encoding="ascii", newline="\n") as out:
            out.write(canonical(first) + "\n")
            out.writelines(
                f'{{"hash":"{entry.hash}","prev":"{entry.prev}","body":{entry.text}}}\n'
                for entry in entries
            )
    except FileExistsError:
        raise LedgerExportError(f"{file} exists already; name another file") from None
    return head
