"""What identifiers look like: the shapes of values of the 18 Safe Harbor classes.

A shape is *sure* if no code that a contract's pattern admits looks like it (an e-mail address, an
SSN with hyphens, a date). The others are *mere* shapes: eleven digits may be a telephone number or
an NDC, five a ZIP code or a CPT code. Which are looked for where is the rule of `values.py`.

Regular expressions are those of Rust: linear in time, without look-around.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from data_contracts.deidentification import check_digits
from data_contracts.deidentification.given_names import GIVEN_NAMES


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape of values.

    Attributes:
        letter: The class of 45 CFR 164.514(b)(2)(i).
        pattern: Regular expression that finds it in a text.
        sure: Whether no legitimate code looks like it.
        check: What a text found by the pattern must pass, if its digits can be checked.
        words: What the pattern's group must be one of in lower case, if it has one. They are too
            many for a pattern.
    """

    letter: str
    pattern: str
    sure: bool = True
    check: Callable[[str], bool] | None = None
    words: frozenset[str] | None = None

    def found_in(self, values: pl.Series) -> pl.Series:
        """Which texts hold it, (n,); what a pattern cannot tell is seen to where it is found."""
        found = values.str.contains(self.pattern)
        if (self.check is None and self.words is None) or not found.any():
            return found
        candidates = values.filter(found)
        if self.words is not None:
            passed = candidates.str.extract(self.pattern).str.to_lowercase().is_in(self.words)
        if self.check is not None:
            cells = candidates.str.extract_all(self.pattern).to_list()
            passed = pl.Series([any(map(self.check, cell)) for cell in cells])
        return found.scatter(found.arg_true(), passed)


# No digit, or no letter either, may stand right beside.
_D, _D_ = r"(?:^|[^0-9])", r"(?:[^0-9]|$)"
_W, _W_ = r"(?:^|[^0-9A-Za-z])", r"(?:[^0-9A-Za-z]|$)"

_YEAR = r"(?:19|20|21)[0-9]{2}"
_MONTH, _DAY = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12][0-9]|3[01])"
_ANY_MONTH, _ANY_DAY = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?(?:\.[0-9]+)?(?:[+-][0-9]{4})?"
_MONTH_NAME = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)

_NUMBER_OF = r"[\s#:._-]*(?:(?:id|no|nr|num|nbr|number)[\s#:._-]*)?[a-z]{0,3}-?[0-9]{5,}"
"""What follows a label such as "MRN": "MRN 12345", "mrn#: A12345", "mrn_no 12345"."""

_WORD = r"[\pL][\pL'\u2019.-]*"
_OVER_89 = r"(?:9[0-9]|1[0-4][0-9])"
_MBI_LETTER, _MBI_ANY = "[AC-HJKMNP-RT-Y]", "[0-9AC-HJKMNP-RT-Y]"
_VIN = "[0-9A-HJ-NPR-Za-hj-npr-z]"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_STREET = (
    r"(?:st|str|street|ave?|avenue|rd|road|blvd|boulevard|dr|drive|ln|lane|ct|court|pl|place|way"
    r"|hwy|highway|pkwy|parkway|ter|terrace|cir|circle|sq|square|trl|trail|route|rte)"
)
_GIVEN = r"(\pL+)"  # one of `GIVEN_NAMES`

BIOMETRIC_WORDS: Final = Shape(
    "P", r"(?i)(?:finger|voice|palm)[\s_-]?print|(?:^|[^a-z])(?:retina|iris)[\s_-]?(?:scan|code)"
)
"""The one shape of mere words, which columns are called, too."""

