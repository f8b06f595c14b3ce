"""Code tables of the Diabetes 130-US hospitals data: the publisher's ids and our levels."""

from typing import Final

ICD9CM_PATTERN: Final = r"^([0-9]{3}|V[0-9]{2}|E[0-9]{3})(\.[0-9]{1,2})?$"
"""ICD-9-CM with its leading zeros. The source lost trailing zeros after the point (250.40 is
250.4 there), and they cannot be told apart from shorter codes."""

ADMISSION_TYPES: Final = {
    "1": "emergency",
    "2": "urgent",
    "3": "elective",
    "4": "newborn",
    "7": "trauma_center",
}
"""`admission_type_id` -> level. Ids that stand for "not available", "NULL" or "not mapped" are
absent here and in the next two tables: they are missing values."""

DISCHARGE_DISPOSITIONS: Final = {
    "1": "home",
    "2": "short_term_hospital",
    "3": "skilled_nursing_facility",
    "4": "intermediate_care_facility",
    "5": "other_inpatient_institution",
    "6": "home_health_service",
    "7": "left_against_medical_advice",
    "8": "home_iv_provider",
    "9": "admitted_here",
    "10": "neonatal_aftercare",
    "12": "still_patient",
    "15": "swing_bed",
    "16": "outpatient_elsewhere",
    "17": "outpatient_here",
    "22": "rehabilitation_facility",
    "23": "long_term_care_hospital",
    "24": "medicaid_nursing_facility",
    "27": "federal_facility",
    "28": "psychiatric_hospital",
    "29": "critical_access_hospital",
    "30": "other_institution",
}
"""`discharge_disposition_id` -> level."""

ADMISSION_SOURCES: Final = {
    "1": "physician_referral",
    "2": "clinic_referral",
    "3": "hmo_referral",
    "4": "hospital",
    "5": "skilled_nursing_facility",
    "6": "other_facility",
    "7": "emergency_room",
    "8": "law_enforcement",
    "10": "critical_access_hospital",
    "11": "normal_delivery",
    "12": "premature_delivery",
    "13": "sick_baby",
    "14": "extramural_birth",
    "18": "other_home_health_agency",
    "19": "same_home_health_agency",
    "22": "same_facility",
    "23": "born_inside",
    "24": "born_outside",
    "25": "ambulatory_surgery_center",
    "26": "hospice",
}
"""`admission_source_id` -> level."""

MISSING_IDS: Final = {
    "admission_type_id": ("5", "6", "8"),
    "discharge_disposition_id": ("18", "25", "26"),
    "admission_source_id": ("9", "15", "17", "20", "21"),
}

EXCLUDED_DISPOSITIONS: Final = ("11", "13", "14", "19", "20", "21")
"""Death or hospice."""

GLUCOSE: Final = {"None": "not_measured", "Norm": "normal", ">200": ">200", ">300": ">300"}
A1C: Final = {"None": "not_measured", "Norm": "normal", ">7": ">7", ">8": ">8"}
DOSES: Final = {"No": "no", "Steady": "steady", "Up": "up", "Down": "down"}

RACES: Final = {
    "Caucasian": "white",
    "AfricanAmerican": "black",
    "Asian": "asian",
    "Other": "other",
}
"""The source counts "Hispanic" as a race; the contract keeps it as an ethnicity."""

DRUGS: Final = (
    "metformin",
    "repaglinide",
    "nateglinide",
    "chlorpropamide",
    "glimepiride",
    "acetohexamide",
    "glipizide",
    "glyburide",
    "tolbutamide",
    "pioglitazone",
    "rosiglitazone",
    "acarbose",
    "miglitol",
    "troglitazone",
    "tolazamide",
    "examide",
    "citoglipton",
    "insulin",
    "glyburide-metformin",
    "glipizide-metformin",
    "glimepiride-pioglitazone",
    "metformin-rosiglitazone",
    "metformin-pioglitazone",
)
"""The 23 drug columns, as the source spells them."""

SPECIALTY_GROUPS: Final = {
    "internal_medicine": ("InternalMedicine", "Hospitalist"),
    "emergency": ("Emergency/Trauma",),
    "family": ("Family/GeneralPractice",),
    "cardiology": ("Cardiology", "Cardiology-Pediatric"),
    "surgery": (
        "Surgery-General", "Surgery-Neuro", "Surgery-Vascular", "Surgery-Thoracic",
        "Surgery-Plastic", "Surgery-Colon&Rectal", "Surgery-Maxillofacial", "Surgery-Pediatric",
        "Surgery-PlasticwithinHeadandNeck", "Surgeon", "SurgicalSpecialty",
    ),
    "cardiovascular_surgery": ("Surgery-Cardiovascular/Thoracic", "Surgery-Cardiovascular"),
    "nephrology": ("Nephrology",),
    "orthopedics": ("Orthopedics", "Orthopedics-Reconstructive", "Podiatry", "SportsMedicine"),
    "radiology": ("Radiologist", "Radiology"),
    "pulmonology": ("Pulmonology",),
    "psychiatry": (
        "Psychiatry", "Psychology", "Psychiatry-Child/Adolescent", "Psychiatry-Addictive",
    ),
    "urology": ("Urology",),
    "obstetrics_gynecology": (
        "ObstetricsandGynecology", "Gynecology", "Obstetrics", "Perinatology",
        "Obsterics&Gynecology-GynecologicOnco",
    ),
    "gastroenterology": ("Gastroenterology", "Proctology"),
    "rehabilitation": ("PhysicalMedicineandRehabilitation",),
    "oncology": ("Oncology", "Hematology/Oncology", "Hematology"),
    "neurology": ("Neurology", "Neurophysiology"),
    "endocrinology": ("Endocrinology", "Endocrinology-Metabolism"),
    "pediatrics": (
        "Pediatrics", "Pediatrics-Endocrinology", "Pediatrics-CriticalCare",
        "Pediatrics-Pulmonology", "Pediatrics-Neurology", "Pediatrics-Hematology-Oncology",
        "Pediatrics-EmergencyMedicine", "Pediatrics-AllergyandImmunology",
        "Pediatrics-InfectiousDiseases", "Anesthesiology-Pediatric",
    ),
}  # fmt: skip
"""Group -> spellings of the admitting specialty in the source; all others are "other"."""

ORAL_DRUGS: Final = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide",
    "glipizide", "glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose",
    "miglitol", "troglitazone", "tolazamide", "glyburide_metformin", "glipizide_metformin",
    "glimepiride_pioglitazone", "metformin_rosiglitazone", "metformin_pioglitazone",
)  # fmt: skip
"""Columns of the drugs taken by mouth (all but insulin, examide and citoglipton)."""
