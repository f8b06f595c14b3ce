"""On which legal ground a site's tables may be used, and who may hold the network's key."""

import tomllib
from datetime import date
from pathlib import Path

import pytest

from data_contracts.deidentification.policy import Policy, PolicyError, write_key
from data_contracts.deidentification.tokens import SCHEME, Tokens

DERIVED = f'scheme = "{SCHEME}"\nkey_file = "network.key"\n'
EXPERT = 'mode = "expert_determination"\ncertificate = "ED-12"\nexpires = 2027-06-30\n'
LIMITED = 'mode = "limited_data_set"\ndua = "DUA-7"\nexpires = 2027-06-30\n'


def parse(text: str, folder: Path = Path("/site")) -> Policy:
    return Policy.parse(tomllib.loads(text), folder / "site.toml")


# --- grounds -------------------------------------------------------------------------------------


def test_safe_harbor_is_the_default_and_takes_random_tokens() -> None:
    policy = parse("")
    assert policy == Policy() == Policy("safe_harbor", scheme="random")
    assert not policy.is_phi
    assert not policy.allows_dates
    assert policy.check(date(2100, 1, 1)) == ""


def test_an_expert_s_determination_has_a_certificate_and_an_end() -> None:
    policy = parse(EXPERT + DERIVED)
    assert policy == Policy(
        "expert_determination",
        certificate="ED-12",
        expires=date(2027, 6, 30),
        scheme=SCHEME,
        key_file=Path("/site/network.key"),
    )
    assert not policy.is_phi
    assert not policy.allows_dates


def test_a_limited_data_set_has_an_agreement_and_stays_phi() -> None:
    policy = parse(LIMITED)
    assert (policy.dua, policy.expires) == ("DUA-7", date(2027, 6, 30))
    assert policy.is_phi
    assert policy.allows_dates


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('mode = "expert_determination"\nexpires = 2027-06-30', "needs certificate"),
        ('mode = "expert_determination"\ncertificate = "ED-12"', "needs expires"),
        ('mode = "limited_data_set"\nexpires = 2027-06-30', "needs dua"),
        ('mode = "limited_data_set"\ndua = "DUA-7"', "needs expires"),
        (LIMITED + 'certificate = "ED-12"', "certificate .* has no meaning"),
        (EXPERT + 'dua = "DUA-7"', "dua .* has no meaning"),
        ("expires = 2027-06-30", "expires .* has no meaning"),
        ('mode = "none"', "mode .* not one of safe_harbor, expert_determination, limited_data_set"),
        ('moed = "safe_harbor"', "unknown key 'moed' .* did you mean 'mode'"),
        ("zzz = 1", "unknown key 'zzz' .* known are mode"),
        (EXPERT.replace("2027-06-30", '"2027-06-30"'), "expires .* must be a date without quotes"),
        (EXPERT.replace("2027-06-30", "2027-06-30T00:00:00"), "expires .* must be a date"),
        (EXPERT.replace('"ED-12"', '" "'), "certificate .* must be a text"),
        (EXPERT.replace('"ED-12"', "12"), "certificate .* must be a text"),
        ('scheme = "sha1"', f"scheme .* not one of random, {SCHEME}"),
        (EXPERT + f'scheme = "{SCHEME}"', "key_file"),
        (EXPERT + 'key_file = "network.key"', "key_file"),
        (DERIVED, r"164\.514\(c\).*X12, FHIR and OMOP"),
    ],
)
def test_what_is_missing_or_contradictory_is_refused_with_the_file(text: str, told: str) -> None:
    with pytest.raises(PolicyError, match=rf"(?s)^/site/site\.toml: .*{told}"):
        parse(text)


@pytest.mark.parametrize("text", [EXPERT, LIMITED])
def test_a_ground_warns_from_30_days_before_and_ends_with_its_last_day(text: str) -> None:
    policy = parse(text)  # up to and with 30 June 2027
    assert policy.check(date(2027, 5, 30)) == ""  # 31 days before
    for day in (date(2027, 5, 31), date(2027, 6, 30)):
        assert "expires on 2027-06-30" in policy.check(day)
    with pytest.raises(PolicyError, match="expired on 2027-06-30: have it renewed"):
        policy.check(date(2027, 7, 1))


# --- the key -------------------------------------------------------------------------------------


def test_a_new_key_is_the_account_s_own_and_gives_tokens(tmp_path: Path) -> None:
    write_key(tmp_path / "network.key")
    assert (tmp_path / "network.key").stat().st_mode & 0o777 == 0o600
    policy = parse(EXPERT + DERIVED, tmp_path)
    key = bytes.fromhex((tmp_path / "network.key").read_text())
    assert len(key) == 32
    assert policy.tokens().patient("payer-1", "A1") == Tokens(key).patient("payer-1", "A1")


def test_every_key_is_another(tmp_path: Path) -> None:
    for name in ("a.key", "b.key"):
        write_key(tmp_path / name)
    assert (tmp_path / "a.key").read_text() != (tmp_path / "b.key").read_text()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_key(tmp_path / "network.key")
    before = (tmp_path / "network.key").read_text()
    with pytest.raises(PolicyError, match=r"network\.key exists and is kept"):
        write_key(tmp_path / "network.key")
    assert (tmp_path / "network.key").read_text() == before


def test_a_key_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be written: No such file or directory"):
        write_key(tmp_path / "nowhere" / "network.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "network.key"
    write_key(key)
    key.chmod(mode)
    with pytest.raises(PolicyError, match=f"chmod 600 {key}"):
        parse(EXPERT + DERIVED, tmp_path).tokens()


@pytest.mark.parametrize("text", ["", "ab" * 31, "no hexadecimal " * 8, "é" * 64])
def test_what_is_no_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    key = tmp_path / "network.key"
    key.write_text(text, encoding="utf-8")
    key.chmod(0o600)
    with pytest.raises(PolicyError, match="32 bytes or more in hexadecimal") as caught:
        parse(LIMITED + DERIVED, tmp_path).tokens()
    assert not text or text not in str(caught.value)


def test_a_key_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file or directory"):
        parse(EXPERT + DERIVED, tmp_path).tokens()


def test_exchanges_need_derived_tokens() -> None:
    with pytest.raises(PolicyError, match=r"under Safe Harbor .*164\.514\(c\).*need derived"):
        Policy().tokens()
    with pytest.raises(PolicyError, match=rf"set scheme = '{SCHEME}' and key_file"):
        parse(EXPERT).tokens()
