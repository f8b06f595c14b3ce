"""What the name of a site's column says: its words, what it resembles, and whom it identifies."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from data_contracts.deidentification.identifiers import class_of_name

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ELEMENT = re.compile(r"^([A-Z][A-Z0-9]{1,2}[0-9]{2}(?:_[0-9]{1,2})?)_(?=[A-Za-z])")
_VOWELS = re.compile("[aeiou]")
_DOUBLED = re.compile(r"(.)\1+")
_ICD = re.compile(r"icd[-_ ]?(9|10)?([-_ ]?cm)?(?![a-z])", re.IGNORECASE)

_ABBREVIATIONS: Final = {
    "action": "",
    "adjustment": "adj adjust adjmt",
    "admission": "admit adm",
    "allowed": "allow",
    "amount": "amt amounts",
    "appeal": "appl apl",
    "approved": "appr",
    "attachment": "attachments attach attch",
    "authorization": "auth authorisation authz",
    "authorized": "authd",
    "billed": "bill bld blld billing",
    "category": "cat ctgy catg categ",
    "certification": "cert certif",
    "charge": "chg charges chgs charged",
    "claim": "clm clms clcl cl",
    "code": "cd cde codes",
    "coinsurance": "coins coin",
    "copay": "copayment",
    "count": "cnt ct n",
    "criteria": "crit criterion",
    "date": "dt datetime dttm timestamp ts tmstp",
    "day": "days d dys",
    "decision": "dec decn",
    "deductible": "ded deduct dedbl",
    "description": "desc descr dsc",
    "determination": "detrm determ",
    "diagnosis": "dx diag icd",
    "eligible": "elig",
    "emergency": "er ed",
    "encounter": "enc",
    "ethnicity": "ethn eth",
    "facility": "fac",
    "flag": "flg ind indicator yn sw switch",
    "followup": "fu",
    "group": "grp",
    "hours": "hour hrs hr h",
    "level": "lvl",
    "liability": "liab",
    "line": "ln",
    "medical": "med",
    "member": "mbr memb enrollee enrolee bene beneficiary recipient recip meme mem",
    "modifier": "mod mods modifiers",
    "network": "ntwk netwk nw",
    "control": "cntl cntrl ctl ctrl",
    "number": "nbr num no numb",
    "observed": "obs",
    "other": "oth",
    "outcome": "outc",
    "paid": "pd pmt pymt pay pmnt payable payment",
    "patient": "pt pat",
    "payer": "payor pyr",
    "place": "plc",
    "policy": "pol",
    "principal": "prin princ primary prim prmy pri",
    "priority": "",
    "procedure": "proc px proced",
    "provider": "prov prv prpr",
    "quantity": "qty quan",
    "reason": "rsn reas reasons",
    "receipt": "",
    "received": "recd recv",
    "referral": "ref rfl refl referrals",
    "remark": "rmk remarks remk",
    "request": "req requests requested",
    "requesting": "reqg",
    "responsibility": "resp",
    "revenue": "rev revn",
    "reversal": "reversed",
    "secondary": "sec second",
    "sequence": "seq seqno",
    "service": "svc srv serv services",
    "specialty": "spec spcl",
    "status": "stat sts stts",
    "submitted": "subm submit sbmt submission",
    "subscriber": "subs subsc sbsb sbr",
    "taxonomy": "taxo taxn",
    "token": "tkn tok hash hashed",
    "total": "tot ttl",
    "type": "typ ty tp",
    "unit": "units uom un",
    "version": "ver vers",
    "year": "yr yyyy",
}
"""Word -> how it is abbreviated, beside leaving out its vowels."""

_FULL_WORD: Final = {
    short: word for word, shorts in _ABBREVIATIONS.items() for short in shorts.split()
}


_WEIGHT: Final = {
    **dict.fromkeys(("code", "flag", "amount", "number", "value", "id", "the", "of", "for"), 0.3),
    **dict.fromkeys(("patient", "member", "claim", "authorization", "referral", "request"), 0.5),
    **dict.fromkeys(("encounter", "type", "total"), 0.5),
}
"""Words that tell fields of one table apart badly weigh less than 1; numbers weigh 2."""

_NUMBER_WEIGHT = 2.0
_LEAST_CONSONANTS = 4  # fewer are shared by too many words
_LEAST_RATIO = 0.85  # below, two names written as one word are not alike
_PREFIX_SHARE = 0.4  # of the columns of a table begin with its name or the system's
_WITHOUT_ELEMENT = 0.9  # weight of the words beside an X12 element

_FREE_TEXT: Final = {"note", "notes", "comment", "comments", "narrative", "memo"}

_NO_NUMBER_OF_ITS_OWN: Final = {"token", "line", "item", "sequence", "count"}
"""With one of these words an id or number is a token, or counts within a record."""


def words(name: str) -> tuple[str, ...]:
    """The words of a column's name, in full and in lower case; numbers without leading zeros.

    >>> words("procCd1"), words("CLM_PRIN_DX_CD"), words("UM06"), words("Service Dt (ICD-10-CM)")
    (('procedure', 'code', '1'), ('claim', 'principal', 'diagnosis', 'code'), ('um', '6'),
     ('service', 'date', 'diagnosis'))
    """
    plain = _ICD.sub(" icd ", name.replace("#", " number ").replace("'", ""))
    return tuple(_full(word.lower()) for word in _WORD.findall(plain))


def _full(word: str) -> str:
    """A word in full, from the list or, without its vowels, from its consonants."""
    if word.isdecimal():
        return str(int(word))
    return _FULL_WORD.get(word) or _BY_CONSONANTS.get(_consonants(word), word)


def _consonants(word: str) -> str:
    """The first letter and the later consonants, doubled ones once: submitted, sbmtd -> sbmtd."""
    kept = word[:1] + _VOWELS.sub("", word[1:])
    return _DOUBLED.sub(r"\1", kept)


_BY_CONSONANTS: Final = {
    consonants: word
    for word in _ABBREVIATIONS
    if len(consonants := _consonants(word)) >= _LEAST_CONSONANTS
}


def readings(names: Sequence[str]) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    """Column -> its words, read in several ways, each with the weight of that reading.

    A first word that many columns share names the table or the system and may be left out. The X12
    element that a name begins with (UM06_LevelOfService) is read alone, too, and left out at a
    discount, as other elements are described in the same words.

    Args:
        names: All columns of a table.
    """
    split = {name: words(name) for name in names}
    first = [found[0] for found in split.values() if len(found) > 1]
    common = {word for word in first if first.count(word) >= max(3, _PREFIX_SHARE * len(names))}
    read = {}
    for name, found in split.items():
        read[name] = [(found, 1.0)]
        if len(found) > 1 and found[0] in common:
            read[name].append((found[1:], 1.0))
        if element := _ELEMENT.match(name):
            read[name].append((words(element[1]), 1.0))
            read[name].append((words(name[element.end() :]), _WITHOUT_ELEMENT))
    return read


def resemblance(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """How alike two names are, 0 to 1, from their words.

    The larger of the weighted Dice coefficient of their words, and the ratio of equal letters
    where both are written as one word (for misspelt and fused words) and their numbers agree.
    """
    a, b = set(one), set(other)
    shared = a & b
    if all(word.isdecimal() for word in shared):
        shared = set()  # numbers alone make no likeness
    dice = 2 * _weight(shared) / max(_weight(a) + _weight(b), 1e-9)
    if dice == 1 or {w for w in a ^ b if w.isdecimal()}:
        return dice
    letters = difflib.SequenceMatcher(None, "".join(one), "".join(other), autojunk=False)
    if letters.real_quick_ratio() < _LEAST_RATIO or letters.quick_ratio() < _LEAST_RATIO:
        return dice  # upper bounds, as the ratio itself takes long
    ratio = letters.ratio()
    return max(dice, 0.95 * ratio if ratio >= _LEAST_RATIO else 0.0)


def identifier_in(name: str) -> str | None:
    """What a column's name says that it identifies, or "free text"; None where it names nothing.

    The gate's classes, read with abbreviations in full; an age or three digits of a ZIP code may be
    mapped.

    >>> identifier_in("MBR_ID"), identifier_in("MBR_ID_HASH"), identifier_in("CLAIM_LINE_NO")
    ('class I, health plan beneficiary numbers', None, None)
    >>> identifier_in("SSN_HASH"), identifier_in("ADDRESS_LINE_1")
    ('class G, Social Security numbers', 'class B, geographic units smaller than a state')
    """
    held = words(name)
    if {"zip", "3"} <= set(held) or "age" in held:
        return None
    if _FREE_TEXT & set(held) or {"free", "text"} <= set(held):
        return "free text"
    numbers = {"id", "number"} if _NO_NUMBER_OF_ITS_OWN & set(held) else set()
    found = class_of_name("_".join(word for word in held if word not in numbers))
    return str(found) if found else None


def _weight(of: Iterable[str]) -> float:
    return sum(_NUMBER_WEIGHT if word.isdecimal() else _WEIGHT.get(word, 1.0) for word in of)
