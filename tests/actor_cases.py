"""What the tests of supervision share: stages that do as told and keep a diary, and a model of a supervisor."""

from __future__ import annotations

import contextlib
import itertools

import attrs
import trio

from stageflow_actors import Backoff, Directive, Intensity, Restart, StageOutput, Supervisor

MANY = Intensity(1000)
ESCALATE = Restart(decide=lambda error: Directive.ESCALATE)
POLICIES = ("permanent", "transient", "temporary")
SCOPES = ("one_for_one", "dependents", "one_for_all", "rest_for_one")


class CrashError(Exception):
    """What a stage raises that is told to crash."""


def later(seconds, max_restarts=1000):
    """Return a restart policy that waits so many seconds before each restart."""
    backoff = Backoff(initial=seconds, factor=1.0, maximum=seconds, jitter=0.0)
    return Restart(max_restarts=max_restarts, backoff=backoff)


async def obey(ctx):
    """Do what the message says, after the seconds that it says."""
    data = ctx.snapshot.data
    if data.get("after"):
        await trio.sleep(data["after"])
    what = data.get("do")
    if what == "crash":
        raise CrashError(data.get("why", ""))
    if what == "exit":
        raise SystemExit(3)
    if what == "fail":
        return StageOutput.fail("no")
    if what == "cancel":
        return StageOutput.cancel("no more")
    if what == "stop":
        ctx.stop()
    return None


def pick(value, number):
    """Return what holds for an incarnation: one value for all, or a mapping of those that differ."""
    return value.get(number, 0.0) if isinstance(value, dict) else value


class Diary:
    """What stages note of their starts and ends, in order, with the time."""

    def __init__(self):
        self.began = trio.current_time()
        self.lines = []

    def note(self, what):
        self.lines.append((trio.current_time() - self.began, what))

    def take(self):
        """Return the lines since the last call."""
        return [what for _, what in self.take_timed()]

    def take_timed(self):
        lines, self.lines = self.lines, []
        return lines

    def stage(self, name, *, start=0.0, stop=0.0, fails=(), kept=None):
        """Return a stage class whose instances are numbered.

        Args:
            name: What the diary calls it.
            start: Seconds that a start takes, also by incarnation: `{2: 5.0}`.
            stop: Seconds that an end takes, likewise.
            fails: The incarnations that do not come up.
            kept: What runs in a nursery of the instance, a function of the incarnation.
        """
        numbers = itertools.count(1)

        class Noted:
            def __init__(self):
                self.number = next(numbers)
                self.who = f"{name}{self.number}"

            async def __aenter__(self):
                await self._take_time("starts", pick(start, self.number))
                if self.number in fails:
                    diary.note(f"{self.who} fails")
                    raise CrashError(f"{self.who} does not start")
                if kept is not None:
                    self.nursery = trio.open_nursery()
                    (await self.nursery.__aenter__()).start_soon(kept, self.number)
                diary.note(f"{self.who} up")

            async def __aexit__(self, *exc):
                try:
                    await self._take_time("leaves", pick(stop, self.number))
                finally:
                    diary.note(f"{self.who} down")
                    if kept is not None:
                        self.nursery._nursery.cancel_scope.cancel()
                        await self.nursery.__aexit__(*exc)

            async def _take_time(self, what, seconds):
                if not seconds:
                    return
                diary.note(f"{self.who} {what}")
                try:
                    await trio.sleep(seconds)
                except trio.Cancelled:
                    diary.note(f"{self.who} is cut off")
                    raise

            async def execute(self, ctx):
                output = await obey(ctx)
                return {"by": self.who} if output is None else output

        diary = self
        return Noted


async def send(ref, do=None, **data):
    """Ask an actor to do something; return its output, or what it raised."""
    try:
        return await ref.ask({"do": do, **data}, timeout=None)
    except Exception as error:
        return error


async def name_of(ref):
    """Return which incarnation answers."""
    return (await ref.ask(timeout=None)).data["by"]


async def send_and_leave(ref):
    """Ask an actor for something that takes a second, and give up half way."""
    with trio.move_on_after(0.5):
        await ref.ask({"after": 1.0}, timeout=None)
    await trio.sleep(0.5)


