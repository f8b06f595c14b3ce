"""What the payer answered."""

import dataframely as dy
import polars as pl

from data_contracts import vocabulary as v
from data_contracts.fields import terms
from data_contracts.schemas.shared_terms import (
    CLINICAL,
    CODE,
    DECISION,
    OPERATIONAL,
    REQUEST_TOKEN,
)

_REASONS = {
    code: f"{label} ({group})"
    for group, labels in v.REASON_GROUPS.items()
    for code, label in labels.items()
}


class PaDecision(dy.Schema):
    """One row per answer of the payer to a request (278 response, FHIR ClaimResponse)."""

    request_token = dy.String(
        primary_key=True,
        regex=v.TOKEN_PATTERN,
        description="The request that is answered",
        metadata=REQUEST_TOKEN,
    )
    exchange_seq = dy.Int16(
        primary_key=True,
        min=0,
        description="0 is the answer to the initial exchange",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    action_code = dy.Enum(
        v.ACTION_CODES,
        description="What was decided",
        metadata=terms(
            "PV",
            DECISION,
            OPERATIONAL,
            standard="X12 278 HCR01",
            code_systems=("X12 306",),
            labels=v.ACTION_CODES,
        ),
    )
    reason_codes = dy.List(
        CODE,
        nullable=True,
        description="Reasons given",
        metadata=terms(
            "PV",
            DECISION,
            OPERATIONAL,
            standard="X12 278 HCR03",
            code_systems=("X12 886",),
            labels=_REASONS,
        ),
    )
    decision_hours = dy.Float64(
        min=0,
        description="Hours from submission to this answer",
        metadata=terms("PV", DECISION, OPERATIONAL, unit="h", declared_range=(0, 1440)),
    )
    extended_flag = dy.Bool(
        nullable=True,
        description="The review time was extended",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    auto_decided = dy.Bool(
        nullable=True,
        description="Decided without a person",
        metadata=terms("P", DECISION, OPERATIONAL),
    )
    reviewer_queue = dy.String(
        nullable=True,
        regex=v.PSEUDONYM_PATTERN,
        description="Queue that reviewed the request",
        metadata=terms("P", DECISION, OPERATIONAL),
    )
    p2p_held = dy.Bool(
        nullable=True,
        description="A peer-to-peer talk was held",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    units_approved = dy.Float64(
        nullable=True,
        min=0,
        description="Units approved",
        metadata=terms("PV", DECISION, CLINICAL, declared_range=(0, 365)),
    )
    auth_period_days = dy.Int32(
        nullable=True,
        min=0,
        description="Days for which the authorization holds",
        metadata=terms("PV", DECISION, OPERATIONAL, unit="d", declared_range=(0, 730)),
    )
    appeal_level = dy.Int16(
        nullable=True,
        min=1,
        max=5,
        description="Level of the appeal that this answer closes; null outside appeals",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    appeal_outcome = dy.Enum(
        v.APPEAL_OUTCOMES,
        nullable=True,
        description="Outcome of the appeal",
        metadata=terms("PV", DECISION, OPERATIONAL),
    )
    appeal_hours = dy.Float64(
        nullable=True,
        min=0,
        description="Hours from appeal to its outcome",
        metadata=terms("PV", DECISION, OPERATIONAL, unit="h", declared_range=(0, 2160)),
    )

    @dy.rule()
    def appeal_has_level(cls) -> pl.Expr:
        """An appeal outcome names its level, and a level its outcome."""
        return pl.col("appeal_outcome").is_null() == pl.col("appeal_level").is_null()
