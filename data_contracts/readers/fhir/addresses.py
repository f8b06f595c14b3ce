"""Addresses of resources, and what a reference means: two servers' equal ids are two resources.

An entry of a bundle has the address that its `fullUrl` tells, and a relative reference in it is
relative to the same server. Lines of NDJSON and single resources have no address: all of one
reading are of one server, and `Patient/1` there is its Patient. In a bundle, an entry without an
address is known to its own bundle alone.

Source: FHIR R4, 2.36.4.1 Resolving references in Bundles, 2.3.0 References; Bulk Data Access 2.0.
"""

from typing import Final

from data_contracts.readers.fhir.element import Element

_LOCAL: Final = "entry "
_ANY: Final = "any server's "


def names(resource: Element) -> tuple[str, ...]:
    """Names under which a resource is known, the first of which is its own; none without id.

    Raises:
        ReaderError: Type, id or `fullUrl` is no text.
    """
    own = resource.text("id")
    short = f"{resource.text('resourceType')}/{own}" if own else ""
    entry = resource.entry()
    if entry is None:
        return (short,) if short else ()
    address = entry.text("fullUrl") or ""
    if address and _server(address, short):
        return (address, _ANY + short)
    found = (_LOCAL + short, _ANY + short) if short else ()
    if address.startswith("urn:") or "://" in address:
        return (address, *found)
    return (*found, _LOCAL + address) if address else found


def identity(resource: Element) -> str | None:
    """What tells a resource from all others of the reading; None without id and address."""
    found = names(resource)
    if not found:
        return None
    bundle = None if is_global(found[0]) else resource.bundle()
    scope = f"{resource.file} {bundle.place}" if bundle else ""
    return f"{scope} {resource.text('resourceType')} {found[0]}"


def is_global(name: str) -> bool:
    """Whether a name means the same in every file of the reading."""
    return not name.startswith((_LOCAL, _ANY, "#"))


def is_ambiguous(name: str) -> bool:
    """Whether a name may be that of several resources of one bundle."""
    return name.startswith(_ANY)


def meant(reference: Element) -> list[str]:
    """Names that a Reference may mean, the surest first.

    An absolute address that no resource has may mean one that does not tell its address.
    """
    address = reference.text("reference")
    if address is None:
        return []
    address = address.partition("/_history/")[0]
    if address.startswith(("#", "urn:")):
        return [address]
    short = "/".join(address.rsplit("/", 2)[-2:])
    entry = reference.entry()
    if entry is None:
        return [address] if short == address else [address, short]
    if short != address:
        return [address, _LOCAL + short]
    server = _server_of(entry)
    return [server + short, _LOCAL + short] if server else [_LOCAL + short, _ANY + short]


def _server_of(entry: Element) -> str | None:
    """The address of an entry's server, with a slash at its end; None where it has none."""
    address, resource = entry.text("fullUrl"), entry.child("resource")
    if address is None or resource is None:
        return None
    return _server(address, f"{resource.text('resourceType')}/{resource.text('id')}")


def _server(address: str, short: str) -> str | None:
    """What stands before type and id in an address on a server; None for any other address."""
    server = address.removesuffix(short) if short else address
    is_of_server = len(server) < len(address) and server.endswith("/") and "://" in server
    return server if is_of_server else None
