"""What `mutate.py` breaks of restarts as the engine carries them out, of limits and of fan-outs."""

from __future__ import annotations

try:
    from .mutations import Mutation
except ImportError:  # started as a script
    from mutations import Mutation

_AFTER_BACKOFF = """        if self._end is not None:
            self._cancelled += 1
            self._end_stage(stage, CANCELLED, "the run ended before it was restarted")"""

MUTATIONS = [
    # Restarts
    Mutation(
        "an attempt too few",
        "_policy.py",
        "if window.count > restart.max_restarts:",
        "if window.count >= restart.max_restarts:",
    ),
    Mutation("nobody backs off", "_engine.py", "            await trio.sleep(delay)\n", "            pass\n"),
    Mutation(
        "backing off holds the slot",
        "_engine.py",
        "        if self._passes:\n            self._gates.free(stage)",
        "        if self._passes and error is None:\n            self._gates.free(stage)",
    ),
    Mutation(
        "a stage in backoff goes on after the stop",
        "_engine.py",
        _AFTER_BACKOFF,
        _AFTER_BACKOFF.replace("self._end is not None", "False"),
    ),
    Mutation(
        "restarted although the run stops",
        "_engine.py",
        "if verdict.directive is Directive.RESTART and self._end is None:",
        "if verdict.directive is Directive.RESTART:",
    ),
    Mutation(
        "judged although the run has stopped",
        "_engine.py",
        "if restart is not None and self._end is None and not escalates:",
        "if restart is not None and not escalates:",
    ),
    Mutation(
        "escalation is an ordinary failure",
        "_engine.py",
        "escalates = verdict.directive is Directive.ESCALATE",
        "escalates = False",
    ),
    Mutation("attempts are forgotten", "_engine.py", "bag.close_attempt(stage, attempt)", "pass"),
    Mutation("windows are forgotten", "_engine.py", "self._windows[stage] = window", "pass"),
    Mutation(
        "the intensity of a run is never spent",
        "_healing.py",
        "self._tripped = self._window.count > intensity.max_restarts",
        "pass",
    ),
    Mutation(
        "a spent intensity recovers",
        "_healing.py",
        "        if not self._tripped:\n            self._window = count_failure",
        "        if True:\n            self._window = count_failure",
    ),
    Mutation(
        "a returned fail is restarted",
        "_healing.py",
        "(asked is not None and asked.status is StageStatus.FAIL)",
        "False",
    ),
    Mutation(
        "retry asks the policy", "_healing.py", "if asked is None:\n            try:", "if True:\n            try:"
    ),
    Mutation(
        "Retry-After is not honoured",
        "_healing.py",
        "at_least = 0.0 if asked is None else asked.after",
        "at_least = 0.0",
    ),
    # Limits of stages
    Mutation(
        "slots are not given back",
        "_gates.py",
        "        found = self.passes.pop(stage, None)\n        if found is not None:\n            found.release()",
        "        self.passes.pop(stage, None)",
    ),
    Mutation(
        "an abandoned thread's slot is given back",
        "_gates.py",
        "return _nothing if found is None else found.release",
        "found and found.release()\n        return _nothing",
    ),
    Mutation(
        "an abandoned thread's slot is lost",
        "_gates.py",
        "return _nothing if found is None else found.release",
        "return _nothing",
    ),
    Mutation(
        "priorities of one turn do not matter",
        "_gates.py",
        "told.sort(key=lambda stage: -specs[stage].priority)",
        "pass",
    ),
    Mutation(
        "containers hold slots",
        "_gates.py",
        "shared = None if is_container else self._running",
        "shared = self._running",
    ),
    Mutation("those that wait are not withdrawn", "_gates.py", "            batch.withdraw()\n", "            pass\n"),
    Mutation("those that were told are lost", "_gates.py", "return told + waiting", "return waiting"),
    Mutation(
        "starts are not spent",
        "_engine.py",
        "if self._gates.has_rates or self._announcer.listeners:",
        "if self._announcer.listeners:",
    ),
    # The limiter
    Mutation(
        "one too many",
        "_tickets.py",
        "            if self.running < self._limit:  # so nobody waits",
        "            if self.running <= self._limit:  # so nobody waits",
    ),
    Mutation("a slot that frees is lost", "_tickets.py", "self.queue.pop()[ITEM].pass_gate(self)", "self.queue.pop()"),
    Mutation(
        "nobody waits for tokens",
        "_tickets.py",
        "            await trio.sleep_until(self.bucket.next_at(self._now()))\n",
        "            await trio.sleep_forever()\n",
    ),
    Mutation("a token is not given back", "_tickets.py", "self.bucket.refund(self._now())", "pass"),
    Mutation(
        "a withdrawn grant keeps its slot",
        "_tickets.py",
        "            place[ITEM] = None\n            self.leave(True)",
        "            place[ITEM] = None",
    ),
    Mutation(
        "a withdrawn batch keeps its slots",
        "_tickets.py",
        "        for _ in range(untold):\n            self.leave(False)",
        "        pass",
    ),
    Mutation("aging the wrong way", "_limits.py", "now - priority * self._aging", "now + priority * self._aging"),
    Mutation("nobody is refused", "_tickets.py", "if queue.size >= queue.bound:", "if False:"),
    Mutation(
        "the newest is dropped for the oldest",
        "_limits.py",
        "place = next(iter(self._arrivals.values()))",
        "place = next(reversed(self._arrivals.values()))",
    ),
    Mutation(
        "tokens without end",
        "_limits.py",
        "        self._spent += 1\n        self._reserved -= 1",
        "        self._reserved -= 1",
    ),
    # Runs under a supervisor
    Mutation(
        "a run's place is not given back",
        "_engine.py",
        "        if entry is not None:\n            entry.release()",
        "        pass",
    ),
    Mutation(
        "queued runs begin at once",
        "_engine.py",
        "            if not self._waits:\n                self._begin()",
        "            self._begin()",
    ),
    Mutation("a stopped run stays queued", "_engine.py", "        if self._waits:\n            self.leave()\n", ""),
    Mutation(
        "a run that was turned away is cancelled",
        "_engine.py",
        "if self.turned_away is not None:\n                raise",
        "if self.turned_away is not None and self.turned_away is None:\n                raise",
    ),
    # Fan-out
    Mutation(
        "an item's slot is not given back",
        "_items.py",
        "            item.free()\n            if delay is None",
        "            if delay is None",
    ),
    Mutation(
        "items run after the stop",
        "_items.py",
        "        try:\n            await trio.lowlevel.checkpoint_if_cancelled()\n        except trio.Cancelled:",
        "        try:\n            pass\n        except trio.Cancelled:",
    ),
    Mutation(
        "a cancelled fan-out is OK",
        "_items.py",
        "        if self._cancelled:\n            await trio",
        "        if False:\n            await trio",
    ),
    Mutation(
        "results in the order of their ends",
        "_items.py",
        "self._results[item.index] = output.data",
        "self._results.remove(None)\n                self._results.append(output.data)",
    ),
    Mutation(
        "an item that failed goes uncounted", "_items.py", "        self._failed += 1\n        reason", "        reason"
    ),
    Mutation(
        "a failing item does not end the stage",
        "_items.py",
        "elif (self._options.ends_at_failure or escalates) and",
        "elif escalates and",
    ),
    Mutation(
        "an item's escalation ends only the stage",
        "_items.py",
        "index=item.index, escalates=escalates)",
        "index=item.index)",
    ),
    Mutation(
        "restarts of items without bound",
        "_items.py",
        "while taken and self._restarting >= self._most_restarting:",
        "while False:",
    ),
    Mutation("a generator is read again", "_fanout.py", "            self._is_used_up = True\n", "            pass\n"),
    Mutation(
        "a generator is left open", "_items.py", "                await iterator.aclose()", "                pass"
    ),
]
