"""Models of what is checked: what they are given, what they may return, and what they are refused for."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from operator import itemgetter

import attrs
import pytest
from history_cases import QUEUE, STORE, enqueue, keep, write

from stageflow_actors import PipelineValidationError, StageOutput
from stageflow_actors.testing import Model, Operation, check_linearizable, find_violation


def find(text, model):
    return find_violation(write(text), model)


# Results


def replying(reply):
    return Model(lambda state, call: (reply, state))


def judge(reply, result, **error):
    operation = Operation("ann", ("do",), result, invoked=0, returned=1, **error)
    return find_violation([operation], replying(reply)) is None


OK = StageOutput.ok({"items": [1], "who": {"ann"}})


@pytest.mark.parametrize(
    ("reply", "result", "same"),
    [
        (1, 1, True),
        (1, 2, False),
        (None, None, True),
        (None, {}, False),
        ([1, [2]], (1, (2,)), True),
        ([1, [2]], (1, (3,)), False),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"items": [1], "who": {"ann"}}, OK, True),
        ({"items": [1]}, OK, False),
        (OK, OK, True),
        (StageOutput.ok(), OK, False),
        (3, OK, False),
        (None, StageOutput.ok(), True),
        ({}, StageOutput.ok(), True),
        (None, OK, False),
        (None, StageOutput.skip("no"), False),
        (None, StageOutput.route("left"), False),
        (StageOutput.route("left"), StageOutput.route("left"), True),
        (StageOutput.route("left"), StageOutput.route("right"), False),
        (StageOutput.skip("no"), StageOutput.skip("no"), True),
        (StageOutput.skip("no"), StageOutput.skip("yes"), False),
        (StageOutput.fail("no", {"a": 1}), StageOutput.fail("no", {"a": 1}), True),
        (StageOutput.fail("no", {"a": 1}), StageOutput.fail("no"), False),
        (StageOutput.fail(ValueError(1)), StageOutput.fail(ValueError(1)), True),
        (StageOutput.fail(ValueError(1)), StageOutput.fail(ValueError(2)), False),
    ],
)
def test_a_reply_is_compared_with_a_result(reply, result, same):
    assert judge(reply, result) == same


@pytest.mark.parametrize(
    ("reply", "error", "same"),
    [
        (KeyError("a"), KeyError("a"), True),
        (KeyError("a"), KeyError("b"), False),
        (LookupError("a"), KeyError("a"), False),
        (LookupError, KeyError("a"), True),
        (ValueError, KeyError("a"), False),
        (None, KeyError("a"), False),
    ],
)
def test_a_reply_is_compared_with_an_error(reply, error, same):
    assert judge(reply, None, error=error) == same


def test_a_reply_that_cannot_be_frozen_is_another_one():
    loop = []
    loop.append(loop)
    assert not judge(loop, (1,))


# Models


def test_a_model_may_change_the_state_that_it_is_given():
    text = "ann 1-2 push(1) -> None \n bob 1-2 push(2) -> None \n ann 3-4 take() -> 2 \n ann 5-6 take() -> 1"
    assert find(text, QUEUE) is None
    assert QUEUE.initial == []


@attrs.frozen
class Value:
    number: int


STATES = [
    {"n": 0},
    OrderedDict(n=0),
    defaultdict(int, n=0),
    Counter(n=0),
    [[0], {"n": 0}, {1}],
    ([0], {}),
    deque([[0]], 3),
    {0},
    bytearray(b"0"),
    Value(0),
    frozenset({0}),
    None,
    (0, "a"),
]


@pytest.mark.parametrize("state", STATES, ids=repr)
def test_states_of_many_kinds_are_told_apart(state):
    def step(held, call):
        reply = repr(held)
        if call == ("change",):
            held = change(held)
        return reply, held

    history = [
        Operation("ann", ("change",), repr(state), invoked=1, returned=2),
        Operation("bob", ("look",), repr(change(state)), invoked=3, returned=4),
        Operation("bob", ("look",), repr(change(state)), invoked=5, returned=6),
    ]
    before = repr(state)
    assert find_violation(history, Model(step, state)) is None
    assert find_violation(history, Model(lambda held, call: step(held, ("look",)), state)) is not None
    assert repr(state) == before


def change(held):
    """Return another state of its kind, if it can be by changing it."""
    match held:
        case dict():
            twin = held.copy()
            twin["n"] = 1
            return twin
        case [[0], dict(), set()]:
            return [[1], {"n": 1}, {2}]
        case ([0], dict()):
            return ([1], {})
        case deque():
            twin = held.copy()
            twin[0] = [1]
            return twin
        case set() | frozenset():
            return type(held)({1})
        case bytearray():
            return bytearray(b"1")
    return (held, 1)


def test_states_deep_in_others_are_copied():
    def step(state, call):
        state[0]["n"][0] += 1
        return state[0]["n"][0], state

    text = "ann 1-9 add() -> 2 \n bob 1-9 add() -> 1 \n cat 1-9 add() -> 3"
    for held in ([{"n": [0]}], deque([{"n": [0]}]), {0: {"n": [0]}}, defaultdict(list, {0: {"n": [0]}})):
        assert find(text, Model(step, held)) is None
        assert find(text.replace("3", "4"), Model(step, held)) is not None


def test_a_model_with_several_right_replies():
    def draw(left, operation):
        """Draw a lot: any that is left."""
        if operation.pending:
            return [left - {lot} for lot in left]
        return [left - {operation.result}] if operation.result in left else []

    model = Model(initial=frozenset({1, 2, 3}), accepts=draw)
    assert find("ann 1-2 draw() -> 3 \n ann 3-4 draw() -> 1", model) is None
    assert find("ann 1- draw() \n ann 3-4 draw() -> 1 \n bob 3-4 draw() -> 3", model) is None
    found = find("ann 1-2 draw() -> 3 \n bob 3-4 draw() -> 1 \n ann 5-6 draw() -> 3", model)
    assert list(map(str, found.operations)) == ["draw() -> 3", "draw() -> 3"]
    assert found.replies == ()
    assert str(found).splitlines()[-1] == "  2 cannot be: the model refuses it"


def test_a_model_may_look_at_who_asked():
    """A lock, which only its holder can release: two pending releases of different clients are not the same."""

    def accept(holder, operation):
        if operation.call == ("acquire",):
            return [operation.client] if holder is None else []
        return [None] if holder == operation.client else []

    model = Model(accepts=accept)
    text = "ann 1- release() \n bob 1-2 acquire() -> None \n bob 3- release() \n cat 4-5 acquire() -> None"
    assert find(text, model) is None
    assert find(text.replace("bob 3-", "ann 3-"), model) is not None


def test_a_model_may_yield_its_states():
    def accept(state, operation):
        if operation.pending or operation.result > state:
            yield operation.result or state + 1

    model = Model(initial=0, accepts=accept)
    assert find("ann 1-2 next() -> 3 \n ann 3-4 next() -> 5", model) is None
    assert find("ann 1-2 next() -> 3 \n ann 3-4 next() -> 3", model) is not None


def test_calls_that_cannot_be_hashed_are_no_trouble():
    class Odd:
        __hash__ = None

    def step(state, call):
        return state, state + 1

    history = [Operation("ann", Odd(), number, invoked=0, returned=1) for number in (1, 0)]
    assert find_violation(history, Model(step, 0)) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Model, "a Model must have either step or accepts; step(state, call) returns (reply, state)"),
        (
            lambda: Model(keep, accepts=keep),
            "a Model must have either step or accepts; step(state, call) returns (reply, state)",
        ),
        (lambda: Model(3), "the step of a Model must be a function, not 3"),
        (lambda: Model(accepts="all"), "the accepts of a Model must be a function, not 'all'"),
        (lambda: Model(keep, partition="key"), "the partition of a Model must be a function, not 'key'"),
        (
            lambda: check_linearizable([], "keep"),
            "a model must be a Model, not 'keep'; make one: Model(step, initial)",
        ),
        (lambda: check_linearizable(3, STORE), "a history must be a History, or operations, not 3"),
        (lambda: check_linearizable(["get"], STORE), "a history must be made of Operations, not 'get'"),
        (
            lambda: check_linearizable([], STORE, max_steps=0),
            "max_steps must be a whole number of at least 1, not 0",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused(make, message):
    with pytest.raises(PipelineValidationError) as caught:
        make()
    assert str(caught.value) == message


class Mutable:
    def __repr__(self):
        return "Mutable()"


@attrs.define
class Unhashable:
    number: int


UNHASHABLE = (
    "must be hashable, or made of dicts, lists and sets, not Unhashable(number=3); make Unhashable hashable by value, "
    "such as an attrs.frozen class"
)
ACCEPTS = "the accepts of a Model must return the states after get('a') -> 1, not"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            Mutable(),
            "must be comparable by value, not Mutable(); use dicts, lists, tuples, or an attrs.frozen class",
        ),
        (
            Unhashable(3),
            UNHASHABLE,
        ),
        (
            [Unhashable(3)],
            UNHASHABLE,
        ),
    ],
)
def test_states_that_cannot_be_compared_are_refused(state, message):
    with pytest.raises(PipelineValidationError) as caught:
        Model(keep, state)
    assert str(caught.value) == f"the initial state of a Model {message}"
    with pytest.raises(PipelineValidationError) as caught:
        find("ann 1-2 get() -> 3", Model(lambda _state, call: (None, state)))
    assert str(caught.value) == f"a state of a Model {message}"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Model(lambda state, call: None),
            "the step of a Model must return (reply, state) for get('a') -> 1, not None; does it know this call?",
        ),
        (
            Model(lambda state, call: [1, 2]),
            "the step of a Model must return (reply, state) for get('a') -> 1, not [1, 2]",
        ),
        (
            Model(accepts=lambda state, operation: True),
            f"{ACCEPTS} True; a list, empty where the result is wrong",
        ),
        (
            Model(accepts=lambda state, operation: "state"),
            f"{ACCEPTS} 'state'; a list, empty where the result is wrong",
        ),
        (
            Model(keep, partition=lambda call: [call]),
            "the partition of a Model must return a hashable key for get('a') -> 1, not [('get', 'a')]",
        ),
    ],
)
def test_what_a_model_must_not_return_is_refused(model, message):
    with pytest.raises(PipelineValidationError) as caught:
        find("ann 1-2 get('a') -> 1", model)
    assert str(caught.value) == message


def test_what_a_model_raises_comes_out_with_a_note():
    with pytest.raises(TypeError) as caught:
        find("ann 1-2 push(1) -> None", Model(lambda items, call: (None, items + call), [0]))
    assert caught.value.__notes__ == [
        "raised by the model, over push(1) -> None in the state [0]; lists in calls and results are tuples"
    ]
    with pytest.raises(ZeroDivisionError) as caught:
        find("ann 1-2 push(1) -> None", Model(accepts=lambda items, operation: (1 / 0 for _ in "a")))
    assert caught.value.__notes__[0].startswith("raised by the model, over push(1) -> None")
    with pytest.raises(IndexError) as caught:
        find("ann 1-2 take() -> None", Model(enqueue, [], partition=itemgetter(1)))
    assert caught.value.__notes__ == ["raised by the partition of the model, over take() -> None"]
