"""Diagnosis codes in groups: ICD-10-CM chapters, and named conditions of ICD-9-CM.

Groups are public and fixed; none is chosen from a site's data.
"""

from typing import Final

import polars as pl

ICD10_CHAPTERS: Final = {
    "infectious": ("A", "B"),
    "neoplasms": ("C",),
    "blood_or_neoplasm": ("D",),
    "endocrine": ("E",),
    "mental": ("F",),
    "nervous": ("G",),
    "eye_or_ear": ("H",),
    "circulatory": ("I",),
    "respiratory": ("J",),
    "digestive": ("K",),
    "skin": ("L",),
    "musculoskeletal": ("M",),
    "genitourinary": ("N",),
    "pregnancy": ("O",),
    "perinatal": ("P",),
    "congenital": ("Q",),
    "symptoms": ("R",),
    "injury": ("S", "T"),
    "external": ("V", "W", "X", "Y"),
    "health_status": ("Z",),
    "special": ("U",),
}
"""Chapter -> first letters. D spans two chapters and H two; their letters are kept whole."""

_CHAPTER_OF = {letter: name for name, letters in ICD10_CHAPTERS.items() for letter in letters}

# Ranges of the three-digit ICD-9-CM categories. The conditions are those that readmission measures
# single out (CMS HRRP; LACE and HOSPITAL scores); the rest are the groups of Strack et al. 2014,
# table 2, its "other" split by chapter. Earlier entries win.
_ICD9_RANGES: Final = {
    "heart_failure": ((428, 428),),
    "myocardial_infarction": ((410, 410),),
    "other_ischemic": ((411, 414),),
    "arrhythmia": ((426, 427),),
    "stroke": ((430, 438),),
    "peripheral_vascular": ((440, 447),),
    "hypertension": ((401, 405),),
    "venous": ((451, 459),),
    "pneumonia": ((480, 486),),
    "copd": ((490, 496),),
    "respiratory_failure": ((510, 519),),
    "sepsis": ((38, 38),),
    "renal_failure": ((584, 586),),
    "urinary_tract": ((590, 599),),
    "liver": ((570, 573),),
    "gall_bladder_pancreas": ((574, 577),),
    "bowel": ((555, 569),),
    "fluid_electrolyte": ((276, 276),),
    "anemia": ((280, 285),),
    "psychosis": ((290, 299),),
    "substance": ((303, 305),),
    "skin_infection": ((680, 686),),
    "skin_ulcer": ((707, 707),),
    "osteoarthrosis": ((710, 719),),
    "spine": ((720, 724),),
    "bone": ((730, 733),),
    "chest_pain": ((786, 786),),
    "syncope_general": ((780, 780),),
    "fracture": ((800, 829),),
    "complication_of_care": ((996, 999),),
    "diabetes": ((250, 250),),
    "circulatory": ((390, 459), (785, 785)),
    "respiratory": ((460, 519),),
    "digestive": ((520, 579), (787, 787)),
    "genitourinary": ((580, 629), (788, 788)),
    "injury": ((800, 999),),
    "musculoskeletal": ((710, 739),),
    "neoplasms": ((140, 239),),
    "infectious": ((1, 139),),
    "endocrine": ((240, 279),),
    "blood": ((280, 289),),
    "mental": ((290, 319),),
    "nervous": ((320, 389),),
    "pregnancy": ((630, 679),),
    "skin": ((680, 709),),
    "congenital": ((740, 759),),
    "symptoms": ((780, 799),),
}
_ICD9_PREFIXES: Final = {"rehabilitation": "V57", "supplementary": "V", "external": "E"}

ICD9_CONDITIONS: Final = (*_ICD9_PREFIXES, *_ICD9_RANGES)
"""Levels of `icd9_condition`."""


def icd10_chapter(code: pl.Expr) -> pl.Expr:
    """Chapter of ICD-10-CM codes, by their first letter; null for anything else."""
    letters, chapters = list(_CHAPTER_OF), list(_CHAPTER_OF.values())
    return code.str.slice(0, 1).replace_strict(
        letters, chapters, default=None, return_dtype=pl.String
    )


def icd9_condition(code: pl.Expr) -> pl.Expr:
    """Condition or group of ICD-9-CM codes; null for anything else."""
    category = code.str.extract(r"^(\d{3})").cast(pl.Int16)
    named = [
        pl.when(code.str.starts_with(prefix)).then(pl.lit(name))
        for name, prefix in _ICD9_PREFIXES.items()
    ]
    ranged = [
        pl.when(pl.any_horizontal(category.is_between(low, high) for low, high in ranges)).then(
            pl.lit(name)
        )
        for name, ranges in _ICD9_RANGES.items()
    ]
    return pl.coalesce(*named, *ranged)
