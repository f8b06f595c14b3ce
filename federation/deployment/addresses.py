"""`host:port`, as people write it."""

import ipaddress
import re
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_NAME_PATTERN = rf"(?=.{{1,253}}$)({_LABEL}\.)*(?![0-9]+$){_LABEL}"


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
        number = int(port) if re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) else 0
        if not 1 <= number <= 65_535 or "%" in host or bracketed != (":" in host):
            raise ValueError(
                "an address is HOST:PORT, such as federation.example.org:9092 or "
                "[2001:db8::7]:9092; it names no scheme and no path, and a port up to 65535"
            )
        ip = _ip(host)
        # Names whose last part is a number are misspelt IP addresses (RFC 3696 section 2).
        if ip is None and not re.fullmatch(_NAME_PATTERN, host, re.ASCII):
            raise ValueError("the host of an address is a DNS name or an IP address")
        return cls(str(ip or host), number)

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
    def ip(self) -> IPAddress | None:
        """The host as an IP address; None if it is a name."""
        return _ip(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _ip(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
