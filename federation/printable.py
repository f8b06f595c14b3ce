"""Texts that somebody else wrote, so that people and terminals can be shown them."""


def printable(text: str, longest: int) -> str:
    """A text as one line of printable characters: a refusal is told whatever it quotes.

    >>> printable(f"two {chr(10)} lines, a bell {chr(7)}, and more", 22)
    'two lines, a bell �, …'
    """
    line = " ".join(text.split())
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
    return line if len(line) <= longest else line[: longest - 1] + "…"
