"""`host:port`, as people write it."""

import ipaddress
import re
from dataclasses import dataclass

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST_PATTERN = rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, or is reached.

    Attributes:
        host: DNS name in lower case, or IP address without brackets.
        port: TCP port.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `name:9092`, `192.0.2.7:9092` or `[2001:db8::7]:9092`.

        Raises:
            ValueError: It is none.
        """
        host, _, port = text.lower().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        known = cls(host, int(port)) if re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) else None
        if known is None or known.port > 65_535 or bracketed != (":" in host):
            raise ValueError(
                "an address is HOST:PORT, such as federation.example.org:9092 or "
                "[2001:db8::7]:9092; it names no scheme and no path"
            )
        if known.ip is None and (
            not re.fullmatch(_HOST_PATTERN, host, re.ASCII) or re.fullmatch(r"[0-9.]+", host)
        ):
            raise ValueError("the host of an address is a DNS name or an IP address")
        return known

    @classmethod
    def of_server(cls, text: str) -> "Address":
        """An address at which others reach a server.

        Raises:
            ValueError: It is none, or means "every address of this machine".
        """
        address = cls.parse(text)
        if address.ip is not None and address.ip.is_unspecified:
            raise ValueError(
                "a wildcard such as 0.0.0.0 says where a server listens; sites need the name or "
                "the address under which they reach it"
            )
        return address

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None if it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
