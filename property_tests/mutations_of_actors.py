"""What `mutate.py` breaks of resident actors: their mailboxes, messages, workers, repairs and supervisors."""

from __future__ import annotations

try:
    from .mutations import Mutation
except ImportError:  # started as a script
    from mutations import Mutation

MUTATIONS = [
    # Mailboxes
    Mutation(
        "a mailbox holds one message more",
        "_mailbox.py",
        "if self._bound is None or len(self._queued) < self._bound:",
        "if self._bound is None or len(self._queued) <= self._bound:",
    ),
    Mutation(
        "the newest is dropped for the oldest",
        "_mailbox.py",
        "oldest = self._queued.popitem(last=False)[0]",
        "oldest = self._queued.popitem(last=True)[0]",
    ),
    Mutation(
        "a returned message waits its turn",
        "_mailbox.py",
        "        self._returned[message] = None\n",
        "        self._queued[message] = None\n",
    ),
    Mutation(
        "nobody is admitted for one who gave up",
        "_resident.py",
        "            self._cancelled += 1\n        message.where = ENDED\n        self._admit()",
        "            self._cancelled += 1\n        message.where = ENDED",
    ),
    Mutation(
        "waiting senders overtake",
        "_mailbox.py",
        "message = self.senders.popitem(last=False)[0]\n        self._queued",
        "message = self.senders.popitem(last=True)[0]\n        self._queued",
    ),
    # Messages
    Mutation(
        "a withdrawn message counts as nothing",
        "_resident.py",
        "        if self._queue.withdraw(message):\n            self._cancelled += 1",
        "        if self._queue.withdraw(message):\n            pass",
    ),
    Mutation(
        "who gave up is served all the same",
        "_resident.py",
        "            self._cancelled += 1\n            return None",
        "            self._cancelled += 1",
    ),
    Mutation(
        "a timeout withdraws nothing", "_messages.py", "        if self.where is WAITING:\n", "        if False:\n"
    ),
    Mutation("a deadline is never dropped", "_deadlines.py", "        entry[_CALL] = None\n", "        pass\n"),
    Mutation(
        "the earliest deadline is not looked at",
        "_deadlines.py",
        "        if at < self._next:",
        "        if at > self._next:",
    ),
    Mutation(
        "any message is delivered again",
        "_resident.py",
        "if message.deliveries >= self._max_deliveries or self.is_retiring:",
        "if self.is_retiring:",
    ),
    Mutation(
        "a broken contract is delivered again",
        "_resident.py",
        "if error is not None and not is_restartable(error):",
        "if error is not None and not isinstance(error, Exception):",
    ),
    Mutation(
        "poison counts as failed", "_resident.py", "if message.deliveries >= self._max_deliveries > 1:", "if False:"
    ),
    Mutation("late replies are not counted", "_resident.py", "            self._late_replies += 1\n", ""),
    Mutation(
        "two actors of a name have the same keys",
        "_messages.py",
        "{to.path}/{to.number}.{self.number}",
        "{to.path}/{self.number}",
    ),
    # Workers
    Mutation(
        "a stop waits for the queue",
        "_worker.py",
        "        while not (self.ordered or self.leaves):",
        "        while not self.leaves and not (self.ordered and not len(resident._queue)):",
    ),
    Mutation(
        "a message in hand is lost with its worker",
        "_worker.py",
        "                message, self.message = self.message, None\n                self.resident.put_back(message)",
        "                self.message = None",
    ),
    Mutation(
        "there is no budget for ending",
        "_worker.py",
        "        self._life.deadline = min(self._life.deadline, self._shutdown.deadline())",
        "        pass",
    ),
    Mutation("a hurry is no hurry", "_worker.py", "                self._work.cancel()\n", "                pass\n"),
    Mutation("a start cannot be cancelled", "_worker.py", "            self._start.cancel()\n", "            pass\n"),
    Mutation(
        "a crash that is swallowed is none", "_worker.py", "        error = error or self.error\n", "        pass\n"
    ),
    Mutation("RESUME restarts", "_worker.py", "if directive is Directive.RESUME and not self.ordered:", "if False:"),
    # Restarts
    Mutation(
        "an intensity allows one more",
        "_family.py",
        "if self._window.count > self._intensity.max_restarts:",
        "if self._window.count > self._intensity.max_restarts + 1:",
    ),
    Mutation(
        "permanent is transient", "_family.py", 'elif error is None and child.policy == "permanent":', "elif False:"
    ),
    Mutation("temporary is transient", "_family.py", 'elif child.policy == "temporary":', "elif False:"),
    Mutation(
        "temporary siblings are restarted",
        "_family.py",
        'temporary = [child for child in affected if child.policy == "temporary"]',
        "temporary = []",
    ),
    Mutation(
        "only who depends directly is restarted",
        "_scopes.py",
        "        grown = len(affected) > before\n",
        "        grown = False\n",
    ),
    Mutation(
        "rest_for_one restarts those before",
        "_scopes.py",
        "children[children.index(failed) + 1 :]",
        "children[: children.index(failed)]",
    ),
    Mutation(
        "a repair starts in reverse order",
        "_repair.py",
        "        for units in self._list_todo():\n            if self._is_stale",
        "        for units in reversed(self._list_todo()):\n            if self._is_stale",
    ),
    Mutation(
        "a repair stops in order",
        "_repair.py",
        "for units in reversed(self._list_todo()):",
        "for units in self._list_todo():",
    ),
    Mutation(
        "a repair does not back off",
        "_repair.py",
        "        if trio.current_time() < self._at:\n",
        "        if False:\n",
    ),
    Mutation(
        "a cancelled repair goes on",
        "_repair.py",
        "if self._is_stale or self._scope.cancel_called:",
        "if self._is_stale:",
    ),
    Mutation(
        "a merged repair forgets",
        "_repair.py",
        "        self.add(other._todo, other._at)\n",
        "        self.add((), other._at)\n",
    ),
    Mutation(
        "a failed restart is no failure",
        "_repair.py",
        "                self._judge.judge(unit, unit.error)",
        "                pass",
    ),
    # Supervisors
    Mutation(
        "children stop in order",
        "_family.py",
        "for child in sorted(self.children.values(), key=_number, reverse=True):\n                if for_good",
        "for child in sorted(self.children.values(), key=_number):\n                if for_good",
    ),
    Mutation(
        "a child supervisor forgets its actors",
        "_household.py",
        "        for_good = self.realm is None\n",
        "        for_good = True\n",
    ),
    Mutation("runs of a child go on", "_supervisor.py", "            below._stop_all(reason)", "            pass"),
    Mutation(
        "runs of a child are not waited for",
        "_household.py",
        "            if isinstance(child, Realm):\n                yield child.supervisor",
        "            if False:\n                yield child.supervisor",
    ),
    Mutation(
        "an actor of another supervisor is a stage",
        "_household.py",
        "if not any(family is resident.home for family in self._list_lineage()):",
        "if False:",
    ),
    Mutation(
        "an actor that has ended is a stage",
        "_household.py",
        "        if resident.is_retiring:\n",
        "        if False:\n",
    ),
    Mutation(
        "messages to the dead are not counted",
        "_resident.py",
        "            self.home.note_lost()\n",
        "            pass\n",
    ),
    Mutation("actors that ended take their account along", "_family.py", "        self._past += child.balance()\n", ""),
    Mutation("a cycle of actors is accepted", "_scopes.py", "    if not is_needed:\n", "    if True:\n"),
    Mutation(
        "a subpipeline does not count",
        "_healing.py",
        "counted if counted is not None else (None, self._intensity)",
        "(None, self._intensity)",
    ),
]
