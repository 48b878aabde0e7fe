"""What a drawn run is to do: plain values, drawn before trio starts and read by runtime and model alike."""

from __future__ import annotations

from enum import Enum

import attrs

from stageflow_actors import Trigger
from stageflow_actors.testing._brief import Brief

CLEANUP = 0.125
"""Virtual seconds that the `__aexit__` of a managed stage takes."""

CHANCE = 0.5
"""What jitter draws, where a plan does not leave it to chance: then every delay is exact in binary."""

GIVEN_SUM = 100
"""What the data of an overridden stage holds under `sum`."""


class Act(Enum):
    """What a stage does once it has slept."""

    OK = "ok with data"
    MAPPING = "a plain mapping"
    NONE = "None"
    ROUTE = "ok with a label"
    SKIP = "skip"
    SKIP_DATA = "skip with data"
    FAIL = "fail with a text"
    FAIL_ERROR = "fail with an exception"
    RETRY = "retry"
    WRONG_TYPE = "return what is no output"
    UNFREEZABLE = "return data that cannot be frozen"
    UNDECLARED = "ask for a stage that is no dependency"
    RAISE = "raise an exception"
    RAISE_UNPRINTABLE = "raise an exception whose str() raises"
    RAISE_GROUP = "raise a group"
    OWN_SCOPE = "cancel a scope of its own, and return"
    KEPT_CANCELLED = "raise the Cancelled of a scope of its own outside of it"
    MIXED_GROUP = "raise such a Cancelled in a group with an exception"
    CHILD_FAILS = "open a nursery whose child raises"
    NURSERY_LEFT_OPEN = "return with a nursery open"
    NURSERY_LEFT_OPEN_FAILING = "return with a nursery open whose child raises when cancelled"
    CANCEL = "cancel the run by its reply"
    ABORT = "raise what is no Exception"


class Reaction(Enum):
    """What a stage does when it is cancelled while it sleeps."""

    PASS = "let it through"
    SWALLOW = "return a value all the same"
    MESSY = "raise in cleanup"
    MIXED = "raise a group of the Cancelled and an error of cleanup"
    SHIELDED = "not notice"


class Form(Enum):
    """What kind of runner a stage has."""

    FUNCTION = "async function"
    PARTIAL = "partial of an async function"
    CALLABLE = "object with an async __call__"
    INSTANCE = "instance"
    CLASS = "class"
    CLASS_PARTIAL = "partial of a class"
    MANAGED = "class that is a context manager"
    THREAD = "plain def"
    THREAD_INSTANCE = "instance with a plain def"
    THREAD_CLASS = "class with a plain def"
    THREAD_MANAGED = "class with a plain def that is a context manager"


THREADED = frozenset({Form.THREAD, Form.THREAD_INSTANCE, Form.THREAD_CLASS, Form.THREAD_MANAGED})
FRESH = frozenset({Form.CLASS, Form.CLASS_PARTIAL, Form.MANAGED, Form.THREAD_CLASS, Form.THREAD_MANAGED})
"""The forms of which every attempt gets an instance of its own."""
MANAGED = frozenset({Form.MANAGED, Form.THREAD_MANAGED})


class Ask(Enum):
    """What the `when` of a stage is."""

    TRUE = "a predicate that says yes"
    FALSE = "a predicate that says no"
    RAISE = "a predicate that raises"
    EVEN = "a predicate of the inputs' data"
    ROUTE = "a route"


class On(Enum):
    """What the `on` of a restart is."""

    ANY = "Exception"
    PLANNED = "what stages raise on purpose"
    TIMEOUT = "timeouts"
    EITHER = "a tuple of both"
    OTHER = "an error that never comes"
    ASKED = "a predicate that wants to see what stages raise on purpose"
    RAISES = "a predicate that raises"


class Decides(Enum):
    """What the `decide` of a restart returns."""

    RESTART = "restart"
    FAIL = "fail"
    ESCALATE = "escalate"
    RAISES = "nothing: it raises"
    WRONG = "what is no directive"


class Source(Enum):
    """Where the items of a fan-out come from."""

    LIST = "a list"
    PAIR = "what a dependency gave"
    GENERATOR = "a function of the inputs that gives a generator"
    ASYNC = "a function of the inputs that gives an async generator"


@attrs.frozen
class When:
    """The condition of a stage."""

    ask: Ask
    router: str = ""
    label: str = ""


@attrs.frozen(repr=False)
class RestartPlan(Brief):
    """The restarts of a stage or an item."""

    max_restarts: int = 2
    within: float | None = None
    initial: float = 0.25
    factor: float = 2.0
    maximum: float = 4.0
    jitter: float = 0.0
    on: On = On.ANY
    decides: Decides | None = None


