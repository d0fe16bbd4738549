r"""Text of any origin made safe to show: ``one_line``, ``without_controls``.

The name of a file, a class or a space may hold any characters: an escape that clears the terminal
or sets its title, an override that shows ``gpj.exe`` as ``exe.jpg``, a line break that forges a
line of a log, bytes that are not UTF-8. In messages and tables, such characters become Python
escapes: ``\x1b``, ``\u202e``, ``\n``, ``\udcff``. Data that featx stores or writes are unchanged.
"""

from __future__ import annotations

import re

_CHARACTERS = (
    r"\x00-\x1f\x7f-\x9f"  # control characters: line breaks, tabs, terminal escapes
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of writing
    r"\u2028\u2029"  # line breaks
    # Characters without width; but Persian and emoji are spelled with joiners (U+200C, U+200D).
    r"\u00ad\u180e\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    r"\ud800-\udfff"  # bytes of file names that are not UTF-8
)
_UNSAFE = re.compile(f"[{_CHARACTERS}]")
_UNSAFE_IN_TEXT = re.compile(rf"(?![\n\t])[{_CHARACTERS}]")


def counted(n: int, noun: str, ending: str = "s") -> str:
    """Return a number and its noun.

    Examples
    --------
    >>> counted(1, "image"), counted(2_000, "class", "es")
    ('1 image', '2,000 classes')
    """
    return f"{n:,} {noun}{'' if n == 1 else ending}"


def one_line(value: object, *, max_chars: int | None = None) -> str:
    r"""Return a value as one line of text without control characters.

    Of a text longer than `max_chars`, the middle is left out.

    Examples
    --------
    >>> print(one_line("esc\x1b[2J\nnew line"))
    esc\x1b[2J\nnew line
    >>> one_line("abcdefghij", max_chars=7)
    'abc…hij'
    """
    text = str(value)
    if max_chars is not None and len(text) > max_chars:
        half = max_chars // 2
        text = f"{text[:half]}…{text[-half:]}"
    return _UNSAFE.sub(_escaped_character, text)


def without_controls(text: str) -> str:
    """Return a message with its control characters escaped, line breaks and tabs excepted."""
    return _UNSAFE_IN_TEXT.sub(_escaped_character, text)


def as_utf8(text: str) -> str:
    r"""Return text with escapes for characters that UTF-8 cannot encode.

    Examples
    --------
    >>> print(as_utf8("caf\u00e9 \udcff"))
    café \udcff
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped_character(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()
