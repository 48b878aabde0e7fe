"""What `mutate.py` breaks of the order of things: each shows only if somebody else comes at the wrong moment.

Run as ordinary tests the programs that notice them do not come to that moment, or hardly ever: their tasks take so
different numbers of steps that trio, which runs all that can go on in turn, keeps them apart. The race toolkit finds
each with its default settings.
"""

from __future__ import annotations

try:
    from .mutations import Mutation
except ImportError:  # started as a script
    from mutations import Mutation

_LAST_TO_BEGIN = """            self._pump_in_context()
        if self._end is not None:
            self._cancelled += 1
"""
_ADMITTED = """        await self.acquire(ticket)
        self._held = ticket"""
_WITHDRAWN = """            place[ITEM] = None
            self.leave(True)"""
_RESTARTED = """            self._gates.told.append(stage)
            self._gates.enter(self, self._ready)"""

NOTICED_BY = {
    Mutation(
        "a stage that is about to begin does not look whether the run stops",
        "_engine.py",
        _LAST_TO_BEGIN,
        _LAST_TO_BEGIN.replace("is not None:", "is not None and self._unbegun:"),
    ): "test_explored_stops.py::test_the_first_failure_ends_a_run_that_fails_fast",
    Mutation(
        "dependents are told before the output is written",
        "_engine.py",
        "            bag.outputs[stage] = output\n            bag.states[stage] = OK\n",
        "            trio.lowlevel.current_trio_token().run_sync_soon(bag.outputs.__setitem__, stage, output)\n"
        "            bag.states[stage] = OK\n",
    ): "test_explored_runs.py::test_a_stage_sees_what_those_before_it_have_put_out",
    Mutation(
        "the run is woken before it waits",
        "_engine.py",
        "            if self._remaining:\n",
        "            if self._remaining:\n                await trio.lowlevel.cancel_shielded_checkpoint()\n",
    ): "test_explored_runs.py::test_a_run_ends_when_its_last_stage_has",
    Mutation(
        "a release is dropped: a stage that does not begin any more keeps its slot",
        "_engine.py",
        '"the run ended before it began")\n            self._gates.free(stage)\n            return',
        '"the run ended before it began")\n            return',
    ): "test_explored_limits.py::test_a_run_that_is_stopped_leaves_its_slots_to_others",
    Mutation(
        "a release is dropped: an item that does not begin any more keeps its slot",
        "_items.py",
        "        except trio.Cancelled:\n            self._give_up(item, ",
        "        except trio.Cancelled:\n            item.ticket = NO_TICKET\n            self._give_up(item, ",
    ): "test_explored_limits.py::test_items_that_are_stopped_leave_their_slots_to_others",
    Mutation(
        "a release is dropped: cancelled between admission and entry",
        "_limiter.py",
        _ADMITTED,
        _ADMITTED.replace("self._held", "await trio.lowlevel.checkpoint_if_cancelled()\n        self._held"),
    ): "test_explored_limits.py::test_one_that_is_cancelled_while_it_waits_or_is_admitted_leaves_its_slot_to_others",
    Mutation(
        "a waiter is not removed when it is cancelled",
        "_limiter.py",
        "        self._ticket.release_quietly()",
        "        pass",
    ): "test_explored_limits.py::test_one_that_is_cancelled_while_it_waits_or_is_admitted_leaves_its_slot_to_others",
    Mutation(
        "one that was dropped is told so although it has left",
        "_tickets.py",
        "        if self._place is error:",
        "        if error:",
    ): "test_explored_limits.py::test_one_that_is_dropped_learns_of_it_unless_it_has_left",
    Mutation(
        "a token is given back twice",
        "_tickets.py",
        _WITHDRAWN,
        _WITHDRAWN.replace("self.leave", "self.bucket and self.bucket.refund(self._now())\n            self.leave"),
    ): "test_explored_limits.py::test_there_are_never_more_starts_than_tokens",
    Mutation(
        "a condition is looked at once: a supervisor does not wait for whoever comes while it waits",
        "_supervisor.py",
        "        while (busy := self._find_busy()) is not None:",
        "        if (busy := self._find_busy()) is not None:",
    ): "test_explored_runs.py::test_a_supervisor_waits_for_the_runs_of_other_tasks",
    Mutation(
        "a run that is admitted before its first step begins without a nursery",
        "_engine.py",
        "            if self._nursery is not None:\n                self._begin()",
        "            self._begin()",
    ): "test_explored_admission.py::test_a_run_may_be_admitted_before_its_own_first_step",
    Mutation(
        "a stage is restarted twice where another ends meanwhile",
        "_engine.py",
        _RESTARTED,
        _RESTARTED.replace(
            "            self._gates.enter",
            """            told = self._gates.told
            await trio.lowlevel.cancel_shielded_checkpoint()
            if told is not self._gates.told:
                self._gates.told.append(stage)
            self._gates.enter""",
        ),
    ): "test_explored_restarts.py::test_a_stage_is_run_again_once_a_failure",
    Mutation(
        "a cancellation is lost that comes before the first step",
        "_engine.py",
        "        if self._end is not None:\n            return  # cancelled between",
        "        if False:\n            return  # cancelled between",
    ): "test_explored_stops.py::test_a_run_that_is_cancelled_before_its_first_step_does_not_begin",
    Mutation(
        "a stage that is about to begin is counted twice when the run stops",
        "_engine.py",
        "self._cancelled += len(told)",
        "self._cancelled += len(told) + self._unbegun",
    ): "test_explored_stops.py::test_the_first_failure_ends_a_run_that_fails_fast",
}
"""Each mutation with the test in this folder that notices it."""

MUTATIONS = list(NOTICED_BY)
