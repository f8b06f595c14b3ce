"""Claims for the services of a chunk, as rows of `claim_payment`."""

import numpy as np
import polars as pl

from data_contracts.schemas import ClaimPayment
from data_contracts.synthetic import codes
from data_contracts.synthetic.columns import conform, null_unless, pick, pick_within
from data_contracts.synthetic.mechanism import Chunk
from data_contracts.synthetic.population import IntArray, happens
from data_contracts.synthetic.settings import SERVICES, Mechanism
from data_contracts.synthetic.sites import Sites
from data_contracts.synthetic.tables import Tokens
from data_contracts.synthetic.tokens import tokens

_CODES = [codes.BY_SERVICE[service] for service in SERVICES]


def claimed(mechanism: Mechanism, chunk: Chunk) -> IntArray:
    """Index of the requests for which a claim came in, (n_claims,)."""
    money, received = mechanism.money, chunk.reviews.received
    share = np.where(received, money.claim_share, money.unauthorized_share)
    return np.flatnonzero(chunk.extras.random(len(received)) < share)


def claim_rows(
    mechanism: Mechanism, sites: Sites, chunk: Chunk, keys: Tokens, rows: IntArray, seed: int
) -> pl.DataFrame:
    """Rows of `claim_payment` for the requests that `claimed` gives.

    A claim is paid, not yet paid, or denied. Services that were never authorized are always
    denied. CARCs stand on denied claims only.
    """
    rng, money = chunk.extras, mechanism.money
    count = len(rows)
    service, payer = chunk.requests.service[rows], chunk.requests.payer[rows]
    line = sites.line[payer]
    received = chunk.reviews.received[rows]
    maturity = sites.maturity[chunk.requests.provider[rows]]
    denied = ~received | happens(
        rng,
        money.claim_denied_intercept
        + money.claim_denied_of_maturity * maturity
        + money.claim_denied_of_laxity * sites.laxity[payer],
    )
    price = np.round(chunk.follow_ups.service_price[rows], 2)
    markup = money.markup * np.exp(money.service_sigma / 2 * rng.standard_normal(count))
    submitted = np.round(np.maximum(price, price * markup), 2)
    eligible = np.where(denied, 0.0, price)
    due = rng.random(count) < np.asarray(money.deductible_share)[line]
    deductible = np.round(
        np.minimum(eligible, due * rng.exponential(money.deductible_mean, count)), 2
    )
    coinsurance = np.round(np.asarray(money.coinsurance)[line] * (eligible - deductible), 2)
    rest = eligible - deductible - coinsurance
    copay = np.round(np.minimum(rest, np.asarray(money.copay)[line]), 2)
    receipt = np.round(rng.gamma(2.0, money.receipt_days_mean / 2.0, count)).astype(np.int64)
    payment = np.round(
        money.payment_days_median
        * sites.slowness[payer]
        * np.exp(
            money.payment_of_maturity * maturity + money.payment_sigma * rng.standard_normal(count)
        )
    ).astype(np.int64)
    paid = ~denied & (payment <= money.payment_window_days)
    carc = np.where(
        received,
        rng.integers(0, len(codes.CLAIM_DENIALS), count),
        codes.CLAIM_DENIALS.index(codes.UNAUTHORIZED),
    )
    frame = pl.DataFrame(
        {
            "claim_token": tokens("claim", chunk.first_request + rows, seed),
            "adjudication_seq": pl.repeat(0, count, eager=True),
            "request_token": keys.request.gather(rows),
            "patient_token": keys.patient.gather(rows),
            "claim_status": pick(("1", "4"), denied),
            "submitted": submitted,
            "eligible": eligible,
            "paid_to_provider": np.where(paid, np.round(rest - copay, 2), 0.0),
            "paid_by_patient": np.where(paid, np.round(deductible + coinsurance + copay, 2), 0.0),
            "deductible": deductible,
            "coinsurance": coinsurance,
            "copay": copay,
            "group_code": null_unless(denied, pl.repeat("CO", count, eager=True)),
            "carc": null_unless(denied, pick(codes.CLAIM_DENIALS, carc)),
            "days_service_to_receipt": receipt,
            "days_receipt_to_payment": null_unless(paid, payment),
            "payment_method": pick(("NON", "ACH", "CHK"), paid * rng.choice((1, 1, 1, 2), count)),
            "reversal_flag": pl.repeat(False, count, eager=True),
            "drg": pick_within([c.drgs or (None,) for c in _CODES], service, rng),
            "revenue_code": pick([c.revenue_code or None for c in _CODES], service),
        }
    )
    return conform(frame, ClaimPayment)