async def spawn_all(supervisor, diary, **children):
    """Spawn actors: each name with its options, those of the diary's stage included; return their references."""
    refs = {}
    for name, options in children.items():
        of_stage = {key: options[key] for key in ("start", "stop", "fails", "kept") if key in options}
        others = {key: value for key, value in options.items() if key not in of_stage}
        refs[name] = await supervisor.spawn(diary.stage(name, **of_stage), name=name, **others)
    diary.take()
    return refs


@contextlib.contextmanager
def at_once():
    """Refuse a block that takes time."""
    before = trio.current_time()
    with trio.fail_after(0.001):
        yield
    assert trio.current_time() == before


# Trees

LIMITS = {
    "the supervisor's": (Intensity(0), {}),
    "the actor's own": (MANY, {"policy": "permanent", "restart": later(0.0, max_restarts=0)}),
    "escalation": (MANY, {"restart": ESCALATE}),
}
"""What a child supervisor gives up for: its intensity, and options of the actor that crashes."""


async def grow(top, diary, *, limit="escalation", restart=None, policy="permanent", name="s", **children):
    """Open a child supervisor with actors a, b and t, which is temporary; b makes it give up when it crashes."""
    intensity, options = LIMITS[limit]
    below = await top.spawn_supervisor(Supervisor(intensity=intensity), name=name, restart=restart, policy=policy)
    given = {"a": {}, "b": options, "t": {"policy": "temporary"}}
    refs = await spawn_all(below, diary, **{key: {**value, **children.get(key, {})} for key, value in given.items()})
    return below, refs


# The model


@attrs.define
class Member:
    """A child, as the model sees it."""

    name: str
    policy: str = "transient"
    depends_on: tuple[str, ...] = ()
    incarnation: int = 1

    @property
    def who(self):
        return f"{self.name}{self.incarnation}"


class Model:
    """What a supervisor does with its children, as OTP's manual says, in words of one step each."""

    def __init__(self, scope, members, intensity=MANY):
        self.scope = scope
        self.members = list(members)
        """Those that have not ended, in the order of spawning."""
        self.intensity = intensity
        self.failures = []
        self.ended = {}
        """Why the others have."""
        self.is_over = False

    def find(self, name):
        return next(member for member in self.members if member.name == name)

    def spawn(self, member):
        self.members.append(member)
        return [f"{member.who} up"]

    def fail(self, name, now):
        """A child has crashed."""
        return self._lose(self.find(name), now, CrashError)

    def leave(self, name, now):
        """A child has ended by itself."""
        return self._lose(self.find(name), now, None)

    def stop(self, name):
        """A child is stopped by a user."""
        member = self.find(name)
        self.members.remove(member)
        self.ended[name] = None
        return [f"{member.who} down"]

    def restart(self, name):
        """A child is restarted by a user: with those of its scope, and counting for nothing."""
        return self._cycle([self.find(name), *self._list_others(self.find(name))], ())

    def _lose(self, member, now, reason):
        lines = [f"{member.who} down"]
        if member.policy == "temporary" or (member.policy == "transient" and reason is None):
            self.members.remove(member)
            self.ended[member.name] = reason
            return lines
        span = self.intensity.within
        self.failures = [then for then in self.failures if span is None or now - then <= span]
        self.failures.append(now)
        if len(self.failures) > self.intensity.max_restarts:
            self.is_over = True
            return lines + [f"{other.who} down" for other in reversed(self.members) if other is not member]
        return lines + self._cycle([member, *self._list_others(member)], (member,))

    def _list_others(self, failed):
        later = self.members[self.members.index(failed) + 1 :]
        if self.scope == "one_for_one":
            return []
        if self.scope == "one_for_all":
            return [member for member in self.members if member is not failed]
        if self.scope == "rest_for_one":
            return later
        return [member for member in self.members if member is not failed and self._needs(member, failed.name)]

    def _needs(self, member, name):
        if name in member.depends_on:
            return True
        return any(self._needs(other, name) for other in self.members if other.name in member.depends_on)

    def _cycle(self, chosen, down):
        """Stop in reverse order, and start in order: what is down already needs no stop, what is temporary no start."""
        ordered = [member for member in self.members if member in chosen]
        lines = [f"{member.who} down" for member in reversed(ordered) if member not in down]
        for member in ordered:
            if member.policy == "temporary" and member is not chosen[0]:
                self.members.remove(member)
                self.ended[member.name] = None
            else:
                member.incarnation += 1
                lines.append(f"{member.who} up")
        return lines
