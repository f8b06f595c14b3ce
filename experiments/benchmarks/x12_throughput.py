"""How fast 835 remittances are read: claims per second, and the memory that it takes.

Run with `python -m experiments.benchmarks.x12_throughput [CLAIMS] [FILE]`. The file is made up: a
claim has three service lines, adjustments that balance, and remarks; 1000 claims make a transaction
set, and 20 of these an interchange. Give FILE to keep it, e.g. to time another parser with it.
"""

import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data_contracts.crosswalk import Crosswalk
from data_contracts.deidentification.tokens import Tokens
from data_contracts.readers.events import spool
from data_contracts.readers.findings import Findings
from data_contracts.readers.x12 import read_x12

CLAIMS_PER_SET, SETS_PER_INTERCHANGE = 1000, 20
LINES = 3


def main(claims: str = "200000", file: str = "") -> None:
    """Write the file, read it, and print claims per second, megabytes per second and peak RSS."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(file or f"{folder}/remittances.835")
        write(path, int(claims))
        before = _peak()
        findings = Findings()
        wall, cpu = time.perf_counter(), time.process_time()
        with spool(Path(folder)) as events:
            read_x12(path, events, Crosswalk(Tokens(bytes(32))), findings)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            read = events.scan("payment").collect().height
        size = path.stat().st_size / 1e6
    if read != int(claims) or findings.notes:
        raise SystemExit(f"read {read} of {claims} claims, notes {dict(findings.notes)}")
    sys.stdout.write(
        f"{read} claims of {LINES} lines, {size:.0f} MB: {wall:.1f} s, {read / wall:.0f} claims/s, "
        f"{size / wall:.0f} MB/s ({read / cpu:.0f} claims/s of processor time); "
        f"peak RSS {_peak():.0f} MB, {before:.0f} MB before\n"
    )


def write(path: Path, claims: int) -> None:
    """Write remittances over so many claims."""
    draw = random.Random(1)  # noqa: S311 - made-up amounts, no secret
    with path.open("w", encoding="ascii") as out:
        first, interchange = 0, 0
        while first < claims:
            last = min(first + CLAIMS_PER_SET * SETS_PER_INTERCHANGE, claims)
            interchange += 1
            out.write("~\n".join(_interchange(draw, interchange, first, last)) + "~\n")
            first = last


def _interchange(draw: random.Random, number: int, first: int, last: int) -> Iterator[str]:
    yield (
        f"ISA*00*{'':10}*00*{'':10}*ZZ*{'PAYER':15}*ZZ*{'PROVIDER':15}*240105*1200*^*00501"
        f"*{number:09}*0*P*:"
    )
    yield f"GS*HP*PAYER*PROVIDER*20240105*1200*{number}*X*005010X221A1"
    sets = range(first, last, CLAIMS_PER_SET)
    for control, begin in enumerate(sets, start=1):
        claims, cents = [], 0
        for claim in range(begin, min(begin + CLAIMS_PER_SET, last)):
            segments, paid = _claim(draw, claim)
            claims += segments
            cents += paid
        body = [
            f"ST*835*{control:04}",
            f"BPR*I*{cents / 100:.2f}*C*ACH*CCP*01*011900254*DA*1*1512345678**01*011900445*DA*2"
            "*20240112",
            f"TRN*1*{number:05}{control:05}*1512345678",
            "DTM*405*20240110",
            "N1*PR*PLAN*XV*12345",
            "N1*PE*GROUP*XX*1999999984",
            "LX*1",
            *claims,
        ]
        yield from body
        yield f"SE*{len(body) + 1}*{control:04}"
    yield f"GE*{len(sets)}*{number}"
    yield f"IEA*1*{number:09}"


def _claim(draw: random.Random, number: int) -> tuple[list[str], int]:
    """Segments of a claim, and what it pays, in cents."""
    day = f"202312{draw.randint(1, 28):02}"
    lines: list[str] = []
    charge = paid = share = 0
    for line in range(LINES):
        asked = draw.randint(5_000, 90_000)
        allowed = asked * draw.randint(40, 95) // 100
        copay = min(allowed, draw.choice((0, 1_500, 3_000)))
        coinsurance = (allowed - copay) * draw.choice((0, 10, 20)) // 100
        pays = allowed - copay - coinsurance
        charge, paid, share = charge + asked, paid + pays, share + copay + coinsurance
        lines += [
            f"SVC*HC:G{line + 100:04}:25*{asked / 100:.2f}*{pays / 100:.2f}*0450*1",
            f"DTM*472*{day}",
            f"CAS*CO*45*{(asked - allowed) / 100:.2f}",
            f"CAS*PR*3*{copay / 100:.2f}**2*{coinsurance / 100:.2f}",
            f"REF*6R*{number}{line}",
            f"AMT*B6*{allowed / 100:.2f}",
        ]
    head = [
        f"CLP*A{number:08}*1*{charge / 100:.2f}*{paid / 100:.2f}*{share / 100:.2f}*12*P{number:010}"
        "*11*1",
        f"NM1*QC*1*DOE*JANE****MI*M{number % 50_000:09}",
        "NM1*82*1*ROE*RICHARD****XX*1999999976",
        "MOA***MA01",
        f"DTM*232*{day}",
        f"DTM*233*{day}",
        "DTM*050*20240102",
    ]
    return head + lines, paid


def _peak() -> float:
    """Peak resident memory of this process in MB (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main(*sys.argv[1:])
