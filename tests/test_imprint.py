"""Imprints: what a value was at one moment, and what has changed since."""

from __future__ import annotations

import enum
import math
import re
from collections import namedtuple
from decimal import Decimal

import attrs
import pytest

from stageflow_actors.testing._imprint import find_change, make_imprint

Pair = namedtuple("Pair", "x y")  # noqa: PYI024  # what users have too


@attrs.define
class Basket:
    rows: list = attrs.field(factory=list)


class Opaque:
    pass


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Uncopyable:
    def __eq__(self, other):
        return isinstance(other, Uncopyable)

    __hash__ = None

    def __deepcopy__(self, memo):
        raise RuntimeError("no")


class Vague:
    """Its `==` gives no answer, like that of an array."""

    def __eq__(self, other):
        return [True, False]

    __hash__ = None


SAME = [
    ({"a": [1, {"b": (2.5, "x", None)}]}, {"a": (1, {"b": [2.5, "x", None]})}),
    (math.nan, math.nan),
    (float("nan"), float("nan")),
    (Basket([1]), Basket([1])),
    (Pair(1, [2]), Pair(1, [2])),
    ({1, 2}, frozenset({2, 1})),
    (Opaque(), Opaque()),
    (Vague(), Vague()),
    (Uncopyable(), Uncopyable()),
    (Decimal("1.5"), Decimal("1.50")),
    (Color.RED, Color.RED),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
]
OTHER = [
    ({"a": 1}, {"a": 2}, "value['a'] is 2 and was 1"),
    ({"a": [1, 2]}, {"a": [1, 3]}, "value['a'][1] is 3 and was 2"),
    ({"a": 1}, {"b": 1}, "value has the keys ['b'] and had ['a']"),
    ({"a": 1}, 3, "value is 3 and was a mapping"),
    ([1, 2], [1], "value is [1] and had 2 items"),
    ([1], 3, "value is 3 and had 1 item"),
    (1, "1", "value is '1' and was 1"),
    (Basket([1]), Basket([2]), "value is Basket(rows=[2]) and was Basket(rows=[1])"),
    (Opaque(), 3, "value is 3 and was of type Opaque"),
    (Decimal(1), Decimal(2), "value is Decimal('2') and was Decimal('1')"),
    (Color.RED, Color.BLUE, "value is <Color.BLUE: 2> and was <Color.RED: 1>"),
    (math.nan, None, "value is None and was of type float"),
]


def tell(value):
    """Name a value without its address, which is another in each process."""
    return re.sub(r" at 0x\w+", "", repr(value))


@pytest.mark.parametrize(("before", "now"), SAME, ids=tell)
def test_what_is_the_same(before, now):
    assert find_change(make_imprint(before), now, "value") is None


@pytest.mark.parametrize(("before", "now", "told"), OTHER, ids=tell)
def test_what_has_changed(before, now, told):
    assert find_change(make_imprint(before), now, "value") == told


def test_an_object_that_changes_is_noticed_where_it_says_what_makes_it_equal():
    basket = Basket([1])
    imprint = make_imprint({"basket": basket})
    basket.rows.append(2)
    assert find_change(imprint, {"basket": basket}, "data") == (
        "data['basket'] is Basket(rows=[1, 2]) and was Basket(rows=[1])"
    )


def test_a_container_that_changes_is_noticed():
    rows = [1, [2]]
    imprint = make_imprint(rows)
    rows[1].append(3)
    assert find_change(imprint, rows, "rows") == "rows[1] is [2, 3] and had 1 item"
