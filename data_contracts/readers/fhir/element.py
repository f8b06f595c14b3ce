"""JSON objects of a resource, read by name and type; what is wrong is told with the way to it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

from data_contracts.readers.findings import ReaderError, at

_ABSENT: Final = object()
_JSON_TYPES: Final = {
    dict: "an object",
    list: "an array",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


@final
class Element:
    """An object of FHIR's JSON, and where it stands.

    Every read checks the type: FHIR has no null outside arrays of primitives, and no empty text.

    Args:
        fields: The parsed object.
        above: The object that holds it; None for the first.
        step: Its name there, e.g. "item"; for the first its resource type.
        index: Its number in an array; -1 if it stands alone.
        file: The file, of the first object.
        line: "line 17" in NDJSON, of the first object.

    Source: FHIR R4, 2.6.2 JSON Representation.
    """

    __slots__ = ("_above", "_file", "_index", "_line", "_step", "fields")

    def __init__(
        self,
        fields: dict[str, Any],
        above: "Element | None",
        step: str,
        index: int = -1,
        *,
        file: Path = Path(),
        line: str = "",
    ) -> None:
        self.fields = fields
        self._above = above
        self._step = step
        self._index = index
        self._file = file
        self._line = line

    def text(self, name: str) -> str | None:
        """Text that is not empty, or None where there is none."""
        value = self.fields.get(name, _ABSENT)
        return None if value is _ABSENT else self._checked(name, value)

    def number(self, name: str) -> float | None:
        """A finite number, or None where there is none."""
        value = self.fields.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if type(value) is not int and type(value) is not float:
            raise self._type_error(name, "a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.wrong(name, "the number is too large")
        return number

    def whole(self, name: str, most: int = 32_767) -> int | None:
        """A whole number from 1 to `most`, or None where there is none."""
        value = self.fields.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if type(value) is not int or not 1 <= value <= most:
            raise self.wrong(name, f"a whole number from 1 to {most} is asked")
        return value

    def flag(self, name: str) -> bool | None:
        """True or false, or None where it is not told."""
        value = self.fields.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if type(value) is not bool:
            raise self._type_error(name, "true or false", value)
        return value

    def child(self, name: str) -> "Element | None":
        """An object, or None where there is none."""
        value = self.fields.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if type(value) is not dict:
            raise self._type_error(name, "an object", value)
        return Element(value, self, name)

    def children(self, name: str) -> Iterator["Element"]:
        """The objects of an array; none where there is no array."""
        value = self.fields.get(name, _ABSENT)
        if value is _ABSENT:
            return
        if type(value) is not list:
            raise self._type_error(name, "an array", value)
        for index, item in enumerate(value):
            if type(item) is not dict:
                raise self._type_error(f"{name}[{index}]", "an object", item)
            yield Element(item, self, name, index)

    def first(self, name: str) -> "Element | None":
        """The first object of an array, or None."""
        return next(self.children(name), None)

    def first_text(self, name: str) -> str | None:
        """The first text of an array of texts, or None."""
        value = self.fields.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if type(value) is not list:
            raise self._type_error(name, "an array", value)
        # An array of primitives may hold null, where an extension stands in for the value.
        for index, item in enumerate(value):
            if item is not None:
                return self._checked(f"{name}[{index}]", item)
        return None

    def entry(self) -> "Element | None":
        """The entry of the bundle that it stands in; None in a resource that stands alone."""
        element = self
        while above := element._above:
            if element._step == "resource" and above._step == "entry":
                return above
            element = above
        return None

    def bundle(self) -> "Element | None":
        """The bundle that it stands in; None in a resource that stands alone."""
        entry = self.entry()
        return entry and entry._above

    @property
    def path(self) -> str:
        """The way to it, e.g. "Bundle.entry[2].resource.item[0]"."""
        step = self._step if self._index < 0 else f"{self._step}[{self._index}]"
        return f"{self._above.path}.{step}" if self._above else step

    @property
    def file(self) -> Path:
        """The file that it stands in."""
        return self._root()._file

    @property
    def place(self) -> str:
        """The line, if it has one, and the way to it."""
        line = self._root()._line
        return f"{line}, {self.path}" if line else self.path

    def wrong(self, name: str, reason: str) -> ReaderError:
        """An error about a field, with file, line and way; `reason` repeats no value."""
        place = f"{self.place}.{name}" if name else self.place
        return at(self._root()._file, place, reason)

    def _root(self) -> "Element":
        element = self
        while element._above:
            element = element._above
        return element

    def _checked(self, name: str, value: object) -> str:
        """A value as text."""
        if type(value) is not str:
            raise self._type_error(name, "text", value)
        if not value or value.isspace():
            raise self.wrong(name, "the text is empty")
        if not value.isascii() and not _is_unicode(value):
            raise self.wrong(name, "half of a surrogate pair is no character")
        return value

    def _type_error(self, name: str, asked: str, value: object) -> ReaderError:
        return self.wrong(name, f"{asked} is asked, but it is {_JSON_TYPES[type(value)]}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
