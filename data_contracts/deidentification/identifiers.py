"""The 18 classes of identifiers that Safe Harbor wants removed, and how columns of them are named.

Source: 45 CFR 164.514(b)(2)(i)(A)-(R).
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class IdentifierClass:
    """One class of identifiers.

    Attributes:
        letter: Its letter in 45 CFR 164.514(b)(2)(i).
        title: What it holds, in a few words.
        names: Regular expression of words in column names, in lower case and parted by "_".
    """

    letter: str
    title: str
    names: str

    def __str__(self) -> str:
        return f"class {self.letter}, {self.title}"


_CLASSES = (
    IdentifierClass(
        "A",
        "names",
        r"(?:first|last|middle|maiden|given|family|full|patient|member|subscriber|insured|guarantor"
        r"|guardian|mother|father|spouse|contact|physician|provider|doctor|reviewer|user|nick)_?names?"
        r"|f_?name|l_?name|(?<!\w)names?(?!\w)|surname|forename|initials|alias|maiden"
        r"|guarantor",
    ),
    IdentifierClass(
        "B",
        "geographic units smaller than a state",
        r"(?:mail|home|street|postal|residence)?_?(?:addr|address|adress)(?:_?line)?|street|city|town"
        r"|county|precinct|parish|fips|census_?(?:tract|block)|geo_?codes?|lat|latitude|lon|lng"
        r"|longitude|postal|zip|zip_?codes?|zip_?plus|postal_?codes?|post_?codes?|apt|apartment|po_?box",
    ),
    IdentifierClass(
        "C",
        "dates finer than a year, and ages over 89",
        r"dob|dod|dos|birth_?(?:date|day|dt)?|death_?(?:date|dt)|deceased_?(?:date|at|on)"
        r"|date_?(?:of_?)?(?:birth|death|service|admission|discharge)?|dates|dt|dttm|datetime"
        r"|timestamp|(?:admit|admission|discharge|service|visit|onset|claim|paid|received|submitted"
        r"|decided|created|updated)_?(?:date|dt|at|on|time)|exact_age|(?<!\w)ages?(?!\w)|age_?in_?(?:years|days)",
    ),
    IdentifierClass(
        "D",
        "telephone numbers",
        r"(?:tele|home_?|work_?|cell_?|mobile_?|day_?|evening_?)?phones?(?:_?(?:number|no|num|nbr))?"
        r"|tel|telephone|mobile|cell|pager",
    ),
    IdentifierClass("E", "fax numbers", r"(?:tele)?fax(?:_?(?:number|no|num|nbr))?|facsimile"),
    IdentifierClass("F", "e-mail addresses", r"e_?mails?(?:_?(?:addr|address))?"),
    IdentifierClass(
        "G",
        "Social Security numbers",
        r"ssn|soc_?sec(?:_?(?:no|num|number))?|social_?security(?:_?(?:no|num|number))?|itin|tin",
    ),
    IdentifierClass(
        "H",
        "medical record numbers",
        r"mrn|med_?rec(?:_?(?:no|num|nbr|number))?|medical_?records?(?:_?(?:no|num|number|id))?|empi"
        r"|chart_?(?:no|num|number|id)|patient_?(?:id|no|num|nbr|number|identifier)|pat_?id",
    ),
    IdentifierClass(
        "I",
        "health plan beneficiary numbers",
        r"mbi|hicn?|medicare_?(?:id|no|num|number)|medicaid_?(?:id|no|num|number)|bene_?(?:id|sk)"
        r"|beneficiary(?:_?(?:id|no|num|number))?|member_?(?:id|no|num|nbr|number|key|ck)"
        r"|subscriber(?:_?(?:id|no|num|number))?|policy_?holder|insured_?(?:id|no|num|number)"
        r"|group_?(?:no|num|number)|insurance_?(?:id|no|num|number)|certificate_?holder",
    ),
    IdentifierClass(
        "J",
        "account numbers",
        r"acnt|acct(?:_?(?:id|no|num|nbr|number))?|accounts?(?:_?(?:id|no|num|number))?|iban|routing"
        r"|(?:credit_?)?card(?:_?(?:no|num|number))?|bank|patient_?control_?(?:no|num|number)",
    ),
    IdentifierClass(
        "K",
        "certificate and licence numbers",
        r"licen[cs]es?(?:_?(?:id|no|num|number))?|lic_?(?:id|no|num|number)|dea(?:_?(?:no|number))?"
        r"|npi|upin|certificate(?:_?(?:no|num|number))?|cert_?(?:no|num|number)|passport"
        r"|drivers?_?licen[cs]e|dl_?(?:no|num|number)",
    ),
    IdentifierClass(
        "L",
        "vehicle identifiers and licence plates",
        r"vin|vehicles?(?:_?(?:id|no|number))?|(?:licen[cs]e_?)?plates?(?:_?(?:no|num|number))?",
    ),
    IdentifierClass(
        "M",
        "device identifiers and serial numbers",
        r"devices?_?(?:id|identifier|no|number)|(?<!\w)devices?(?!\w)|udi|gtin|serial(?:_?(?:no|num|number))?|imei"
        r"|mac_?addr(?:ess)?|lot_?(?:no|num|number)",
    ),
    IdentifierClass("N", "web addresses (URLs)", r"urls?|uri|web_?(?:site|page|addr)|home_?page"),
    IdentifierClass(
        "O", "IP addresses", r"ip_?(?:addr|address)|ips?|ipv|(?:client|remote|host)_?ip|host_?name"
    ),
    IdentifierClass(
        "P",
        "biometric identifiers",
        r"biometrics?|finger_?prints?|voice_?prints?|iris|retina|face_?(?:id|template)"
        r"|palm_?prints?|dna|genome|genotype",
    ),
    IdentifierClass(
        "Q",
        "full-face photographs and comparable images",
        r"photos?|photographs?|images?|img|pictures?|portrait|face|selfie|avatar|dicom",
    ),
    IdentifierClass(
        "R",
        "other unique numbers, characteristics or codes",
        r"uuid|guid|person_?(?:id|key)|user_?(?:id|name)|login|employee_?(?:id|no|number)"
        r"|student_?(?:id|no)|enterprise_?id|master_?id|unique_?(?:id|key)|trace_?(?:no|number)"
        r"|(?:claim|authorization|referral|request|case|control|tax)_?(?:id|no|num|nbr|number)"
        r"|pa_(?:id|no|num|nbr|number)|trace_?id|icn|dcn|tcn|csn|pcn|ck|mpi|ein|rowid|encounter_?(?:id|no|number)|visit_?(?:id|no|number)|barcode",
    ),
)

CLASSES: Final = {each.letter: each for each in _CLASSES}
"""Letter -> class, from A to R."""

_NAMES = [(each, re.compile(rf"(?:^|_)(?:{each.names})(?:_|$)")) for each in _CLASSES]
_WORDS_OF_TWO_CASES = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=[0-9])")
_BETWEEN_WORDS = re.compile(r"[^0-9a-z]+")


def class_of_name(column: str) -> IdentifierClass | None:
    """The class whose identifiers a column of this name holds; None where the name tells nothing.

    Where several fit, the one whose words are longest wins: "fax_phone_number" is a telephone.

    >>> str(class_of_name("PatientSSN")), class_of_name("place_of_service")
    ('class G, Social Security numbers', None)
    """
    name = _BETWEEN_WORDS.sub("_", _WORDS_OF_TWO_CASES.sub("_", column).lower())
    matches = [(each, match) for each, pattern in _NAMES if (match := pattern.search(name))]
    if not matches:
        return None
    return max(matches, key=lambda pair: len(pair[1][0].strip("_")))[0]