SHAPES: Final = (
    # (A) names
    Shape("A", r"^\s*[\pL][\pL' -]*\^[\pL][\pL' -]*(?:\^|$)"),  # HL7 XPN, as in DOE^JANE^Q
    Shape("A", rf"(?i)(?:^|[\s,;:])(?:mr|mrs|ms|miss|dr|prof)\.?\s+{_WORD}"),
    Shape("A", rf"(?i){_W}(?:patient|pt|member|name)s?\s*(?:name)?\s*[:=]\s*{_WORD}"),
    Shape(
        "A",
        rf"(?i)^\s*{_GIVEN}[\s_.-]+(?:[a-z]\.?[\s_.-]+)?[\pL][\pL'\u2019-]+\s*$",
        sure=False,
        words=GIVEN_NAMES,
    ),
    Shape(
        "A",
        rf"(?i)^\s*{_WORD}(?:[\s-]{_WORD})?\s*,\s*{_GIVEN}(?:\s+[a-z]\.?)?\s*$",
        sure=False,
        words=GIVEN_NAMES,
    ),
    Shape("A", r"^\s*[\p{Lu}'-]{2,},\s?[\p{Lu}'-]{2,}(?:\s\p{Lu}\.?)?\s*$", sure=False),
    Shape("A", rf"^\s*{_WORD},\s?{_WORD}\s\p{{Lu}}\.?\s*$", sure=False),
    # (B) addresses, ZIP codes, places on a map
    Shape("B", rf"(?i){_D}[0-9]{{1,6}}[a-z]?\s+(?:[\pL0-9.'\u2019-]+\s+){{1,4}}{_STREET}\.?{_W_}"),
    Shape("B", rf"(?i){_W}p\.?\s*o\.?\s*box\s*#?[0-9]+"),
    Shape("B", rf"(?i){_W}(?:apt|apartment|suite)\.?\s*#?\s*[0-9]+[a-z]?{_W_}"),
    Shape("B", r"(?:^|[^0-9-])[0-9]{5}-[0-9]{4}(?:[^0-9-]|$)"),
    Shape("B", rf"[\pL],?\s+[A-Z]{{2}},?\s+[0-9]{{5}}{_D_}"),
    Shape("B", rf"(?i)zip(?:\s*codes?)?[\s#:._-]*[0-9]{{5}}{_D_}"),
    Shape("B", rf"{_D}[1-9]?[0-9]\.[0-9]{{4,}}\s*[,;]\s*-?1?[0-9]?[0-9]\.[0-9]{{4,}}"),
    Shape("B", r"^\s*[0-9]{5}\s*$", sure=False),
    # (C) dates finer than a year, ages over 89
    Shape("C", rf"{_D}{_YEAR}[-/.]{_ANY_MONTH}[-/.]{_ANY_DAY}{_D_}"),
    Shape("C", rf"{_D}{_ANY_DAY}[-/.]{_ANY_DAY}[-/.]{_YEAR}{_D_}"),
    Shape("C", rf"{_D}{_ANY_DAY}/{_ANY_DAY}/[0-9]{{2}}{_D_}"),
    Shape("C", rf"{_W}{_YEAR}{_MONTH}{_DAY}(?:{_W_}|T?{_TIME}(?:Z|{_W_}))"),  # HL7, X12, ISO
    Shape("C", rf"{_W}(?:{_MONTH}{_DAY}|{_DAY}{_MONTH}){_YEAR}{_W_}"),
    Shape(
        "C", rf"(?i){_D}{_ANY_DAY}(?:st|nd|rd|th)?[\s./-]*(?:of\s)?{_MONTH_NAME}[\s.,/-]*[0-9]{{2}}"
    ),
    Shape(
        "C", rf"(?i){_W}{_MONTH_NAME}[\s./-]*{_ANY_DAY}(?:st|nd|rd|th)?[\s,/-]+(?:of\s)?[0-9]{{2}}"
    ),
    Shape("C", rf"(?i){_W}{_MONTH_NAME}\.?[\s,/-]*{_YEAR}{_D_}"),
    Shape(
        "C", rf"(?i){_W}(?:dob|birth|born|died|deceased|admitted)[^0-9]{{1,16}}[0-9]{{1,4}}[-/.]"
    ),
    Shape("C", rf"(?i){_W}(?:aged?|yo)[\s:=]*(?:of\s*)?{_OVER_89}{_D_}"),
    Shape("C", rf"(?i){_D}{_OVER_89}[\s-]*(?:y(?:ea)?rs?|years?|y\.?\s*/?o\.?){_W_}"),
    Shape("C", rf"^\s*(?:{_YEAR}[-/]{_MONTH}|{_ANY_MONTH}/{_YEAR})\s*$", sure=False),
    # (E) fax numbers, which are of class (D) without the word
    Shape(
        "E",
        r"(?i)(?:^|[^a-z])(?:tele)?fax(?:[\s#:._-]*(?:no|num|number))?[\s#:.=_-]*\+?[0-9(]"
        r"[0-9() .-]{5,}",
    ),
    # (D) telephone numbers
    Shape("D", rf"{_D}[0-9]{{3}}[-. ][0-9]{{3}}[-. ][0-9]{{4}}{_D_}"),
    Shape("D", rf"\([0-9]{{3}}\)\s*[0-9]{{3}}[-. ]?[0-9]{{4}}{_D_}"),
    Shape("D", r"(?:^|\s)\+[0-9](?:[ ().-]?[0-9]){7,14}(?:[^0-9]|$)"),
    Shape("D", r"(?i)(?:^|[^a-z])(?:tel|phone|cell|mobile|call)[\s#:.=_-]*\+?[0-9(][0-9() .-]{5,}"),
    Shape("D", rf"{_W}[2-9][0-9]{{2}}[2-9][0-9]{{6}}{_W_}"),
    Shape("D", rf"{_W}1[2-9][0-9]{{2}}[2-9][0-9]{{6}}{_W_}", sure=False),
    Shape("D", r"^\s*[2-9][0-9]{2}[-. ][0-9]{4}\s*$", sure=False),
    # (F) e-mail addresses
    Shape("F", r"[^\s@]@[\pL0-9-]+(?:\.[\pL0-9-]+)+"),
    # (G) Social Security numbers and taxpayers' numbers
    Shape("G", rf"{_D}[0-9]{{3}}[-. ][0-9]{{2}}[-. ][0-9]{{4}}{_D_}"),
    Shape("G", rf"{_W}[0-9]{{9}}{_W_}"),
    Shape("G", r"(?i)(?:^|[^a-z])(?:ssn|itin|social\s+security)[^0-9]{0,12}[0-9x*]{3}"),
    # (H) medical record numbers
    Shape("H", rf"(?i)(?:^|[^a-z])(?:mrn|med(?:ical)?\s*rec(?:ord)?|chart){_NUMBER_OF}"),
    Shape("H", r"\^(?:MR|PI|PT|MRN)(?:\^|$)"),  # HL7 CX.5
    # (I) health plan beneficiary numbers
    Shape(
        "I",
        rf"(?i){_W}[1-9]{_MBI_LETTER}{_MBI_ANY}[0-9]-?{_MBI_LETTER}{_MBI_ANY}[0-9]-?"
        rf"{_MBI_LETTER}{{2}}[0-9]{{2}}{_W_}",
    ),
    Shape(
        "I",
        r"(?i)(?:^|[^a-z])(?:member|subscriber|beneficiary|medicare|medicaid|insured|mbi|hicn?|cin)"
        + _NUMBER_OF,
    ),
    Shape("I", rf"{_W}[A-Z]{{1,3}}[0-9]{{9,12}}(?:[0-9A-Z]{{0,2}}){_W_}", sure=False),
    Shape("I", rf"{_W}[0-9]{{9}}[A-DFHJKMTW][0-9A-Z]?{_W_}", sure=False),  # HICN: SSN and suffix
    # (J) cards and accounts
    Shape(
        "J",
        rf"{_W}[0-9]{{4}}(?:[ -]?[0-9]{{4}}){{2}}[ -]?[0-9]{{1,7}}{_W_}",
        check=check_digits.luhn,
    ),
    Shape("J", rf"{_W}3[47][0-9]{{2}}[ -]?[0-9]{{6}}[ -]?[0-9]{{5}}{_W_}", check=check_digits.luhn),
    Shape(
        "J",
        rf"{_W}[A-Za-z]{{2}}[0-9]{{2}}(?: ?[0-9A-Za-z]{{4}}){{2,7}}(?: ?[0-9A-Za-z]{{1,3}})?{_W_}",
        check=check_digits.iban,
    ),
    Shape("J", rf"(?i)(?:^|[^a-z])(?:acct|account|acc|a/c){_NUMBER_OF}"),
    # (K) certificates and licences
    Shape("K", rf"{_W}[12][0-9]{{9}}{_W_}", check=check_digits.npi),
    Shape("K", rf"{_W}[A-Za-z][A-Za-z9]-?[0-9]{{7}}{_W_}", check=check_digits.dea),
    Shape(
        "K", rf"(?i)(?:^|[^a-z])(?:npi|dea|upin|lic|licen[cs]e|certificate|passport){_NUMBER_OF}"
    ),
    Shape("K", r"^\s*[A-Z]{1,2}[0-9]{6,8}\s*$", sure=False),
    # (L) vehicles
    Shape("L", rf"{_W}{_VIN}{{8}}[0-9Xx]{_VIN}{{4}}[0-9]{{4}}{_W_}", check=check_digits.vin),
    Shape("L", r"(?i)(?:^|[^a-z])(?:vin|plate|licen[cs]e\s*plate)[\s#:._-]+[0-9a-z-]*[0-9]"),
    # (M) devices
    Shape("M", r"\(01\)\s*[0-9]{14}"),  # GS1: the device identifier of a UDI
    Shape("M", r"^\s*\+[A-Z][A-Z0-9]{3,22}[0-9](?:/|$)"),  # HIBC
    Shape("M", r"^\s*=/?[A-Z0-9]{5,}"),  # ICCBBA
    Shape("M", rf"(?i){_W}(?:[0-9a-f]{{2}}[:-]){{5}}[0-9a-f]{{2}}{_W_}"),  # MAC address
    Shape("M", rf"(?i)(?:^|[^a-z])(?:serial|s/n|sn|udi|gtin|imei|device){_NUMBER_OF}"),
    # (N) web addresses
    Shape("N", rf"(?i){_W}(?:[a-z][a-z0-9+.-]{{1,14}}://|www\.)[^\s]"),
    # (O) IP addresses
    Shape("O", rf"(?:^|[^0-9.])(?:{_OCTET}\.){{3}}{_OCTET}(?:[^0-9.]|$)"),
    Shape("O", r"(?i)(?:^|\s)[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*(?:\s|$)", check=check_digits.ipv6),
    # (P) biometric templates in base64: "FMR\0", "FIR\0", "IIR\0" (ISO/IEC 19794-2, -4, -6); WSQ
    Shape("P", r"(?:^|[^0-9A-Za-z+/])(?:Rk1SA|RklSA|SUlSA)[0-9A-Za-z+/]{3,}"),
    Shape("P", r"(?:^|[^0-9A-Za-z+/])/6D/[0-9A-Za-z+/]{4,}"),
    BIOMETRIC_WORDS,
    # (Q) images: data URIs; base64 of JPEG, PNG, GIF, TIFF, "FAC\0" (ISO/IEC 19794-5); file names
    Shape("Q", r"(?i)data:image/|;base64,"),
    Shape("Q", r"(?:^|[^0-9A-Za-z+/])(?:/9j/|iVBORw0KG|R0lGOD|SUkqA|TU0AK|RkFDA)[0-9A-Za-z+/]{3,}"),
    Shape("Q", rf"(?i)[\pL0-9_)-]\.(?:jpe?g|png|gif|bmp|tiff?|heic|webp|dcm|dicom){_W_}"),
    Shape("Q", r"[0-9A-Za-z+/]{65,}={0,2}"),
    # (R) other unique numbers
    Shape("R", r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    Shape("R", r"^[a-z][a-z_-]*[0-9]{7,}(?:[_-].*)?$|[_-][0-9]{7,}(?:[_-]|$)"),  # in a pseudonym
    Shape("R", rf"(?i){_W}[0-9a-f]{{12}}[1-8][0-9a-f]{{3}}[89ab][0-9a-f]{{15}}{_W_}", sure=False),
    Shape("R", rf"{_W}[0-9]{{9,}}{_W_}", sure=False),
)
"""All shapes. A value may have several; (R) is told only of what has no other."""


def screen(shapes: Iterable[Shape]) -> str:
    """One regular expression that finds whatever one of the shapes finds, but those of `named`."""
    return "|".join(f"(?:{shape.pattern})" for shape in shapes if shape.words is None)


def named(value: pl.Expr) -> pl.Expr:
    """Whether texts have a shape that is told by its words."""
    return pl.any_horizontal(
        value.str.extract(shape.pattern).str.to_lowercase().is_in(shape.words)
        for shape in SHAPES
        if shape.words is not None
    )
