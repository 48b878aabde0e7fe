"""The checker of histories: what it accepts, what it shows of what it does not, and what it refuses to be asked."""

from __future__ import annotations

import pickle
from random import Random

import attrs
import pytest
from history_cases import COUNTER, QUEUE, STORE, keep, write

from stageflow_actors.errors import LinearizabilityError
from stageflow_actors.testing import History, Model, Operation, check_linearizable, find_violation

STALE = """
    ann 1-  put('a', 1)
    bob 2-3 get('a') -> 1
    bob 4-5 get('a') -> None
    cat 1-9 put('b', 1) -> None
"""


def find(text, model):
    return find_violation(write(text), model)


# Yes or no


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (STORE, ""),
        (STORE, "ann 1- put('a', 1)"),
        (STORE, "ann 1-2 put('a', 1) -> None \n bob 3-4 get('a') -> 1"),
        (STORE, "ann 1-4 put('a', 1) -> None \n bob 2-3 get('a') -> 1"),
        (STORE, "ann 1-4 put('a', 1) -> None \n bob 2-3 get('a') -> None"),
        (STORE, "ann 1-  put('a', 1) \n bob 2-3 get('a') -> 1"),
        (STORE, "ann 1-  put('a', 1) \n bob 2-3 get('a') -> None \n bob 4-5 get('a') -> 1"),
        (STORE, "ann 1-2 put('a', 1) -> None \n bob 2-3 get('a') -> None"),  # they overlap
        (STORE, "ann 1-9 put('a', 1) -> None \n bob 1-9 put('b', 2) -> None \n cat 3-4 get('b') -> 2"),
        (QUEUE, "ann 1-4 push(1) -> None \n bob 2-3 push(2) -> None \n ann 5-6 take() -> 2"),
        (COUNTER, "ann 1-4 add() -> 2 \n bob 2-3 add() -> 1"),
        (COUNTER, "ann 1- add() \n cat 1- add() \n bob 2-3 add() -> 3"),
    ],
)
def test_what_some_order_explains_is_linearizable(model, text):
    assert find(text, model) is None
    check_linearizable(write(text), model)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (STORE, "ann 1-2 get('a') -> 1"),
        (STORE, "ann 1-2 put('a', 1) -> 1"),
        (STORE, "ann 1-2 put('a', 1) -> None \n bob 3-4 get('a') -> None"),
        (STORE, "ann 3- put('a', 1) \n bob 1-2 get('a') -> 1"),
        (STORE, STALE),
        (QUEUE, "ann 1-2 push(1) -> None \n bob 3-4 push(2) -> None \n ann 5-6 take() -> 2"),
        (QUEUE, "ann 1- push(1) \n bob 3-4 take() -> 1 \n ann 3-4 take() -> 1"),
        (COUNTER, "ann 1-4 add() -> 1 \n bob 2-3 add() -> 1"),
        (COUNTER, "ann 1- add() \n bob 2-3 add() -> 3"),
    ],
)
def test_what_no_order_explains_is_not(model, text):
    found = find(text, model)
    assert found.minimal
    with pytest.raises(LinearizabilityError) as caught:
        check_linearizable(write(text), model)
    assert caught.value.violation == found
    assert str(caught.value) == str(found)


def test_a_history_can_be_given_as_it_is():
    history = History()
    with history.operation("get", "a") as operation:
        operation.result = 1
    assert find_violation(history, STORE).operations == history.operations
    assert find_violation(iter(history.operations), STORE).operations == history.operations


def test_the_order_in_which_operations_are_given_makes_no_difference():
    operations = write(STALE)
    assert find_violation(operations[::-1], STORE) == find_violation(operations, STORE)


# What is shown


def test_a_violation_shows_the_operations_and_where_it_goes_wrong():
    assert str(find(STALE, STORE)).splitlines() == [
        "not linearizable: no order explains these 2 operations of 'a', whatever became of the other 2",
        "1 ann  |------------------->  put('a', 1) -> ?",
        "2 bob      |---|              get('a') -> 1",
        "3 bob              |---|      get('a') -> None",
        "1 explains a result, and counts as pending",
        "at best 1, 2, then the state is {'a': 1}, and next",
        "  3 cannot be: the model replies 1",
    ]


