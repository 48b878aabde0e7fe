"""Is a history linearizable? The checker, as its users call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stageflow_actors._validation import count, refuse, require_count
from stageflow_actors.errors import LinearizabilityError

from ._history import History, Operation
from ._linearize import Budget, SpentError, linearize
from ._model import Evaluator, Model
from ._reduce import reduce

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from ._linearize import Found
    from ._violation import Violation

_REDUCED: Final = 3
"""Of how many partitions the violation is looked for, to show the smallest."""


def check_linearizable(history: History | Iterable[Operation], model: Model, *, max_steps: int = 1_000_000) -> None:
    """Raise an error unless the operations can be put in an order in which the model does what was recorded.

    In that order, each operation takes effect at a moment between its invocation and its response (M. Herlihy and
    J. Wing, "Linearizability: a correctness condition for concurrent objects", 1990). A pending one takes effect at any
    time after its invocation, or never. Partitions are checked one by one (A. Horn and D. Kroening, "Faster
    linearizability checking via P-compositionality", 2015).

    Args:
        history: What was recorded, or operations from elsewhere.
        model: What the operations do one after the other.
        max_steps: How many steps are made at most in each partition; each tries one operation in one state. About a
            million a second.

    Raises:
        LinearizabilityError: There is no such order; the text shows the smallest violation. Or it was not decided
            within so many steps; its `violation` is None then.
        PipelineValidationError: An argument cannot be, or the model returns what it must not.
        Exception: What the model raises, with a note of what it was asked.
    """
    __tracebackhide__ = True
    violation = find_violation(history, model, max_steps=max_steps)
    if violation is not None:
        raise LinearizabilityError(str(violation), violation=violation)


def find_violation(
    history: History | Iterable[Operation], model: Model, *, max_steps: int = 1_000_000
) -> Violation | None:
    """Return what is wrong with a history as `check_linearizable` does, without raising it; None if nothing is.

    Raises:
        LinearizabilityError: It was not decided within so many steps.
        PipelineValidationError: An argument cannot be, or the model returns what it must not.
        Exception: What the model raises, with a note of what it was asked.
    """
    __tracebackhide__ = True
    operations = _read_history(history)
    if not isinstance(model, Model):
        refuse(f"a model must be a Model, not {model!r}", hint="make one: Model(step, initial)")
    require_count("max_steps", max_steps)
    parts = _divide(operations, model)
    wrong: list[tuple[Hashable, Evaluator, Found]] = []
    undecided: list[Hashable] = []
    for key, part in parts.items():
        evaluator = Evaluator(model, part)
        try:
            found = linearize(evaluator, range(len(part)), Budget(max_steps))
        except SpentError:
            undecided.append(key)
        else:
            if not found.complete:
                wrong.append((key, evaluator, found))
    if wrong:
        wrong.sort(key=lambda each: len(each[1].operations))
        violations = [
            reduce(evaluator, found, key=key, total=len(operations), max_steps=max_steps)
            for key, evaluator, found in wrong[:_REDUCED]
        ]
        return min(violations, key=lambda each: (len(each.operations), len(each.context)))
    if undecided:
        raise _make_undecided(undecided[0], parts[undecided[0]], max_steps)
    return None


def _read_history(history: Any) -> list[Operation]:
    listed = history.operations if isinstance(history, History) else history
    try:
        operations = list(listed)
    except TypeError:
        refuse(f"a history must be a History, or operations, not {history!r}")
    for each in operations:
        if not isinstance(each, Operation):
            refuse(f"a history must be made of Operations, not {each!r}")
    return sorted(operations, key=lambda each: each.invoked)


def _divide(operations: list[Operation], model: Model) -> dict[Hashable, list[Operation]]:
    """Return the operations by the key of their partition."""
    if model.partition is None:
        return {None: operations}
    parts: dict[Hashable, list[Operation]] = {}
    for each in operations:
        try:
            key = model.partition(each.call)
        except Exception as error:
            error.add_note(f"raised by the partition of the model, over {each}")
            raise
        try:
            parts.setdefault(key, []).append(each)
        except TypeError:
            refuse(f"the partition of a Model must return a hashable key for {each}, not {key!r}")
    return parts


def _make_undecided(key: Hashable, part: list[Operation], max_steps: int) -> LinearizabilityError:
    pending = sum(each.pending for each in part)
    where = "" if key is None else f" of {key!r}"
    problem = (
        f"not decided within {count(max_steps, 'step')}: {count(len(part), 'operation')}{where}, {pending:,} of them"
        " pending"
    )
    return LinearizabilityError(
        problem, hint="give the model a partition, record less, let fewer overlap, or allow more max_steps"
    )
