"""The page with the figures of the race toolkit's benchmark: nothing is left out that was missed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import attrs
import pytest
from document_blocks import DOCS
from race_bench import bench, make_search  # noqa: F401  # fixtures

from property_tests.corpus import CORPUS

VERSIONS = {"python": "3.11.7", "trio": "0.35.0", "hypothesis": "6.1", "frontrun": "0.7.0", "platform": "/secret"}


@pytest.fixture
def page(bench):  # noqa: F811
    return bench("race_page")


@pytest.fixture
def make_rows(bench, make_search):  # noqa: F811
    """Return what makes the rows of a run: two bugs, of which each tool finds what it is told to."""
    kinds, frontrun = bench("rows"), bench("race_frontrun")

    def see(name, outcomes, otherwise):
        chosen = {tool: outcomes.get((name, tool), otherwise) for tool in frontrun.TOOLS}
        return {tool: attrs.asdict(frontrun.Sighting(*outcome)) for tool, outcome in chosen.items()}

    def make(searches, bugs=None, twins=None):
        names = [found.name for found in searches]
        told = [{**attrs.asdict(found), "others": list(found.others)} for found in searches]
        rows = {"finding": kinds.Taken((), [], [], {"searches": told})}
        if bugs is not None:
            raw = {
                "bugs": {name: see(name, bugs, ("found", 3, 0.5)) for name in names},
                "twins": {name: see(name, twins or {}, ("holds", 3, 0.5)) for name in names},
            }
            rows["frontrun"] = kinds.Taken((), [], [], {"version": "0.7.0", **raw})
        return rows

    return make


def test_the_figures_are_in_order_and_what_missed_them_is_named(page, bench):  # noqa: F811
    bars, kinds = bench("race_bars"), bench("rows")
    late = bars.percent("of two", 90, [("a", True), ("b", False)], number=6)
    early = bars.Bar("seconds", 1.5, 0.5, "x", note="one; two", number=2)
    told, drawn = page.make_page({"cost": kinds.Taken(("a|b", "c"), [("x|y", "1")], [late, early], {})}, VERSIONS, "")
    assert drawn == ""
    assert (
        "| 2 | seconds | <= 1.5 x | 0.5 | yes | one<br>two |\n"
        "| 6 | of two | >= 90 % | 50 | **missed** | 1 of 2 |\n\n"
        "What is on the wrong side of a bar, by name:\n\n"
        "- Of two: all but b.\n\n" in told
    )
    assert "| a\\|b | c |\n| --- | ---: |\n| x\\|y | 1 |\n" in told


def test_where_nothing_is_missed_that_is_said(page, bench):  # noqa: F811
    bars, kinds = bench("race_bars"), bench("rows")
    taken = kinds.Taken((), [], [bars.Bar("seconds", 1.5, 0.5, "x", number=2)], {})
    assert "\n\nNothing is missed.\n\n" in page.make_page({"cost": taken}, VERSIONS, "")[0]


def test_it_says_how_it_is_made_and_with_what_and_nothing_of_the_machine(page):
    told, _ = page.make_page({}, VERSIONS, "")
    assert told.startswith("<!-- Made by `python benchmarks/bench_race.py --markdown docs/reference/race-corpus.md`")
    assert "This page is made by a script: `python benchmarks/bench_race.py --markdown" in told
    assert "Python 3.11.7, trio 0.35.0, Hypothesis 6.1, frontrun 0.7.0" in told
    assert "secret" not in told
    assert max(len(line) for line in told.splitlines()[1:]) <= 120


def test_each_bug_has_a_line(page, make_rows, make_search):  # noqa: F811
    rows = make_rows([make_search(), make_search(name="aba", kind=None, executions=1000)], {})
    told, _ = page.make_page(rows, VERSIONS, "plot.svg")
    rivals = " | 3; 0.500 s" * 5
    assert f"| lost update | 2 | 12; 0.100 s | hang in 3 | not in 1,000{rivals} |" in told
    assert f"| aba | 2 | not in 1,000; 0.100 s | hang in 3 | not in 1,000{rivals} |" in told
    assert "![The share of the bugs that each tool has found after so many executions](plot.svg)" in told


def test_a_bug_that_is_not_on_asyncio_has_a_dash(page, make_rows, make_search, bench):  # noqa: F811
    rows = make_rows([make_search()], {})
    finding = attrs.evolve(rows["finding"], raw=make_rows([make_search(name="stale timer")])["finding"].raw)
    told, _ = page.make_page({**rows, "finding": finding}, VERSIONS, "")
    assert "| stale timer | 2 | 12; 0.100 s | hang in 3 | not in 1,000 | - | - | - | - | - |" in told


def test_what_a_tool_misses_is_named_and_how(page, make_rows, make_search, bench):  # noqa: F811
    frontrun = bench("race_frontrun")
    bugs = {
        ("lost update", frontrun.DPOR): ("holds", 3, 0.5),
        ("aba", frontrun.DPOR): ("no verdict", 3, 5.0),
        ("lock order", frontrun.DPOR): ("crashed",),
    }
    searches = [make_search(), make_search(name="aba", kind=None), make_search(name="lock order")]
    told, _ = page.make_page(make_rows(searches, bugs), VERSIONS, "")
    missed = told.split("### Bugs that were not found\n\n")[1].split("\n\n")[0]
    assert missed == (
        "- **ours**: aba.\n"
        "- **ours, dpor alone**: none.\n"
        "- **frontrun DPOR**, which says that they hold: lost update.\n"
        "- **frontrun DPOR**, without a verdict: aba, lock order.\n"
        "- **frontrun DPOR, best settings**: none.\n"
        "- **frontrun random**: none.\n"
        "- **frontrun random, hasty**: none.\n"
        "- **plain trio**: none.\n"
        "- **seeded trio**: lost update, aba, lock order."
    )
    assert "| frontrun DPOR | 0 | 1 | 1 | 1 | 0 |  | 5.5 |" in told
    assert "| holds: 3; 0.500 s |" in told
    assert "| crashed |" in told


def test_false_alarms_are_named(page, make_rows, make_search, bench):  # noqa: F811
    twins = {("lost update", bench("race_frontrun").HASTY): ("found", 2, 0.1)}
    told, _ = page.make_page(make_rows([make_search()], {}, twins), VERSIONS, "")
    assert (
        "| frontrun random, hasty | 1 | 0 | 0 | 0 | 0 |\n\n- False alarms of **frontrun random, hasty**: lost" in told
    )
    assert "is left out of the plot" in told
    assert "False alarms of" not in page.make_page(make_rows([make_search()], {}), VERSIONS, "")[0]


def test_without_frontrun_the_page_is_about_the_others(page, make_rows, make_search):  # noqa: F811
    told, drawn = page.make_page(make_rows([make_search()]), {**VERSIONS, "frontrun": None}, "plot.svg")
    assert "without frontrun" in told
    assert "| lost update | 2 | 12; 0.100 s | hang in 3 | not in 1,000 |" in told
    assert "frontrun" not in drawn


PUBLISHED = DOCS / "reference" / "race-corpus.md"


def test_the_published_page_is_of_this_corpus(page):
    told = PUBLISHED.read_text(encoding="utf-8")
    bugs = told.split("## Each bug\n\n")[1].split("\n\n")[1].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in bugs] == [entry.name for entry in CORPUS]
    assert told.startswith(next(page._begin()))
    assert PUBLISHED.with_suffix(".svg").is_file()


# The plot


@pytest.fixture
def plot(bench):  # noqa: F811
    return bench("race_plot")


def test_the_plot_has_a_curve_and_a_name_for_each_tool(plot):
    drawn = plot.draw_plot({"ours": ([1, 10, 100], 3), "<b>": ([], 2)})
    root = ET.fromstring(drawn)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ours: 3 of 3", "<b>: 0 of 2", "10,000", "100%"} <= set(texts)
    first, second = (path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path"))
    assert first.count("V") == 3
    assert second.count("V") == 0
    assert [float(y) for y in re.findall(r"V([\d.]+)", first)][-1] == plot.TOP


def test_names_do_not_stand_on_each_other(plot):
    spread = plot.spread({"a": 30.0, "b": 30.0, "c": 31.0, "d": 200.0})
    assert spread == {"a": 30.0, "b": 45.0, "c": 60.0, "d": 200.0}
    low = plot.HEIGHT - plot.BOTTOM
    assert max(plot.spread({"a": low, "b": low}).values()) == low