def test_a_violation_has_what_it_shows():
    operations = write(STALE)
    found = find_violation(operations, STORE)
    put, first, second, _ = operations
    assert (found.operations, found.context) == ((first, second), (put,))
    assert (found.key, found.total, found.minimal, found.others) == ("a", 4, True, "pending")
    assert (found.linearized, found.state, found.next, found.replies) == ((put, first), {"a": 1}, (second,), (1,))


def test_operations_that_have_to_do_with_it_are_not_shown_if_it_is_wrong_without_them():
    text = """
        ann 1-2 put('a', 1) -> None
        bob 3-4 get('a') -> 1
        bob 5-6 get('a') -> None
        ann 7-8 put('a', 2) -> None
        bob 9-10 get('a') -> 2
    """
    assert list(map(str, find(text, STORE).operations)) == ["put('a', 1) -> None", "get('a') -> None"]


def test_a_read_of_what_was_written_is_not_wrong_only_because_the_write_is_left_out():
    text = """
        ann 1-2 put('a', 1) -> None
        ann 3-4 put('a', 2) -> None
        bob 5-6 get('a') -> 2
        bob 7-8 get('a') -> 1
        ann 9-10 put('a', 1) -> None
    """
    found = find(text, STORE)
    assert list(map(str, found.operations)) == ["put('a', 1) -> None", "put('a', 2) -> None", "get('a') -> 1"]
    assert found.context == ()


def test_a_violation_of_one_operation():
    assert str(find("ann 1-2 get('a') -> 7", Model(keep, {}))).splitlines() == [
        "not linearizable: no order explains this operation",
        "1 ann  |---|      get('a') -> 7",
        "at first the state is {}, and next",
        "  1 cannot be: the model replies None",
    ]


def test_results_that_too_many_explain_are_told_without_them():
    text = "\n".join(f"ann {3 * number}-{3 * number + 1} add() -> {number + 1}" for number in range(57))
    assert str(find(f"{text} \n bob 100-172 add() -> 56", COUNTER)).splitlines() == [
        "not linearizable: no order explains these 2 operations, whatever became of the other 56",
        "1 bob  |-----------|      add() -> 56",
        "2 ann      |---|          add() -> 56",
        "at best 55 others, 2, 1 other, then the state is 57, and next",
        "  1 cannot be: the model replies 58",
    ]


def test_in_a_long_history_of_a_queue_it_is_shown_where_it_goes_wrong():
    pushes = [f"ann {2 * number}-{2 * number + 1} push({number}) -> None" for number in range(20)]
    taken = [*range(10), 11, 10, *range(12, 20)]
    takes = [f"bob {2 * number}-{2 * number + 1} take() -> {item}" for number, item in enumerate(taken, 20)]
    found = find("\n".join([*pushes, *takes]), QUEUE)
    assert found.others == "returned"
    assert str(found).splitlines() == [
        "not linearizable: no order explains this operation, whatever was returned by the other 39",
        "1 bob  |---|      take() -> 11",
        "at best 30 others, then the state is [10, 11, 12, 13, 14, 15, 16, 17, 18, 19], and next",
        "  1 cannot be: the model replies 10",
    ]


def test_the_smallest_violation_of_some_partitions_is_shown():
    text = """
        ann 1-2 put('a', 1) -> None
        ann 3-4 put('a', 2) -> None
        bob 5-6 get('a') -> 1
        cat 1-2 get('b') -> 7
        cat 3-4 get('b') -> None
        cat 5-6 get('b') -> None
        cat 7-8 get('b') -> None
    """
    assert find(text, STORE).key == "b"


def test_many_that_cannot_be_next_are_not_all_listed():
    text = "\n".join(f"c{number} 1-9 get('a') -> {number}" for number in range(9))
    found = find_violation(write(text), Model(accepts=lambda state, operation: []))
    assert len(found.operations) == 1
    lines = str(attrs.evolve(found, operations=found.operations * 9, next=found.operations * 9)).splitlines()
    assert lines[-1] == "  and 4 more cannot be"
    assert lines[-2].endswith(" cannot be: the model refuses it")


def test_a_violation_that_may_be_too_large_says_so():
    text = "\n".join(f"ann {2 * number}-{2 * number + 1} push({number}) -> None" for number in range(4))
    found = find_violation(write(f"{text} \n bob 50-51 take() -> 4"), QUEUE, max_steps=6)
    assert not found.minimal
    assert str(found).splitlines()[-1] == "perhaps fewer operations do; it would have taken more steps to know"


