"""Which errors a stage is restarted on: groups at any depth, and directives, against plain models of them."""

from __future__ import annotations

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from stageflow_actors import Directive, Restart
from stageflow_actors._policy import direct, is_restartable, match
from stageflow_actors.errors import (
    ContractError,
    NotFreezableError,
    StageReturnTypeError,
    StageTimeoutError,
    ThreadAbandonedError,
)


class Batch(ExceptionGroup):
    def derive(self, excs):
        return Batch(self.message, excs)


class Urgent(BaseException):
    pass


BROKEN = {ContractError, NotFreezableError, StageReturnTypeError, ThreadAbandonedError}
LEAVES = [ValueError, UnicodeError, OSError, ConnectionError, TimeoutError, StageTimeoutError, KeyError]
GROUPS = [ExceptionGroup, Batch]
TYPES = [*LEAVES, *GROUPS, LookupError, Exception]


def trees(leaves):
    """Draw what an error is made of: its type, or the type of a group and what is in it."""
    leaf = st.sampled_from(leaves)
    return st.recursive(
        leaf, lambda inner: st.tuples(st.sampled_from(GROUPS), st.lists(inner, min_size=1, max_size=3)), max_leaves=8
    )


def make_error(tree):
    if isinstance(tree, tuple):
        kind, inner = tree
        made = [make_error(one) for one in inner]
        return (
            kind("several", made) if all(isinstance(one, Exception) for one in made) else BaseExceptionGroup("", made)
        )
    return tree("x")


def list_leaves(tree):
    return [leaf for one in tree[1] for leaf in list_leaves(one)] if isinstance(tree, tuple) else [tree]


def matches(types, tree):
    """A group is matched as the group that it is, or leaf by leaf."""
    if isinstance(tree, tuple) and any(kind in GROUPS and issubclass(tree[0], kind) for kind in types):
        return True
    return all(any(issubclass(leaf, kind) for kind in types) for leaf in list_leaves(tree))


@given(tree=trees(LEAVES), types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
@example((ExceptionGroup, [ValueError, (ExceptionGroup, [OSError])]), [ValueError])
@example((ExceptionGroup, [ValueError, (Batch, [OSError])]), [ValueError, Batch])
@example((ExceptionGroup, [(Batch, [OSError])]), [Batch])
def test_a_group_is_matched_leaf_by_leaf(tree, types):
    error, expected = make_error(tree), matches(types, tree)
    event(f"group: {isinstance(tree, tuple)}, matched: {expected}")
    assert match(tuple(types), error) is expected
    assert direct(Restart(on=tuple(types)), error) is (Directive.RESTART if expected else Directive.FAIL)
    if len(types) == 1:
        assert match(types[0], error) is expected


@given(tree=trees(LEAVES), types=st.lists(st.sampled_from(LEAVES), min_size=1, max_size=3))
def test_a_group_is_matched_where_nothing_would_be_left_of_it(tree, types):
    """By `split`, which knows no other way: types of groups aside, nothing may remain unmatched."""
    error = make_error((ExceptionGroup, [tree]))
    _, rest = error.split(tuple(types))
    assert match(tuple(types), error) is (rest is None)


@given(tree=trees(LEAVES), answer=st.booleans() | st.sampled_from([None, 0, 1, "", "no"]))
def test_a_predicate_is_asked_once_about_the_whole(tree, answer):
    error, asked = make_error(tree), []
    assert match(lambda one: (asked.append(one), answer)[1], error) is bool(answer)
    assert [id(one) for one in asked] == [id(error)]


@given(tree=trees([*LEAVES, *BROKEN, Urgent, KeyboardInterrupt]))
def test_what_no_policy_restarts_is_found_at_any_depth(tree):
    leaves = list_leaves(tree)
    wrong = [leaf for leaf in leaves if leaf in BROKEN or not issubclass(leaf, Exception)]
    event(f"wrong: {bool(wrong)}, alone: {len(leaves) == 1}")
    assert is_restartable(make_error(tree)) is not bool(wrong)


def test_a_group_may_be_deeper_than_the_stack():
    error = ContractError("x")
    for _ in range(10_000):
        error = ExceptionGroup("deeper", [error])
    assert not is_restartable(error)
    assert match(ContractError, error)
    assert not match(OSError, error)


# What to do about them


OF_STAGES = [directive for directive in Directive if directive is not Directive.RESUME]  # a stage has nothing to resume


@given(
    tree=trees(LEAVES),
    types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3).map(tuple),
    decided=st.none() | st.sampled_from(OF_STAGES),
)
def test_decide_goes_before_on(tree, types, decided):
    restart = Restart(on=types, decide=None if decided is None else lambda error: decided)
    expected = decided or (Directive.RESTART if matches(types, tree) else Directive.FAIL)
    assert direct(restart, make_error(tree)) is expected


WORDS = {directive.value for directive in OF_STAGES}
NO_DIRECTIVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.none()) | st.sampled_from(TYPES)
)


@given(
    tree=trees(LEAVES), returned=NO_DIRECTIVES.filter(lambda value: not isinstance(value, str) or value not in WORDS)
)
def test_what_is_no_directive_breaks_the_contract(tree, returned):
    with pytest.raises(StageReturnTypeError) as caught:
        direct(Restart(decide=lambda error: returned), make_error(tree))
    assert repr(returned) in caught.value.problem
    assert not is_restartable(caught.value)
