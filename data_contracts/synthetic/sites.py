"""The sites of a synthetic network: names, shares and fixed effects, for any count of them."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from data_contracts.synthetic.settings import SiteEffects

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sites:
    """Payers and providers with their effects.

    Attributes:
        payers: Names, which are also the pseudonyms in the tables.
        providers: The same for the provider groups.
        line: Index into `SiteEffects.payer_lines` of each payer.
        payer_share: Share of the patients, (n_payers,).
        strictness: Effect on meeting policy elements, (n_payers,).
        laxity: Effect on approval, (n_payers,).
        slowness: Factor on decision times, (n_payers,).
        provider_share: Share of the requests, (n_providers,).
        maturity: Digital maturity, (n_providers,).
        leniency: Leniency of a payer's reviewer queues, mean 0 and variance 1, (n_queues,).
    """

    payers: tuple[str, ...]
    providers: tuple[str, ...]
    line: NDArray[np.int64]
    payer_share: FloatArray
    strictness: FloatArray
    laxity: FloatArray
    slowness: FloatArray
    provider_share: FloatArray
    maturity: FloatArray
    leniency: FloatArray


def make_sites(effects: SiteEffects, n_payers: int, n_providers: int) -> Sites:
    """Spread the default sites' effects over any number of sites.

    Site i of n stands at the quantile (i + 1/2) / n; its effects are read off the line through
    the defaults' effects at theirs, and never goes beyond them. The default counts give the
    defaults exactly. Lines of business take turns in equal blocks of payers.
    """
    payer_share = _spread(effects.payer_shares, n_payers)
    provider_share = _spread(effects.provider_shares, n_providers)
    rank = np.arange(n_providers) / (n_providers - 1) if n_providers > 1 else np.array([0.5])
    n_queues = effects.queues_per_payer
    leniency = np.array([NormalDist().inv_cdf((i + 0.5) / n_queues) for i in range(n_queues)])
    if n_queues > 1:
        leniency /= leniency.std()
    n_lines = len(effects.payer_lines)
    return Sites(
        payers=_names("payer", n_payers, 1),
        providers=_names("provider", n_providers, 2),
        line=np.arange(n_payers) * n_lines // max(n_payers, n_lines),
        payer_share=payer_share / payer_share.sum(),
        strictness=_spread(effects.payer_strictness, n_payers),
        laxity=_spread(effects.payer_laxity, n_payers),
        slowness=_spread(effects.payer_slowness, n_payers),
        provider_share=provider_share / provider_share.sum(),
        maturity=effects.maturity_centre + effects.maturity_spread * (2 * rank - 1),
        leniency=leniency,
    )


def _names(role: str, count: int, digits: int) -> tuple[str, ...]:
    width = max(digits, len(str(count)))
    return tuple(f"{role}-{number:0{width}d}" for number in range(1, count + 1))


def _spread(defaults: tuple[float, ...], count: int) -> FloatArray:
    known = (np.arange(len(defaults)) + 0.5) / len(defaults)
    wanted = (np.arange(count) + 0.5) / count
    return np.interp(wanted, known, defaults)