@attrs.frozen(repr=False)
class LimiterPlan(Brief):
    """A limiter."""

    max_concurrency: int
    max_queued: int | None = None
    overflow: str = "wait"
    rate: tuple[int, float, int] | None = None
    """Its count, per and burst."""
    aging: float = 10.0


@attrs.frozen(repr=False)
class FanPlan(Brief):
    """A dynamic fan-out. Each item is its own position."""

    limiter: str
    workers: tuple[StagePlan, ...]
    """What is done for each item, again and again in this order."""
    source: Source = Source.LIST
    giver: str = ""
    """With `PAIR`: the dependency; it gives as many items as its value."""
    count: int = 0
    """Otherwise: how many there are."""
    ends_at_failure: bool = True
    collects: bool = True
    form: Form = Form.FUNCTION
    restart: RestartPlan | None = None
    timeout: float | None = None


@attrs.frozen(repr=False)
class StagePlan(Brief):
    """One stage."""

    name: str
    dependencies: tuple[str, ...] = ()
    trigger: Trigger = Trigger.ALL_SUCCESS
    act: Act = Act.OK
    reaction: Reaction = Reaction.PASS
    form: Form = Form.FUNCTION
    checkpoints: int = 0
    sleep: float = 0.0
    nested: bool = False
    """Whether it sleeps in a run of its own, inside a stage of another pipeline."""
    timeout: float | None = None
    when: When | None = None
    value: int = 0
    label: str = "left"
    heals_at: int | None = None
    """From this attempt on it is well: it succeeds, and in time."""
    after: float = 0.0
    """With `RETRY`: the seconds that it asks for."""
    restart: RestartPlan | None = None
    limiter: str | None = None
    priority: int = 0
    fan: FanPlan | None = None
    """With it, the stage is a fan-out, and what it does by itself does not count."""

    def item(self, index: int) -> StagePlan:
        """Return the plan of an item of a fan-out."""
        assert self.fan is not None
        return attrs.evolve(
            self.fan.workers[index % len(self.fan.workers)],
            name=f"{self.name}[{index}]",
            dependencies=self.dependencies,
            form=self.fan.form,
            restart=self.fan.restart,
            timeout=self.fan.timeout,
            limiter=self.fan.limiter,
            priority=self.priority,
        )

    def at(self, attempt: int) -> StagePlan:
        """Return what it does at an attempt."""
        if self.heals_at is None or attempt < self.heals_at:
            return self
        late = self.timeout is not None and self.timeout <= self.sleep
        return attrs.evolve(self, act=Act.OK, sleep=0.0 if late else self.sleep)


class Way(Enum):
    """How a run is stopped from outside."""

    SCOPE = "a cancel scope around it"
    HANDLE = "Run.cancel"
    TIMEOUT = "the timeout of the run"


@attrs.frozen
class Stop:
    """When a run is stopped, and how."""

    way: Way
    at: float | None = None
    """At this virtual time."""
    entry: int | None = None
    """Or at this entry of the trace, from inside the stage or predicate that makes it; 0 is before anything."""
    kind: str | None = None
    """Which entries count; all by default."""


@attrs.frozen(repr=False)
class RunPlan(Brief):
    """One run."""

    stages: tuple[StagePlan, ...]
    """In the order in which they are added to the pipeline."""
    continue_on_failure: bool = True
    started: bool = False
    """Whether by `Supervisor.start`, else by `Supervisor.run`."""
    targets: tuple[str, ...] | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    """Names, and what is given for them: `mapping`, `ok`, `skip`."""
    stop: Stop | None = None
    scope_at: float | None = None
    """When a scope around the run is cancelled too, whatever else stops it."""
    seed: int = 0
    """Of trio's scheduler."""
    jitter: int = 0
    """At most as many extra checkpoints before and after each stage."""
    limiters: tuple[tuple[str, LimiterPlan], ...] = ()
    """By the names by which stages know them."""
    max_running: int | None = None
    """The supervisor's `max_running_stages`."""
    intensity: tuple[int, float | None] | None = None
    """The restarts of all stages together, and within how many seconds."""

    @property
    def by_name(self) -> dict[str, StagePlan]:
        """The stages by name."""
        return {stage.name: stage for stage in self.stages}

    def find(self, name: str) -> StagePlan:
        """Return the plan of a stage, or of an item such as `s3[7]`."""
        stage, _, index = name.rstrip("]").partition("[")
        return self.by_name[stage].item(int(index)) if index else self.by_name[stage]
