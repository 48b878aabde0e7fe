"""The checker of histories agrees with trying out every order, and what it says is wrong is wrong, and no more."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors.testing import find_violation

from .histories import MODELS, draw_history
from .linearizability_oracle import THINGS, do, is_linearizable, is_violated, tell_outcome

BATCHES = 20
EACH = 500


def judge(kind, operations, random):
    """Compare the checker with the oracle; return whether the history is linearizable."""
    thing = THINGS[kind]()
    found = find_violation(operations, random.choice(MODELS[kind]))
    assert (found is None) == is_linearizable(thing, operations)
    if found is not None:
        look_at(found, thing, operations)
    return found is None


def look_at(found, thing, operations):
    """Look whether a violation is one, whether it is the smallest, and whether what it tells of it is so."""
    kept = found.operations
    assert (found.minimal, found.others, found.total) == (True, "pending", len(operations))
    assert not is_linearizable(thing, kept)
    assert is_violated(thing, operations, kept)
    for size in range(1, len(kept)):
        assert not any(is_violated(thing, operations, some) for some in combinations(operations, size))
    assert not {id(each) for each in kept} & {id(each) for each in found.context}
    ids = {id(each) for each in kept}
    for each in found.linearized:
        outcome = do(thing, each.call)
        assert id(each) not in ids or outcome == tell_outcome(each)
    assert found.next
    assert {id(each) for each in found.next} <= ids - {id(each) for each in found.linearized}
    assert str(found).startswith("not linearizable: ")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_it_agrees_with_trying_out_every_order(batch):
    seen = Counter()
    for seed in range(batch * EACH, (batch + 1) * EACH):
        random = Random(seed)
        kind, operations = draw_history(random)
        seen[judge(kind, operations, random)] += 1
    assert min(seen[True], seen[False]) > EACH // 5, seen


@given(st.randoms(use_true_random=False))
def test_it_agrees_where_histories_shrink(random):
    kind, operations = draw_history(random, most=6)
    holds = judge(kind, operations, random)
    event(f"{kind}: {'linearizable' if holds else 'not'}")
    event(f"pending: {sum(each.pending for each in operations)}")
