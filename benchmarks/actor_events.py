"""The events of the chaos of resident actors: who starts, crashes, starts again and ends, with whom, and how fast."""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from actor_plans import Form, Leave, Restarts
from actor_world import HarmError

from stageflow_actors.events import ActorCrashed, ActorEnded, ActorRestarting, ActorResumed, ActorStarted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actor_plans import SupervisorPlan
    from actor_world import World

    from stageflow_actors.events import ActorEvent

NEAR = 1e-6


def check_events(world: World) -> Iterator[str]:
    """Every actor starts, crashes, starts again and ends in that order, and with others as the scope says."""
    incarnations: dict[tuple[str, int], int] = {}
    errors: set[tuple[str, int]] = set()
    for event in world.events:
        if isinstance(event, ActorStarted):
            key = event.actor, event.worker
            if event.incarnation != incarnations.get(key, 0) + 1:
                yield f"{event} follows incarnation {incarnations.get(key, 0)}"
            incarnations[key] = event.incarnation
        elif isinstance(event, ActorEnded):
            for key in [key for key in incarnations if key[0] == event.actor]:
                del incarnations[key]
        elif isinstance(event, ActorCrashed | ActorResumed):
            if (event.actor, id(event.error)) in errors:
                yield f"{event} was told twice"
            errors.add((event.actor, id(event.error)))
    if incarnations:
        yield f"it was never told that these have ended: {sorted({path for path, _ in incarnations})}"
    started = Counter(event.actor for event in world.events if isinstance(event, ActorStarted))
    for path, actor in world.actors.items():
        entered = sum(life.entered for life in actor.lives)
        if actor.plan.form is Form.MANAGED and started[path] != entered:
            yield f"{path} was entered {entered} times, and said to be up {started[path]} times"
    history = _History(world)
    for plan in world.plan.supervisors:
        yield from _check_scope(world, plan, history)
        yield from _check_intensity(world, plan)
    for event in world.events:
        yield from _check_policy(world, event)


def list_times_to_restart(events: list[ActorEvent]) -> list[float]:
    """Return the seconds from each crash of a worker to the next moment at which it is up; those that end left out."""
    down: dict[tuple[str, int], float] = {}
    taken = []
    for event in events:
        if isinstance(event, ActorCrashed):
            down.setdefault((event.actor, event.worker), event.at)
        elif isinstance(event, ActorStarted):
            began = down.pop((event.actor, event.worker), None)
            if began is not None:
                taken.append(event.at - began)
        elif isinstance(event, ActorEnded):
            for key in [key for key in down if key[0] == event.actor]:
                del down[key]
    return taken


def count_restarts(events: list[ActorEvent]) -> int:
    """Return how often a worker or a supervisor was up again."""
    return sum(isinstance(event, ActorStarted) and event.incarnation > 1 for event in events)


class _History:
    """When each child was up again, or ended, by positions in the list of events."""

    def __init__(self, world: World) -> None:
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        self._events = world.events
        for index, event in enumerate(world.events):
            if isinstance(event, ActorStarted | ActorEnded):
                self._places[event.actor].append(index)

    def find_next(self, child: str, index: int) -> ActorStarted | ActorEnded | None:
        """Return what is heard of a child's starts and its end next, after a position."""
        places = self._places[child]
        place = bisect(places, index)
        return self._events[places[place]] if place < len(places) else None  # type: ignore[return-value]


class _Siblings:
    """The children of one supervisor, as the events tell of them."""

    def __init__(self, world: World, plan: SupervisorPlan) -> None:
        self._world = world
        self._plan = plan
        self._lives = {child: _number_lives(world, child) for child in plan.children}
        self._up: dict[str, set[int]] = {child: set() for child in plan.children}
        """Which workers have been up, in this life."""
        self._since: dict[str, float] = {}
        """When the last of them was up for the first time."""
        self._fallen: set[tuple[str, int]] = set()
        """Workers that have failed, and of which nobody has said that they are restarted: their actor may be ending."""
        self.order: list[str] = []
        """In which they were spawned; those that have ended left out."""

    def take(self, event: ActorEvent) -> None:
        """Take in what happened to one of them."""
        child = event.actor
        if isinstance(event, ActorCrashed):
            self._fallen.add((child, event.worker))
        elif isinstance(event, ActorRestarting):
            self._fallen.discard((child, event.worker))
        elif isinstance(event, ActorStarted):
            self._fallen.discard((child, event.worker))
            self._take_start(event)
        elif isinstance(event, ActorEnded):
            self._fallen = {fallen for fallen in self._fallen if fallen[0] != child}
            self._up[child].clear()
            del self._lives[child][0]
            if child in self.order:
                self.order.remove(child)

    def _take_start(self, event: ActorStarted) -> None:
        child = event.actor
        if event.worker not in self._up[child]:
            self._since[child] = event.at
        self._up[child].add(event.worker)
        if child not in self.order:
            self.order.append(child)
            self.order.sort(key=lambda child: self._lives[child][0])

    def select(self, event: ActorRestarting, ending: set[str], *, surely: bool) -> set[str]:
        """Return who is restarted with one that failed: the scopes again, from their definition.

        Args:
            event: Which one failed, and when.
            ending: Those that end instead.
            surely: Whether those are left out that may be ready or not, because they came up at this moment, and
                those that are to stop, and those whose dependencies were others when they were spawned again.
        """
        actors = self._world.actors
        near = 0.05 if self._world.plan.real else 0.0
        settled = {
            child
            for child in self.order
            if (child not in actors or len(self._up[child]) == actors[child].plan.pool)
            and child not in ending
            and not (child in actors and actors[child].plan.policy == "temporary")  # it ends with the others
            and not (surely and (self._since[child] >= event.at - near or self._is_stopping(child, event.at)))
        }
        others = settled - {event.actor}
        if self._plan.scope == "one_for_one":
            return set()
        if self._plan.scope == "one_for_all":
            return others
        if self._plan.scope == "rest_for_one":
            return others.intersection(self.order[self.order.index(event.actor) + 1 :])
        needs = {child: self._find_needs(child, surely=surely) for child in (others if surely else self.order)}
        affected, before = {event.actor}, 0
        while len(affected) > before:
            before = len(affected)
            affected.update(child for child, needed in needs.items() if needed & affected)
        return affected & others

    def _is_stopping(self, child: str, now: float) -> bool:
        fallen = any(path == child for path, _ in self._fallen)
        return fallen or any(path == child and self._since[child] <= at <= now for path, at in self._world.stopped)

    def _find_needs(self, child: str, *, surely: bool) -> set[str]:
        if child not in self._world.actors:
            return set()
        lives = self._world.actors[child].lives
        needs = [{f"{self._plan.path}/{name}".lstrip("/") for name in life.depends_on} for life in lives]
        return set.intersection(*needs) if surely else set.union(*needs)


