"""Given names that are frequent in the United States and are no word of medicine or trade.

Two words may be a person or a code's label ("Jane Doe", "Skin Cancer"); a given name tells them
apart. A name that is also a word (Grace, Mark, Rose, Will) is left out, so the list is a tripwire
and no proof. `given_names.json` says where the names come from and which are left out.
"""

import json
from pathlib import Path
from typing import Final

_FILE = Path(__file__).with_suffix(".json")

GIVEN_NAMES: Final[frozenset[str]] = frozenset(
    json.loads(_FILE.read_text(encoding="utf-8"))["names"]
)
"""Names in lower case."""
