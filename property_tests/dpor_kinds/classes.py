"""Classes, metaclasses, descriptors, and operators that have effects."""

from __future__ import annotations

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World

from .objects import Defined, Plain, Slots, later


def around_classes(make):
    """Attributes that are written, and read, around what a class does for them."""

    def kind():
        thing = make()

        async def put(me):
            object.__setattr__(thing, "n", me.number)
            await checkpoint()
            me.see(thing.n)

        async def get(me):
            await checkpoint()
            me.see(object.__getattribute__(thing, "n"))

        async def by_super(me):
            await checkpoint()
            super(make, thing).__setattr__("n", me.name)

        return World((put, get, by_super), lambda: thing.n)

    kind.__name__ = f"around_{make.__name__}"
    return kind


def class_attributes():
    class Base:
        total = 0
        items = []  # noqa: RUF012

    class Child(Base):
        pass

    Plain.total = 0

    async def on_class(me):
        Base.total = Base.total + await later(1)

    async def on_child(me):
        await checkpoint()
        Child.total = 100

    async def append(me):
        await checkpoint()
        Child().items.append(me.name)

    async def count(me):
        Plain.count()
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see((Child.total, len(Base.items), Plain.total))

    return World((on_class, on_child, append, count, look), lambda: (Base.total, Child.total, Base.items, Plain.total))


class Meta(type):
    made = 0

    def __call__(cls):
        Meta.made += 1
        return super().__call__()

    @property
    def label(cls):
        return cls.__dict__.get("_label", "none")

    @label.setter
    def label(cls, value):
        cls._label = value


class Single(metaclass=Meta):
    instance = None

    @classmethod
    async def get(cls):
        if cls.instance is None:
            made = cls()
            await checkpoint()
            cls.instance = made
        return cls.instance


def metaclass():
    Meta.made = 0
    Single.instance = None
    Single.label = "none"

    async def get(me):
        me.see(await Single.get() is Single.instance)

    async def make(me):
        await checkpoint()
        Single()

    async def label(me):
        await checkpoint()
        Single.label = me.name

    async def look(me):
        await checkpoint()
        me.see((Meta.made, Single.label))

    return World((get, make, label, look), lambda: (Meta.made, Single.label))


class Watched:
    """A descriptor that counts how often it is read."""

    def __init__(self):
        self.reads = 0
        self.value = 0

    def __get__(self, owner, kind=None):
        self.reads += 1
        return self.value

    def __set__(self, owner, value):
        self.value = value


def descriptors():
    watched = Watched()

    class Owner:
        field = watched

    one, two = Owner(), Owner()

    async def read(me):
        me.see(one.field)
        await checkpoint()

    async def write(me):
        await checkpoint()
        two.field = me.name

    async def look(me):
        await checkpoint()
        me.see(watched.reads)

    async def replace(me):
        await checkpoint()
        Owner.field = 5

    return World((read, write, look, replace), lambda: (watched.reads, watched.value))


class Dynamic:
    """Has every attribute, and remembers who was asked for."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        self.asked.append(name)
        return len(self.asked)

    def __getattribute__(self, name):
        if name == "sum":
            object.__getattribute__(self, "asked").append("sum")
        return object.__getattribute__(self, name)

    def __setattr__(self, name, value):
        if name == "log":
            self.asked.append(value)
        else:
            object.__setattr__(self, name, value)


def dynamic():
    thing = Dynamic()

    async def ask(me):
        me.see(thing.a)
        await checkpoint()

    async def sums(me):
        await checkpoint()
        try:
            me.see(thing.sum)
        except AttributeError:
            me.see("no sum")

    async def log(me):
        await checkpoint()
        thing.log = me.name

    async def look(me):
        await checkpoint()
        me.see(hasattr(thing, "b"))

    return World((ask, sums, log, look), lambda: thing.asked)


class Sly:
    """Counts whatever is done with it."""

    def __init__(self, log):
        self.log = log

    def __eq__(self, other):
        self.log.append("eq")
        return True

    def __hash__(self):
        self.log.append("hash")
        return 1

    def __iter__(self):
        self.log.append("iter")
        return iter((1, 2))

    def __enter__(self):
        self.log.append("enter")

    def __exit__(self, *_):
        self.log.append("exit")

    def __bool__(self):
        self.log.append("bool")
        return len(self.log) % 2 == 0

    def __len__(self):
        return len(self.log)


def sly():
    """Objects whose operators have effects; two of them are always equal."""
    log = []
    one, other = Sly(log), Sly(log)
    shelf = [one]

    async def compare(me):
        me.see(one == other)
        await checkpoint()

    async def enter(me):
        with one:
            await checkpoint()

    async def unpack(me):
        await checkpoint()
        me.see(sum(one))

    async def test(me):
        await checkpoint()
        me.see(bool(other))

    async def exchange(me):
        await checkpoint()
        shelf[0] = other if shelf[0] is one else one

    async def look(me):
        await checkpoint()
        me.see((shelf[0] is one, len(log)))

    return World((compare, enter, unpack, test, exchange, look), lambda: (log, shelf[0] is one))


def changing_class():
    """The class of an object is changed, and a method of a class."""

    class One:
        def say(self):
            return 1

    class Two:
        def say(self):
            return 2

    thing = One()

    async def turn(me):
        await checkpoint()
        thing.__class__ = Two

    async def patch(me):
        await checkpoint()
        One.say = lambda _: me.name

    async def base(me):
        await checkpoint()
        Two.say = One.say

    async def look(me):
        await checkpoint()
        me.see(thing.say())

    return World((turn, patch, base, look), lambda: thing.say())  # noqa: PLW0108 (its class may be another)


class Sayer:
    """Has methods that touch nothing."""

    def say(self):
        return "said"

    @staticmethod
    def tell():
        return "told"


def replaced_methods():
    """Methods that are replaced on an object, by functions and by methods of others, and given back."""
    thing, other = Sayer(), Sayer()
    held = thing.say

    async def replace(me):
        await checkpoint()
        thing.say = lambda: "replaced"

    async def by_method(me):
        await checkpoint()
        thing.tell = other.say

    async def give_back(me):
        await checkpoint()
        vars(thing).pop("say", None)

    async def say(me):
        await checkpoint()
        me.see(thing.say())

    async def tell(me):
        await checkpoint()
        me.see((thing.tell(), held()))

    async def ask(me):
        await checkpoint()
        me.see(hasattr(thing, "new"))

    async def add(me):
        await checkpoint()
        thing.new = thing.say

    return World((replace, by_method, give_back, say, tell, ask, add))


KINDS = (
    around_classes(Plain),
    around_classes(Slots),
    around_classes(Defined),
    class_attributes,
    metaclass,
    descriptors,
    dynamic,
    sly,
    changing_class,
    replaced_methods,
)
