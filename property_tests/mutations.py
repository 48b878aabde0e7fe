"""What `mutate.py` breaks: each mutation replaces a text that occurs once in a file of the package."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One way to break the runtime."""

    name: str
    file: str
    old: str
    new: str


_BEFORE_BEGIN = """        if self._end is not None:
            self._cancelled += 1
            self._end_stage(stage, CANCELLED, "the run ended before it began")
"""

MUTATIONS = [
    # Dependency tracking
    Mutation(
        "drop the decrement",
        "_tracker.py",
        "unmet[dependent] = count = unmet[dependent] - 1",
        "count = unmet[dependent] - 1",
    ),
    Mutation("start one dependency early", "_tracker.py", "if not count:", "if count <= 1:"),
    Mutation("mark only what was skipped", "_tracker.py", "if state != OK:", "if state == SKIPPED:"),
    Mutation(
        "swap the marks",
        "_tracker.py",
        "BELOW_SKIPPED if state == SKIPPED else BELOW_BAD",
        "BELOW_BAD if state == SKIPPED else BELOW_SKIPPED",
    ),
    Mutation(
        "skip a cause",
        "_tracker.py",
        "self._bag.parents[stage] = parent",
        "self._bag.parents[stage] = self._bag.parents.get(parent, parent)",
    ),
    Mutation(
        "settle without consequences",
        "_tracker.py",
        "work.extend(dependent for dependent in",
        "_ = list(dependent for dependent in",
    ),
    Mutation(
        "settle without counting down",
        "_tracker.py",
        "states[stage] = ISOLATED\n                self.count_down(stage)",
        "states[stage] = ISOLATED",
    ),
    Mutation("forget the one success at a stop", "_tracker.py", "ok = all_ended and self._has_ok(stage)", "ok = False"),
    Mutation(
        "any success is none",
        "_tracker.py",
        "return any(states[dependency] == OK",
        "return all(states[dependency] == OK",
    ),
    # Triggers
    Mutation("ONE_SUCCESS always runs", "_policy.py", "Trigger.ONE_SUCCESS and ok:", "Trigger.ONE_SUCCESS:"),
    Mutation(
        "any success is enough for all", "_policy.py", "Trigger.ONE_SUCCESS and ok:", "Trigger.ONE_SUCCESS or ok:"
    ),
    Mutation(
        "swap NONE_FAILED and ALL_SUCCESS",
        "_policy.py",
        "if trigger is Trigger.NONE_FAILED else",
        "if trigger is Trigger.ALL_SUCCESS else",
    ),
    Mutation(
        "ALL_DONE minds failures",
        "_policy.py",
        "if trigger is Trigger.ALL_DONE or not (bad or skipped):",
        "if not (bad or skipped):",
    ),
    Mutation("a skip hides a failure", "_policy.py", "    if bad:\n", "    if bad and not skipped:\n"),
    Mutation("ONE_SUCCESS is isolated too soon at a stop", "_policy.py", "(all_ended and not ok)", "not ok"),
    Mutation("ONE_SUCCESS is never isolated at a stop", "_policy.py", "(all_ended and not ok)", "False"),
    Mutation(
        "ALL_DONE is isolated at a stop", "_policy.py", "if not bad or trigger is Trigger.ALL_DONE:", "if not bad:"
    ),
    Mutation("nobody is isolated at a stop", "_policy.py", "if not bad or trigger is Trigger.ALL_DONE:", "if True:"),
    # Restarts
    Mutation("a restart too many", "_policy.py", "> restart.max_restarts:", "> 1 + restart.max_restarts:"),
    Mutation(
        "failures never leave the window",
        "_policy.py",
        "times = (*window.times[first:], now)",
        "times = (*window.times, now)",
    ),
    Mutation(
        "the last moment of a window is outside",
        "_policy.py",
        "bisect_left(window.times, -within, key",
        "__import__('bisect').bisect_right(window.times, -within, key",
    ),
    Mutation(
        "a stage is left alone for longer than the maximum",
        "_policy.py",
        "min(self.maximum, max(at_least, jittered))",
        "max(at_least, min(self.maximum, jittered))",
    ),
    Mutation("jitter lengthens delays", "_policy.py", "(1 - self.jitter * (1 - chance))", "(1 + self.jitter * chance)"),
    Mutation(
        "the maximum is jittered", "_policy.py", "= self._grow(restart)", "= min(self.maximum, self._grow(restart))"
    ),
    Mutation(
        "the first delay has grown already",
        "_policy.py",
        "float(self.factor) ** (restart - 1)",
        "float(self.factor) ** restart",
    ),
    Mutation("delays overflow", "_policy.py", "except OverflowError:", "except ZeroDivisionError:"),
    Mutation(
        "only the first delay counts in a window", "_policy.py", "or backoff.factor == 1", "or backoff.factor >= 1"
    ),
    Mutation(
        "an attempt too many in a window",
        "_policy.py",
        "took = restart.max_restarts * timeout",
        "took = (restart.max_restarts + 1) * timeout",
    ),
    Mutation(
        "a window just long enough is refused", "_policy.py", "if took <= restart.within", "if took < restart.within"
    ),
    Mutation("any window is taken", "_policy.py", "check_window(self, 0.0)", "pass"),
    Mutation(
        "a broken contract is restarted", "_policy.py", "(ContractError, ThreadAbandonedError)", "ThreadAbandonedError"
    ),
    Mutation(
        "an abandoned thread is restarted", "_policy.py", "(ContractError, ThreadAbandonedError)", "ContractError"
    ),
    Mutation("what is no Exception is restarted", "_policy.py", "not isinstance(error, Exception)", "error is None"),
    Mutation("inner groups are not looked into", "_policy.py", "work += one.exceptions", "yield from one.exceptions"),
    Mutation("one leaf of a group is enough", "_policy.py", "all(isinstance(leaf, on)", "any(isinstance(leaf, on)"),
    Mutation("decide is not asked", "_policy.py", "if restart.decide is None:", "if True:"),
    # Starting and stopping
    Mutation(
        "do not look at the first step",
        "_engine.py",
        f"{_BEFORE_BEGIN}            self._gates.free(stage)\n            return\n",
        "",
    ),
    Mutation(
        "lose the count of the unbegun",
        "_engine.py",
        _BEFORE_BEGIN,
        _BEFORE_BEGIN.replace("self._cancelled += 1", "pass"),
    ),
    Mutation("lose the count of the told", "_engine.py", "self._cancelled += len(told)", "pass"),
    Mutation(
        "lose the count of replies",
        "_engine.py",
        "self._replied += 1\n            bag = self._bag",
        "bag = self._bag",
    ),
    Mutation(
        "lose the count of skips",
        "_engine.py",
        "self._replied += 1\n            self._bag.outputs[stage] = output\n            self._end",
        "self._bag.outputs[stage] = output\n            self._end",
    ),
    Mutation(
        "lose the count of crashes",
        "_engine.py",
        "self._failed += 1\n        self._fail(stage, error, attempts",
        "self._fail(stage, error, attempts",
    ),
    Mutation(
        "lose the count of the stopped",
        "_engine.py",
        "self._cancelled += 1\n                self._end_stage",
        "self._end_stage",
    ),
    Mutation(
        "count a told stage twice",
        "_engine.py",
        "self._accepted += 1\n                (self._gates",
        "self._accepted += 2\n                (self._gates",
    ),
    Mutation(
        "a stage that is not run has no consequences",
        "_engine.py",
        "work.extend(self._tracker.count_down(stage))",
        "pass",
    ),
    Mutation(
        "a crash has no consequences",
        "_engine.py",
        "escalates=escalates)\n        if self._end is None:",
        "escalates=escalates)\n        if False:",
    ),
    Mutation("the last to begin does not pump", "_engine.py", "if not self._unbegun and self._ready:", "if False:"),
    Mutation("what runs is not cancelled", "_engine.py", "if cancel and self._nursery is not None:", "if False:"),
    Mutation("swallow the caller's Cancelled", "_engine.py", "self._interrupted = error\n", "pass\n"),
    Mutation(
        "take no note of an outer cancellation",
        "_engine.py",
        'self.stop(RunEnding.CANCELLED, "it was cancelled from outside", cancel=False)',
        "pass",
    ),
    Mutation(
        "a timeout is a cancellation", "_engine.py", "self._now() >= scope.deadline", "self._now() > scope.deadline"
    ),
    Mutation(
        "no failure fails fast",
        "_engine.py",
        "if self._fail_fast or self._fatal or escalates:",
        "if self._fatal or escalates:",
    ),
    Mutation(
        "what is no Exception does not end the run",
        "_engine.py",
        "if self._fail_fast or self._fatal or escalates:",
        "if self._fail_fast or escalates:",
    ),
    Mutation("forget what is no Exception", "_engine.py", "self._fatal.append(error)", "pass"),
    Mutation(
        "who fails fast isolates nobody",
        "_engine.py",
        "self._tracker.count_down(stage)\n                self.stop",
        "self.stop",
    ),
    Mutation("a failure does not win over a cancel", "_engine.py", "self._stopped_by_stage = True", "pass"),
    Mutation(
        "a reply of cancel does not stop the run", "_engine.py", 'self.stop(RunEnding.CANCELLED, f"stage', 'str(f"stage'
    ),
    Mutation(
        "a value returned although cancelled is lost",
        "_engine.py",
        "        if error is None:\n            delay = self._complete",
        "        if error is None and self._end is None:\n            delay = self._complete",
    ),
    Mutation(
        "a predicate that stops the run is decided twice",
        "_engine.py",
        "self._bag.states[stage] = TOLD\n        inputs",
        "inputs",
    ),
    Mutation(
        "a predicate that stops the run still starts its stage",
        "_engine.py",
        "        if self._end is not None:\n            self._end_stage(stage, CANCELLED",
        "        if False:\n            self._end_stage(stage, CANCELLED",
    ),
    Mutation("a nursery may be left open", "_engine.py", "        if task.child_nurseries:", "        if False:"),
    Mutation("a context stays open", "_engine.py", "ctx._emit = inputs._bag = None", "_ = None"),
    Mutation(
        "an overridden stage runs all the same", "_engine.py", "if self._bag.states[stage] == PENDING:", "if True:"
    ),
    Mutation(
        "the end of a stage has no time",
        "_engine.py",
        "bag.ended[stage] = self._now()\n        if self._passes",
        "if self._passes",
    ),
    # Contexts
    Mutation("stages inherit from who finished last", "_engine.py", "self._context.run(self._pump)", "self._pump()"),
    Mutation(
        "predicates share a context",
        "_engine.py",
        "ask(self._context.copy(), when, inputs)",
        "ask(self._context, when, inputs)",
    ),
    Mutation("no context of the caller", "_engine.py", "contextvars.copy_context()", "contextvars.Context()"),
    # One attempt
    Mutation("groups keep their Cancelled", "_actor.py", "return error.split(trio.Cancelled)[1]", "return error"),
    Mutation(
        "groups of Cancelled are dropped whole", "_actor.py", "return error.split(trio.Cancelled)[1]", "return None"
    ),
    Mutation("a timeout returns None", "_actor.py", "    raise _make_timeout(timeout)\n", "    return None\n"),
    Mutation("cleanup is not shielded", "_actor.py", "self._shutdown.shield(self._scope)", "pass"),
    Mutation(
        "an instance too many",
        "_actor.py",
        "return await cls().execute(ctx)",
        "cls()\n    return await cls().execute(ctx)",
    ),
    Mutation("what a forgotten nursery raised is lost", "_actor.py", "errors.append(remains)", "pass"),
    Mutation(
        "a thread is begun after the stop",
        "_threads.py",
        "await trio.lowlevel.checkpoint_if_cancelled()",
        "pass",
    ),
    # Values
    Mutation("freeze shallowly", "_freeze.py", "_fill_dict(frozen, _freeze_items(value))", "_fill_dict(frozen, value)"),
    Mutation(
        "a list keeps its items",
        "_freeze.py",
        "    if cls is list:\n        return tuple(",
        "    if cls is list:\n        return tuple(value) or (",
    ),
    Mutation(
        "a tuple keeps its items",
        "_freeze.py",
        "return items if any(new is not old for new, old in zip(items, value, strict=True)) else value\n    return",
        "return value\n    return",
    ),
    Mutation("a named tuple keeps its items", "_freeze.py", "return make(items)", "return value"),
    Mutation(
        "an array that is read-only is not copied",
        "_freeze.py",
        "if type(array.base) is bytes and not array.flags.writeable:",
        "if not array.flags.writeable:",
    ),
    Mutation(
        "a frozen dict can be updated",
        "_freeze.py",
        "popitem = setdefault = update = _refuse_change",
        "popitem = setdefault = _refuse_change",
    ),
    Mutation(
        "a frozen dict can be merged into",
        "_freeze.py",
        "__delitem__ = __ior__ = _refuse_change",
        "__delitem__ = _refuse_change",
    ),
    Mutation(
        "data wins over fields",
        "_output.py",
        '{**freeze_mapping(data, "data"), **fields}',
        '{**fields, **freeze_mapping(data, "data")}',
    ),
    Mutation("any label will do", "_spec.py", "output.label in self.labels", "output.label is not None"),
    # Results
    Mutation(
        "the cause is the last bad dependency",
        "_bag.py",
        "next(stage for stage in dependencies if",
        "next(stage for stage in reversed(tuple(dependencies)) if",
    ),
    Mutation("a chain of causes stops early", "_result.py", "while chain[-1] in parents:", "if chain[-1] in parents:"),
    Mutation(
        "a run with skips is not ok", "_result.py", "states.count(OK) + states.count(SKIPPED)", "states.count(OK)"
    ),
    Mutation(
        "only the first error is a cause",
        "_result.py",
        "for failure in failures if isinstance",
        "for failure in failures[:1] if isinstance",
    ),
    Mutation("states can be changed", "_result.py", "self._states = MappingProxyType(", "self._states = dict("),
    Mutation("those told are in no count", "_run.py", "pending=count[PENDING] + count[TOLD]", "pending=count[PENDING]"),
    # Supervisors and subpipelines
    Mutation("a failure that nobody awaited is forgotten", "_supervisor.py", "self._unobserved.append(run)", "pass"),
    Mutation("a failure is told to two", "_run.py", "self._observed = True", "pass"),
    Mutation(
        "a supervisor left with an exception waits",
        "_supervisor.py",
        'self._stop_all(f"the supervisor was left with',
        'str(f"the supervisor was left with',
    ),
    Mutation("runs of other tasks are left", "_supervisor.py", "await self._wait_idle()", "pass"),
    Mutation(
        "the roots of a subpipeline wait for nothing",
        "_definition.py",
        "moved, dependencies=outer, local_names=None",
        "moved, dependencies=(), local_names=None",
    ),
    # Definitions
    Mutation("cycles the wrong way round", "_graph.py", "    around.reverse()\n", ""),
    Mutation("a cycle with its tail", "_graph.py", "list(path)[path[position] :]", "list(path)"),
    Mutation("what overridden stages need runs too", "_graph.py", "if name not in overridden:\n", "if name:\n"),
    Mutation(
        "prefixes see later stages",
        "_definition.py",
        "if self._length != len(table.specs):",
        "if self._length > len(table.specs):",
    ),
    Mutation("duplicates within one list", "_definition.py", "taken.add(spec.name)", "pass"),
    Mutation(
        "a refused stage claims its name",
        "_definition.py",
        "taken.add(spec.name)",
        "taken.add(spec.name)\n                if table is self._table:\n                    positions[spec.name] = -1",
    ),
    Mutation("a snapshot comes back without its run", "_snapshot.py", 'fields["identity"] = ', "_ = "),
]
