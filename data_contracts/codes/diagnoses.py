"""Diagnosis codes in groups: chapters and clinical groups of ICD-10-CM, conditions of ICD-9-CM.

Groups are public and fixed; none is chosen from a site's data.

Source: ICD-10-CM tabular list of CDC/NCHS and CMS, fiscal year 2026 (public domain).
"""

from typing import Final

import polars as pl

from data_contracts.codes.ranges import CodeGroups

# CMS says of the second character that it is a digit; the category QA0 (2026) has a letter there.
_ICD10CM_SHAPE: Final = r"^[A-Z][0-9A][0-9A-Z][0-9A-Z]{0,4}$"

ICD10_CHAPTERS: Final = {
    "infectious": "A00-B99",
    "neoplasms": "C00-D49",
    "blood": "D50-D89",
    "endocrine": "E00-E89",
    "mental": "F01-F99",
    "nervous": "G00-G99",
    "eye": "H00-H59",
    "ear": "H60-H95",
    "circulatory": "I00-I99",
    "respiratory": "J00-J99",
    "digestive": "K00-K95",
    "skin": "L00-L99",
    "musculoskeletal": "M00-M99",
    "genitourinary": "N00-N99",
    "pregnancy": "O00-O9A",
    "perinatal": "P00-P96",
    "congenital": "Q00-QA0",
    "symptoms": "R00-R99",
    "injury": "S00-T88",
    "external": "V00-Y99",
    "health_status": "Z00-Z99",
    "special": "U00-U85",
}
"""Chapter -> its categories, as the tabular list bounds it."""

ICD10_GROUPS: Final = {
    # 1 Infectious diseases, and 22 codes for special purposes
    "sepsis": "A40-A41 R65",
    "hiv": "B20",
    "viral_hepatitis": "B15-B19",
    "covid19": "U07 U09",
    "infection_other": "A00-A39 A42-B10 B25-B99",
    # 2 Neoplasms
    "cancer_digestive": "C15-C26",
    "cancer_respiratory": "C30-C39",
    "cancer_breast": "C50",
    "cancer_prostate": "C61",
    "cancer_urogenital_other": "C51-C60 C62-C68",
    "cancer_blood": "C81-C96",
    "cancer_secondary": "C76-C79 C7B C80",
    "cancer_other": "C00-C14 C40-C4A C69-C75 C7A",
    "neoplasm_benign_or_uncertain": "D00-D49",
    # 3 Blood
    "anemia": "D50-D64",
    "blood_other": "D65-D89",
    # 4 Endocrine, nutrition, metabolism
    "diabetes": "E08-E13",
    "malnutrition": "E40-E64",
    "obesity": "E65-E68",
    "lipids": "E78",
    "fluid_electrolyte": "E86-E87",
    "endocrine_other": "E00-E07 E15-E36 E70-E77 E79-E85 E88-E89",
    # 5 Mental
    "dementia": "F01-F03 G30-G31",
    "substance_use": "F10-F19",
    "psychosis": "F20-F29",
    "mood": "F30-F39",
    "anxiety": "F40-F48",
    "developmental": "F70-F98",
    "mental_other": "F04-F09 F50-F69 F99",
    # 6 Nervous system
    "movement": "G10-G26",
    "demyelinating": "G35-G37",
    "epilepsy": "G40",
    "sleep": "G47",
    "nerve_and_muscle": "G50-G73",
    "paralysis": "G80-G83",
    "nervous_other": "G00-G09 G32 G43-G44 G89-G99",
    # 7 and 8 Eye, ear
    "retina": "H30-H36",
    "eye_other": "H00-H28 H40-H59",
    "ear": "H60-H95",
    # 9 Circulatory system
    "hypertension": "I10-I1A",
    "myocardial_infarction": "I21-I22",
    "coronary": "I20 I23-I25",
    "pulmonary_circulation": "I26-I28",
    "arrhythmia": "I44-I49",
    "heart_failure": "I50",
    "heart_other": "I00-I09 I30-I43 I51-I5A",
    "stroke": "G45-G46 I60-I69",
    "arteries": "I70-I79",
    "veins_and_other_vessels": "I80-I99",
    # 10 Respiratory system
    "respiratory_infection_other": "J00-J06 J20-J22",
    "pneumonia_influenza": "J09-J18",
    "copd": "J40-J44 J47 J4A",
    "asthma": "J45",
    "respiratory_failure": "J96",
    "respiratory_other": "J30-J39 J60-J95 J98-J99",
    # 11 Digestive system
    "inflammatory_bowel": "K50-K51",
    "bowel_other": "K35-K46 K52-K68",
    "liver": "K70-K77",
    "gall_bladder_pancreas": "K80-K87",
    "digestive_other": "K00-K31 K90-K95",
    # 12 Skin
    "skin_infection": "L00-L08",
    "skin_ulcer": "L89 L97",
    "skin_other": "L10-L88 L90-L96 L98-L99",
    # 13 Musculoskeletal system
    "arthritis_inflammatory": "M00-M14 M1A M30-M36",
    "osteoarthritis": "M15-M19",
    "spine": "M40-M54",
    "bone": "M80-M94",
    "joint_and_soft_tissue_other": "M20-M27 M60-M79 M95-M99",
    # 14 Genitourinary system
    "kidney_failure": "N17-N19",
    "urinary_other": "N00-N16 N20-N39",
    "genital_and_breast": "N40-N99",
    # 15 to 17 Pregnancy, newborns
    "pregnancy": "O00-O9A",
    "perinatal": "P00-P96",
    "congenital": "Q00-QA0",
    # 18 Symptoms
    "symptom_heart_lung": "R00-R09",
    "symptom_digestive": "R10-R19",
    "symptom_other": "R20-R64 R66-R99",
    # 19 and 20 Injuries, causes
    "hip_fracture": "S72",
    "injury_other": "S00-S71 S73-T34 T66-T79",
    "poisoning": "T36-T65",
    "complication_of_care": "T80-T88",
    "external_cause": "V00-Y99",
    # 21 Health status
    "prevention_and_reproduction": "Z00-Z3A",
    "aftercare": "Z40-Z53",
    "social": "Z55-Z65",
    "status": "Z66-Z99",
}
"""Clinical group -> its categories (three characters), with labels of our own.

They follow the aims of AHRQ's Clinical Classifications Software Refined (HCUP CCSR for ICD-10-CM
diagnoses, v2026.1, public domain), which is finer: it groups whole codes, and a code may be in
several of its groups. By category a few things cannot be told apart: heart failure with
hypertension (I11.0, I13.0) is `hypertension`, vaping-related disorder (U07.0) is `covid19`.
"""


def _category(code: pl.Expr) -> pl.Expr:
    return code.str.slice(0, 3)


ICD10CM: Final = CodeGroups(_ICD10CM_SHAPE, _category, ICD10_GROUPS)
"""Clinical groups of ICD-10-CM."""

_CHAPTERS = CodeGroups(_ICD10CM_SHAPE, _category, ICD10_CHAPTERS)

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
    """Chapter of ICD-10-CM codes (levels: `ICD10_CHAPTERS`); null for anything else."""
    return _CHAPTERS.group(code)


def icd10_group(code: pl.Expr) -> pl.Expr:
    """Clinical group of ICD-10-CM codes (levels: `ICD10_GROUPS`); null for anything else."""
    return ICD10CM.group(code)


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
