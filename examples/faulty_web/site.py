"""A site to crawl: a map that links to indexes, which link to pages, which link to each other."""

import random
from typing import Final

from .server import Page

INDEXED: Final = 100
"""How many pages an index links to."""

WORDS: Final = ("actor", "burst", "cause", "delay", "event", "guard", "heal", "limit", "queue", "rate", "token")


class Site:
    """A site of so many pages, the same for the same seed."""

    def __init__(self, pages: int, seed: int) -> None:
        self._pages = pages
        self._seed = seed

    def find(self, path: str) -> Page | None:
        """Return what a path holds, or None where there is nothing."""
        name, _, digits = path.removeprefix("/").partition("/")
        number = int(digits) if digits.isdecimal() else -1
        first = number * INDEXED
        if path == "/map":
            return _make_page("Map", [f"/index/{index}" for index in range(-(-self._pages // INDEXED))])
        if name == "index" and 0 <= first < self._pages:
            last = min(first + INDEXED, self._pages)
            return _make_page(f"Index {number}", [f"/page/{page}" for page in range(first, last)])
        if name == "page" and 0 <= number < self._pages:
            return self._write(number)
        return None

    def _write(self, number: int) -> Page:
        draw = random.Random(f"{self._seed} page {number}")
        # The lower its number, the more pages link to a page.
        linked = {int(self._pages * draw.random() ** 2) for _ in range(draw.randint(1, 8))}
        text = " ".join(draw.choices(WORDS, k=draw.randint(50, 400)))
        return _make_page(f"Page {number}", [f"/page/{page}" for page in sorted(linked)], text)


def _make_page(title: str, links: list[str], text: str = "") -> Page:
    items = "\n".join(f'<li><a href="{link}">{link}</a>' for link in links)
    html = f"<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<p>{text}\n<ul>\n{items}\n</ul>\n"
    return Page(html.encode(), "text/html; charset=utf-8")
