"""A plot as SVG: how many bugs each tool has found after so many executions."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH: Final = 800
HEIGHT: Final = 380
LEFT: Final = 52
RIGHT: Final = 270
"""Of the curves, for their names."""
TOP: Final = 30
BOTTOM: Final = 46
MOST: Final = 10_000
"""Executions, at the right end."""
APART: Final = 15
"""Between two names."""
COLOURS: Final = ("#0b6e4f", "#d55e00", "#cc79a7", "#0072b2", "#56b4e9", "#8a6d00", "#555555")
"""That can be told apart by most of the colour-blind too (Okabe and Ito), the first one darker."""


def draw_plot(curves: Mapping[str, tuple[Sequence[int], int]]) -> str:
    """Draw a curve for each tool.

    Args:
        curves: By the tool's name, the executions after which it found each of the bugs that it found, and how many
            bugs it was given.
    """
    ends = {name: len(found) / total for name, (found, total) in curves.items()}
    places = spread({name: _place(share) for name, share in ends.items()})
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="#222222">',
        "<title>Bugs found after so many executions</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_draw_axes(),
    ]
    for number, (name, (found, total)) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<path d="{_trace(found, total)}" fill="none" stroke="{colour}" stroke-width="{2 if number else 3}"/>'
        )
        label = f"{name}: {len(found)} of {total}"
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{places[name] + 4:.1f}" fill="{colour}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_axes() -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _place(share)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
    for executions in (1, 10, 100, 1000, 10_000):
        x = _reach(executions)
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#eeeeee"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{executions:,}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">executions</text>'
    yield f'<text x="{LEFT - 40}" y="{TOP - 12}">bugs found</text>'


def _reach(executions: int) -> float:
    share = log10(min(max(executions, 1), MOST)) / log10(MOST)
    return LEFT + share * (WIDTH - RIGHT - LEFT)


def _place(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _trace(found: Sequence[int], total: int) -> str:
    """Return the path of steps up, each where a bug is found."""
    path = [f"M{LEFT} {_place(0):.1f}"]
    for number, executions in enumerate(sorted(found), 1):
        path.append(f"H{_reach(executions):.1f}V{_place(number / total):.1f}")
    return "".join([*path, f"H{WIDTH - RIGHT}"])


def spread(places: Mapping[str, float]) -> dict[str, float]:
    """Move names that would stand on each other apart: none goes up, and the lowest ones keep to the bottom."""
    moved: dict[str, float] = {}
    last = float("-inf")
    for name in sorted(places, key=places.__getitem__):
        last = moved[name] = max(places[name], last + APART)
    over = max(moved.values(), default=0) - (HEIGHT - BOTTOM)
    return {name: place - max(over, 0) for name, place in moved.items()} if over > 0 else moved