def _number_lives(world: World, child: str) -> list[int]:
    """Return the places in the order of spawning that a child has had, one after the other; without those refused."""
    if child not in world.actors:
        realm = world.supervisors[child]._household.realm
        assert realm is not None
        return [realm.number]
    return [life.place for life in world.actors[child].lives if life.place is not None]


def _check_scope(world: World, plan: SupervisorPlan, history: _History) -> Iterator[str]:
    """Those that the scope says are restarted with one, and nobody else; and they are up again, or end."""
    siblings = _Siblings(world, plan)
    for index, event in enumerate(world.events):
        if event.actor not in plan.children:
            continue
        siblings.take(event)
        if isinstance(event, ActorRestarting):
            coming = {child: history.find_next(child, index) for child in {*siblings.order, event.actor, *event.others}}
            ending = {child for child, later in coming.items() if isinstance(later, ActorEnded)}
            told = set(event.others) - ending
            least = siblings.select(event, ending, surely=True)
            if not least <= told <= siblings.select(event, ending, surely=False):
                yield f"{event}: with scope {plan.scope!r} the others are {sorted(least)} of {siblings.order}"
            missing = [child for child in (event.actor, *event.others) if coming[child] is None]
            if missing and world.plan.leave is Leave.NORMALLY:
                yield f"{missing} were not restarted: {event}"


def _check_intensity(world: World, plan: SupervisorPlan) -> Iterator[str]:
    """A supervisor restarts its children as often as its intensity says, and gives up then, not before."""
    told: list[float] = []
    """When children were restarted, for whatever reason."""
    window: list[float] = []
    """When restarts were that surely count together: nobody asked for them, and it was open all the time."""
    closed: Counter[str] = Counter()
    """Of it and those above, how often each may have to come up until it is surely open: twice if it was starting."""
    fullest = 0
    """How many came together at most since it gave up last, whether they count or not."""
    above = {plan.path, *(other.path for other in world.plan.supervisors if plan.path.startswith(f"{other.path}/"))}
    for event in world.events:
        if event.actor in plan.children and isinstance(event, ActorRestarting):
            told.append(event.at)
            fullest = max(fullest, _count_since(told, event.at, plan.within))
            if not closed.total() and not _was_asked(world, event):
                window.append(event.at)
            count = _count_since(window, event.at, plan.within)
            if count > plan.max_restarts:
                yield f"{count} restarts, and the intensity is {plan.max_restarts} within {plan.within} s: {event}"
        elif event.actor == plan.path and isinstance(event, ActorCrashed):
            if str(event.error).startswith("the supervisor has had") and fullest < plan.max_restarts:
                yield f"{plan.path} gave up after {fullest} restarts: {event.error}"
            fullest = 0
        concerned = above.intersection({event.actor, *(event.others if isinstance(event, ActorRestarting) else ())})
        if concerned:
            window.clear()
        for path in concerned:
            came = isinstance(event, ActorStarted)
            closed[path] = max(0, closed[path] - 1) if came else min(2, closed[path] + 1)


def _was_asked(world: World, event: ActorRestarting) -> bool:
    """Return whether a restart may have been asked for, and then counts against nothing."""
    near = 0.05 if world.plan.real else NEAR
    return any(path == event.actor and abs(at - event.at) <= near for path, at in world.asked)


def _count_since(times: list[float], now: float, within: float | None) -> int:
    return sum(within is None or now - at <= within for at in times)


def _check_policy(world: World, event: ActorEvent) -> Iterator[str]:
    """What is temporary is never restarted; who is to resume resumes, and nobody else."""
    actor = world.actors.get(event.actor)
    if actor is None:
        return
    asked = sum(path == event.actor for path, _ in world.asked)
    if isinstance(event, ActorStarted) and actor.plan.policy == "temporary" and event.incarnation > 1 + asked:
        yield f"it is temporary: {event}"
    if isinstance(event, ActorCrashed | ActorResumed) and isinstance(event.error, HarmError):
        resumes = actor.plan.restart is Restarts.RESUME and event.error.where == "execute" and event.error.number % 2
        if bool(resumes) != isinstance(event, ActorResumed):
            yield f"its policy is {actor.plan.restart}: {event}"
