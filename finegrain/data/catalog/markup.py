"""The words of a piece of HTML."""

from __future__ import annotations

from html.parser import HTMLParser

_SILENT = frozenset({"script", "style"})


def strip_html(markup: str) -> str:
    """Return the text of some HTML in one line; plain text comes back as it is.

    >>> strip_html("<p>Warm &amp; light.</p><ul><li>Wool</li></ul>")
    'Warm & light. Wool'
    """
    if "<" not in markup and "&" not in markup:
        return " ".join(markup.split())
    words = _Words()
    words.feed(markup)
    words.close()
    return " ".join("".join(words.found).split())


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._silent = tag in _SILENT
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)

    def _separate(self, tag: str) -> None:
        # <b>red</b>dish is one word, <li>red<li>blue are two.
        if tag not in ("a", "b", "em", "font", "i", "mark", "s", "span", "strong", "sub", "u"):
            self.found.append(" ")