def test_runs_of_operations_are_told_shortly():
    text = "\n".join(f"ann {2 * number}-{2 * number + 1} push({number}) -> None" for number in range(4))
    found = find(f"{text} \n bob 50-51 take() -> 4", QUEUE)
    shown = write(text)
    order = (shown[0], shown[1], shown[2], write("cat 1-2 look()")[0], shown[3])
    lines = str(attrs.evolve(found, operations=tuple(shown), linearized=order, next=())).splitlines()
    assert lines[-1] == "at best 1 to 3, 1 other, 4, then the state is [0, 1, 2, 3]"


def test_an_error_with_a_violation_pickles():
    with pytest.raises(LinearizabilityError) as caught:
        check_linearizable(write(STALE), STORE)
    back = pickle.loads(pickle.dumps(caught.value))
    assert str(back) == str(caught.value)
    assert back.violation == caught.value.violation


# Large ones


def record(seed, *, clients, operations, keys, stale=False):
    """Return the history of a store; a stale one reads what was there before, once."""
    random = Random(seed)
    state, made, open_, at = {}, [], {}, 0
    while len(made) < operations or open_:
        at += 1
        client = random.randrange(clients)
        if client in open_:
            draft = open_.pop(client)
            if len(draft) == 2:
                open_[client] = (*draft, act(state, draft[0]))
            else:
                call, invoked, result = draft
                made.append(Operation(f"c{client}", call, result, invoked=invoked, returned=at))
        elif len(made) + len(open_) < operations:
            key = random.randrange(keys)
            open_[client] = (("put", key, at) if random.random() < 0.5 else ("get", key), at)
    if stale:
        place, old = next(
            (place, each)
            for place, each in enumerate(made)
            if place > len(made) // 2 and each.call[0] == "get" and each.result is not None
        )
        past = next(each for each in made if each.call[:2] == ("put", old.call[1]) and each.call[2] != old.result)
        made[place] = attrs.evolve(old, result=past.call[2])
    return made


def act(state, call):
    reply, after = keep(state, call)
    state.update(after)
    return reply


def test_a_thousand_operations_on_a_map():
    operations = record(1, clients=8, operations=1000, keys=30)
    check_linearizable(operations, STORE, max_steps=2000)


def test_a_thousand_operations_on_one_key():
    operations = record(1, clients=4, operations=1000, keys=1)
    check_linearizable(operations, STORE, max_steps=20_000)


@pytest.mark.parametrize(("clients", "keys"), [(8, 30), (2, 1)])
def test_one_wrong_read_among_many_operations_is_shown_with_a_few(clients, keys):
    operations = record(2, clients=clients, operations=500, keys=keys, stale=True)
    found = find_violation(operations, STORE)
    assert found.minimal
    assert len(found.operations) <= 4
    assert found.total == 500


def test_a_long_history_needs_no_deep_stack():
    operations = [Operation("ann", ("add",), n + 1, invoked=2 * n, returned=2 * n + 1) for n in range(5000)]
    check_linearizable(operations, COUNTER)


def test_many_equal_pending_operations_are_no_trouble():
    text = "\n".join(f"c{number} 1- add()" for number in range(200))
    assert find(f"{text} \n ann 2-3 add() -> 150", COUNTER) is None
    assert find(f"{text} \n ann 2-3 add() -> 202", COUNTER) is not None


def test_what_is_not_decided_is_told():
    text = "\n".join(f"c{number} 1-9 push({number}) -> None" for number in range(12))
    with pytest.raises(LinearizabilityError) as caught:
        find_violation(write(f"{text} \n bob 10-11 take() -> 12 \n ann 10- take()"), QUEUE, max_steps=1000)
    assert caught.value.violation is None
    assert str(caught.value) == (
        "not decided within 1,000 steps: 14 operations, 1 of them pending; give the model a partition, record less, "
        "let fewer overlap, or allow more max_steps"
    )


def test_a_violation_counts_more_than_what_is_not_decided():
    lines = [f"c{number} 1-9 put('a', {number}) -> None" for number in range(12)]
    text = "\n".join([*lines, "ann 10-11 get('a') -> 'x'", "bob 1-2 get('b') -> 1"])
    with pytest.raises(LinearizabilityError, match="13 operations of 'a'"):
        find_violation(write(text.replace("-> 1", "-> None")), STORE, max_steps=20)
    assert find_violation(write(text), STORE, max_steps=20).key == "b"
