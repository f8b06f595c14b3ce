"""Who is who: crosswalks are read strictly, and their errors repeat no identifier."""

from pathlib import Path

import pytest

from data_contracts.crosswalk import Crosswalk, Payer
from data_contracts.deidentification.tokens import Tokens
from data_contracts.errors import ManifestError

TOKENS = Tokens(bytes(range(32)))
NPI = "1234567893"


def payers(tmp_path: Path, *lines: str) -> Crosswalk:
    file = tmp_path / "payers.csv"
    file.write_text("identifier,pseudonym,business_line\n" + "\n".join(lines), encoding="utf-8")
    return Crosswalk.load(TOKENS, {"payers": file})


def test_identifiers_are_known_however_they_are_written(tmp_path: Path) -> None:
    crosswalk = payers(tmp_path, "H-1234,payer-1,MA", "h5678,payer-1,")
    assert crosswalk.payer(" h1234 ") == Payer("payer-1", "MA")
    assert crosswalk.payer("H5678") == Payer("payer-1", None)


def test_strangers_get_a_pseudonym_that_is_the_same_everywhere(tmp_path: Path) -> None:
    here, there = Crosswalk(TOKENS), payers(tmp_path, "H1,payer-1,MA")
    assert here.provider(NPI) == there.provider(NPI)
    assert here.provider(NPI) != here.provider("1234567894")
    assert here.provider(NPI) != here.payer(NPI).pseudonym
    assert NPI not in here.provider(NPI)
    assert Crosswalk(Tokens(bytes(32))).provider(NPI) != here.provider(NPI)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{NPI},St. Mary,MA", "line 2: a pseudonym has lower-case letters"),
        (f"{NPI},payer-1,Medicare", "line 2: the business line is not one of MA, "),
        (f"{NPI},payer-1", "line 2: 3 cells"),
        (f"{NPI},payer-1,MA,x", "line 2: 3 cells"),
        (" ,payer-1,MA", "line 2: the identifier is empty"),
        (f"{NPI},payer-1,MA\n123-456-7893,payer-2,MA", "line 3: the identifier has another"),
        (f'{NPI},"payer-1,MA', "no CSV file"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_not_repeated(
    tmp_path: Path, line: str, words: str
) -> None:
    with pytest.raises(ManifestError, match=words) as caught:
        payers(tmp_path, line)
    assert NPI not in str(caught.value)
    assert "Mary" not in str(caught.value)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "providers.csv"
    file.write_text("npi,name\n1,a\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="must read identifier,pseudonym"):
        Crosswalk.load(TOKENS, {"providers": file})
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        Crosswalk.load(TOKENS, {"providers": tmp_path / "gone.csv"})


def test_numbers_that_are_echoed_differ_by_where_their_hyphen_stands() -> None:
    for token in (TOKENS.claim, TOKENS.request):
        assert token(NPI, "1234-56") != token(NPI, "12345-6")
        assert token(NPI, " ab-1 ") == token("123-456-7893", "AB-1")
    assert TOKENS.patient("payer-1", "W 1234-01") == TOKENS.patient("payer-1", "w123401")
