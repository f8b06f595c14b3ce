"""HCPCS codes, Level I (CPT) and Level II, as service lines.

Only ranges of code numbers are used; no descriptor is shipped. A line is what a contract or a
medical director calls a service; where a section of the code set holds several lines, or a line
lies in several sections, `_EXCEPTIONS` says so.

Source: HCPCS Level II of CMS (public domain), by letter and range. CPT's sections by number; CPT
is a registered trademark of the American Medical Association, which owns its descriptors.
"""

from typing import Final

import polars as pl

from data_contracts.codes.ranges import CodeGroups

# Five digits (Level I), a letter and four digits (Level II), or four digits and a letter: F and T
# (categories II and III), A (COVID-19 vaccination), M and U (multianalyte and proprietary assays).
# The letter at the end is all that those of the third kind go by, below.
_HCPCS_SHAPE: Final = r"^([0-9]{5}|[A-V][0-9]{4}|[0-9]{4}[AFMTU])$"

_SECTIONS: Final = {
    "visit": "98000-98016 98960-98989 99202-99499 99605-99607",
    "anesthesia": "00100-01999",
    "surgery_skin": "10004-19499",
    "surgery_musculoskeletal": "20100-29999",
    "surgery_respiratory": "30000-32999",
    "surgery_cardiovascular": "33010-37799",
    "surgery_blood_lymph": "38100-39599",
    "surgery_digestive": "40490-49999",
    "surgery_urogenital": "50010-58999",
    "maternity": "59000-59899",
    "surgery_nervous_endocrine": "60000-64999",
    "surgery_eye_ear": "65091-69990",
    "imaging": "70010-79999 R0070-R0099",
    "radiation_oncology": "",
    "laboratory": "80047-89398 M U P2028-P9615 U0001-U0005",
    "cardiology": "",
    "dialysis": "",
    "drug": "J0100-J9999",
    "drug_administration": "",
    "vaccination": "A",
    "therapy": "",
    "behavioral_health": "H0001-H2999",
    "nutrition": "B4034-B9999",
    "home_health": "",
    "hospice": "",
    "transport": "A0021-A0999",
    "dme": "E0100-E8999 K0001-K1999",
    "orthotics_prosthetics": "L0100-L9999",
    "supplies_devices": "A1001-A9999",
    "vision_hearing": "V2020-V5364",
    "dental": "D0120-D9999",
    "quality_reporting": "F G4000-G9999 M1000-M1999",
    "emerging_technology": "T",
    "other": (
        "90281-97999 99000-99199 C1000-C9999 G0008-G3999 M0001-M0999 Q0035-Q9999 "
        "S0012-S9999 T1000-T5999"
    ),
}
"""Line -> the sections that it has as a whole; `other` takes what no exception claims."""

_EXCEPTIONS: Final = {
    "visit": (
        "G0101 G0175 G0179-G0182 G0245-G0246 G0372 G0378-G0384 G0402 G0406-G0408 G0425-G0427 "
        "G0438-G0439 G0463 G0466-G0470 G0506-G0514 G2010-G2012 G2211-G2212 G2250-G2252 G9481-G9489 "
        "Q3014 S0220-S0274 S9083-S9088 T1015-T1017"
    ),
    "anesthesia": "99100-99157 G0500",
    "surgery_skin": "97597-97610 C5271-C5278",
    "surgery_musculoskeletal": "G0259-G0260 G0289 G0412-G0415 S2112-S2118",
    "surgery_digestive": "G0104-G0105 G0121",
    "imaging": (
        "93303-93356 93880-93998 A4641-A4642 A9500-A9800 C8900-C8936 G0106 G0120 G0122 G0130 "
        "G0202-G0235 G0252 G0279 G0288 G0297 Q9950-Q9969 Q9982-Q9983 S8030-S8092"
    ),
    "radiation_oncology": (
        "77261-77799 79005-79999 G0173 G0251 G0339-G0340 G0458 G6001-G6017 Q3001"
    ),
    "laboratory": (
        "C9803 G0027 G0103 G0123-G0124 G0141-G0148 G0306-G0307 G0327-G0328 G0416 G0432-G0435 "
        "G0452 G0464 G0471-G0472 G0475-G0483 G0499 G0659 Q0091 Q0111-Q0115 S3600-S3870"
    ),
    "cardiology": "92920-93299 93357-93799 C9600-C9608",
    "dialysis": "90935-90999 G0257 G0420-G0421 G0491-G0492 S9335 S9339",
    "drug": (
        "C9000-C9399 C9460-C9499 Q0138-Q0181 Q0220-Q0249 Q0510-Q0521 Q2004-Q2033 Q2040-Q2058 "
        "Q3027-Q3028 Q4074-Q4082 Q5101-Q5999 Q9991-Q9999 S0012-S0199 S4989-S4995 S5550-S5571"
    ),
    "drug_administration": (
        "96360-96549 C8957 G0068-G0070 G0088-G0090 G0498 M0220-M0251 Q0081-Q0085"
    ),
    "vaccination": "90281-90759 91300-91399 G0008-G0010 M0201 Q2034-Q2039",
    "therapy": (
        "90901-90913 92507-92508 92521-92526 92605-92618 97010-97150 97161-97552 97750-97799 "
        "97810-97814 98925-98943 G0237-G0239 G0281-G0283 G0329 G0422-G0424 S8930-S8990 "
        "S9128-S9131 S9152 S9472-S9473"
    ),
    "behavioral_health": (
        "90785-90899 96105-96171 97151-97158 G0129 G0176-G0177 G0396-G0397 G0409-G0411 "
        "G0442-G0444 G0560 G2067-G2080 G2086-G2088 G2214-G2216 S9475-S9485 T1006-T1012 "
        "T1040-T1041 T2048"
    ),
    "nutrition": "97802-97804 G0108-G0109 G0270-G0271 S9140-S9145 S9340-S9343 S9465 S9470",
    "home_health": (
        "99500-99602 G0151-G0164 G0299-G0300 G0490 G0493-G0496 S5035-S5036 S5100-S5523 S9061 "
        "S9097-S9110 S9122-S9125 S9127 S9208-S9214 S9325-S9334 S9336-S9338 S9345-S9379 "
        "S9490-S9504 S9537-S9810 T1000-T1005 T1019-T1022 T1030-T1031 T2012-T2041"
    ),
    "hospice": "G0337 Q5001-Q5010 S9126 T2042-T2046",
    "transport": "S0207-S0215 S9960-S9961 T2001-T2007 T2049",
    "supplies_devices": (
        "C1052-C2698 Q0477-Q0509 Q1004-Q1005 Q4001-Q4051 Q4100-Q4999 S8096-S8490 T4521-T5999"
    ),
    "vision_hearing": "92002-92499 92531-92604 92620-92700",
}
"""Line -> codes within the sections of other lines."""

SERVICE_LINES: Final = tuple(_SECTIONS)
"""Levels of `service_line`."""


def _key(code: pl.Expr) -> pl.Expr:
    last = code.str.slice(-1)
    return pl.when(last > "9").then(last).otherwise(code)


HCPCS: Final = CodeGroups(_HCPCS_SHAPE, _key, _EXCEPTIONS, _SECTIONS)
"""Service lines of HCPCS."""


def service_line(code: pl.Expr) -> pl.Expr:
    """Service line of HCPCS codes (levels: `SERVICE_LINES`); null for anything else."""
    return HCPCS.group(code)
