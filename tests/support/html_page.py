"""What matters of an HTML page: its tags, what their attributes point to, its ids, its text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree


class Page(HTMLParser):
    """A page, taken apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster"):
                (self.links if tag == "a" else self.loaded).append(value or "")
            if name == "id" and tag != "path" and tag != "clippath":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data


def drawn(text: str) -> list[ElementTree.Element]:
    """The plots of a page; each must be XML of its own."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
