"""How a claim was paid or denied."""

import dataframely as dy
import polars as pl

from data_contracts import vocabulary as v
from data_contracts.fields import terms
from data_contracts.schemas.shared_terms import (
    CLINICAL,
    FINANCIAL,
    FOLLOWUP,
    OPERATIONAL,
    PATIENT_TOKEN,
    REQUEST_TOKEN,
    SUBMISSION,
    TOKEN,
)


class ClaimPayment(dy.Schema):
    """One row per adjudication of a claim (837/835, CARIN Blue Button ExplanationOfBenefit)."""

    claim_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The claim",
        metadata=terms("PV", SUBMISSION, TOKEN),
    )
    adjudication_seq = dy.Int16(
        primary_key=True,
        min=0,
        description="0 is the first adjudication; corrections, reversals and later payers count up",
        metadata=terms("PV", FOLLOWUP, OPERATIONAL),
    )
    request_token = dy.String(
        nullable=True,
        regex=v.TOKEN_PATTERN,
        description="The request that authorized the service",
        metadata=REQUEST_TOKEN,
    )
    patient_token = dy.String(
        nullable=True,
        regex=v.TOKEN_PATTERN,
        description="The patient",
        metadata=PATIENT_TOKEN,
    )
    claim_status = dy.Enum(
        v.CLAIM_STATUS,
        nullable=True,
        description="How the claim was processed",
        metadata=terms(
            "PV",
            FOLLOWUP,
            FINANCIAL,
            standard="X12 835 CLP02",
            code_systems=("X12 1029",),
            labels=v.CLAIM_STATUS,
        ),
    )
    submitted = dy.Float64(
        description="Charge submitted",
        metadata=terms(
            "PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e6), standard="835 CLP03"
        ),
    )
    eligible = dy.Float64(
        nullable=True,
        description="Amount eligible under the contract",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e6)),
    )
    paid_to_provider = dy.Float64(
        nullable=True,
        description="Paid by the payer to the provider",
        metadata=terms(
            "PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e6), standard="835 CLP04"
        ),
    )
    paid_by_patient = dy.Float64(
        nullable=True,
        description="Paid by the patient",
        metadata=terms(
            "PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e5), standard="835 CLP05"
        ),
    )
    deductible = dy.Float64(
        nullable=True,
        description="Share that is deductible",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e5)),
    )
    coinsurance = dy.Float64(
        nullable=True,
        description="Share that is coinsurance",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e5)),
    )
    copay = dy.Float64(
        nullable=True,
        description="Share that is copay",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, unit="USD", declared_range=(0, 1e4)),
    )
    group_code = dy.Enum(
        v.ADJUSTMENT_GROUPS,
        nullable=True,
        description="Group of the adjustment",
        metadata=terms(
            "PV",
            FOLLOWUP,
            FINANCIAL,
            standard="X12 835 CAS01",
            code_systems=("X12 1033",),
            labels=v.ADJUSTMENT_GROUPS,
        ),
    )
    carc = dy.String(
        nullable=True,
        regex=r"^[A-Z]{0,2}[0-9]{1,3}$",
        description="Claim adjustment reason code",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 CAS02", code_systems=("CARC",)),
    )
    rarc = dy.List(
        dy.String(regex=r"^[A-Z]{1,2}[0-9]{1,4}$"),
        nullable=True,
        description="Remittance advice remark codes",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, standard="X12 835 LQ02", code_systems=("RARC",)),
    )
    days_service_to_receipt = dy.Int32(
        nullable=True,
        min=0,
        description="Days from service to receipt of the claim",
        metadata=terms("PV", FOLLOWUP, OPERATIONAL, unit="d", declared_range=(0, 365)),
    )
    days_receipt_to_payment = dy.Int32(
        nullable=True,
        min=0,
        description="Days from receipt to payment; null while unpaid (right-censored)",
        metadata=terms("PV", FOLLOWUP, OPERATIONAL, unit="d", declared_range=(0, 365)),
    )
    payment_method = dy.Enum(
        v.PAYMENT_METHODS,
        nullable=True,
        description="How it was paid",
        metadata=terms(
            "PV",
            FOLLOWUP,
            FINANCIAL,
            standard="X12 835 BPR04",
            code_systems=("X12 591",),
            labels=v.PAYMENT_METHODS,
        ),
    )
    reversal_flag = dy.Bool(
        nullable=True,
        description="The adjudication takes an earlier one back",
        metadata=terms("PV", FOLLOWUP, FINANCIAL),
    )
    drg = dy.String(
        nullable=True,
        regex=r"^[0-9]{3}$",
        description="Diagnosis-related group",
        metadata=terms("PV", FOLLOWUP, CLINICAL, code_systems=("MS-DRG",)),
    )
    revenue_code = dy.String(
        nullable=True,
        regex=r"^[0-9]{4}$",
        description="Revenue code",
        metadata=terms("PV", FOLLOWUP, FINANCIAL, code_systems=("NUBC revenue codes",)),
    )

    @dy.rule()
    def only_reversals_are_negative(cls) -> pl.Expr:
        """Charges and shares below zero stand in reversals alone (835 TR3 1.10.2.8)."""
        amounts = pl.col(
            "submitted", "eligible", "paid_by_patient", "deductible", "coinsurance", "copay"
        )
        return pl.col("reversal_flag").fill_null(False) | ~pl.any_horizontal(
            (amounts < 0).fill_null(False)
        )
