"""The public data sets: what they are, who publishes them, and the SHA-256 of their files.

The hashes pin one edition. A result that somebody else is to reproduce needs the same rows, and a
publisher may replace a file without changing its address.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One raw file of a data set.

    Attributes:
        name: File name under which it is kept; publishers' spellings may differ in case.
        sha256: SHA-256 of the file as extracted, 64 hexadecimal digits.
        size: Size in bytes.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Source:
    """A public data set.

    Attributes:
        name: Short name, also the name of the network made from it.
        title: One line for people.
        page: The publisher's page about it.
        url: Where the publisher offers it: a .zip that holds the files, or the one file itself.
        files: The raw files that a loader reads.
        licence: Licence, or the publisher's terms.
        citation: How to cite it.
        task: What is predicted from it.
        rows: Rows of the pinned edition, before any exclusion.
        edition: What is pinned, and what to know where the publisher's file differs.
    """

    name: str
    title: str
    page: str
    url: str
    files: tuple[SourceFile, ...]
    licence: str
    citation: str
    task: str
    rows: int
    edition: str

    @property
    def folder(self) -> str:
        """Name of the folder in which copies of several data sets lie side by side."""
        return self.name.replace("-", "_")

    @property
    def download_name(self) -> str:
        """Name of what `url` serves."""
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether the publisher serves a .zip that holds the files."""
        return self.download_name.lower().endswith(".zip")


UCI_DIABETES_130: Final = Source(
    name="uci-diabetes-130",
    title="Diabetes 130-US hospitals, 1999-2008: inpatient encounters with diabetes",
    page="https://archive.ics.uci.edu/dataset/296/diabetes+130-us+hospitals+for+years+1999-2008",
    url="https://archive.ics.uci.edu/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip",
    files=(
        SourceFile(
            "diabetic_data.csv",
            "0689e7ec031237dc63031b938805c48377748761a3b26acab621567afa24df97",
            19_159_383,
        ),
        SourceFile(
            "IDs_mapping.csv",
            "f1bb82b471cb34649352597572c9b1fb00bd27f77b9f5a22a03dc3eb1039749e",
            2_547,
        ),
    ),
    licence="CC BY 4.0",
    citation=(
        "Clore J, Cios K, DeShazo J, Strack B (2014). Diabetes 130-US Hospitals for Years "
        "1999-2008. UCI Machine Learning Repository. https://doi.org/10.24432/C5230J. "
        "Described in Strack B et al. (2014), BioMed Research International 2014:781670."
    ),
    task="Readmission within 30 days of discharge",
    rows=101_766,
    edition="The repository has served the same files since 2014.",
)

CA_DMHC_IMR: Final = Source(
    name="ca-dmhc-imr",
    title="Independent medical review of denied requests, California, 2001-2016",
    page="https://data.chhs.ca.gov/dataset/independent-medical-review-imr-determinations-trend",
    url=(
        "https://data.chhs.ca.gov/dataset/b79b3447-4c10-4ae6-84e2-1076f83bb24e/resource/"
        "3340c5d7-4054-4d03-90e0-5f44290ed095/download/"
        "independent-medical-review-imr-determinations-trends.csv"
    ),
    files=(
        SourceFile(
            "imr_determinations_2001_2016.csv",
            "7d8fe29ad67ceb0b33d1287235d931a58636dad872a9667bff876c76d9887b56",
            2_959_505,
        ),
    ),
    licence="State of California open data",
    citation=(
        "California Department of Managed Health Care. Independent Medical Review (IMR) "
        "Determinations, Trend. California Health and Human Services Open Data Portal."
    ),
    task="Whether the reviewer overturned the health plan's denial",
    rows=19_228,
    edition=(
        "Pinned is the edition of 2001-2016, separated by semicolons. The publisher adds reviews "
        "and columns to its file, so that today's download is another edition."
    ),
)

UCI_HEART_DISEASE: Final = Source(
    name="uci-heart-disease",
    title="Heart disease: cardiac work-ups at four hospitals",
    page="https://archive.ics.uci.edu/dataset/45/heart+disease",
    url="https://archive.ics.uci.edu/static/public/45/heart+disease.zip",
    files=(
        SourceFile(
            "processed.cleveland.data",
            "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
            18_461,
        ),
        SourceFile(
            "processed.hungarian.data",
            "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
            10_263,
        ),
        SourceFile(
            "processed.switzerland.data",
            "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
            4_109,
        ),
        SourceFile(
            "processed.va.data",
            "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
            6_737,
        ),
    ),
    licence="CC BY 4.0",
    citation=(
        "Janosi A, Steinbrunn W, Pfisterer M, Detrano R (1989). Heart Disease. UCI Machine "
        "Learning Repository. https://doi.org/10.24432/C52P4X."
    ),
    task="Presence of heart disease on angiography",
    rows=920,
    edition="The repository has served the same processed files since 1989.",
)
