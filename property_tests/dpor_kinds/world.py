"""State that hardly any reduction sees: the process's, the system's, that in C."""

from __future__ import annotations

import atexit
import functools
import io
import os
import queue
import random
import shutil
import socket
import sys
import tempfile
import threading
import warnings
from pathlib import Path

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World

LOCAL = threading.local()
NAME = "STAGEFLOW_ACTORS_DPOR"


def numbers_drawn():
    """The state of the module random."""
    random.seed(1)

    async def draw(me):
        me.see(random.random())
        await checkpoint()
        me.see(random.randrange(100))

    async def seed(me):
        await checkpoint()
        random.seed(2)

    return World((draw, seed), random.random)


def generator_of_numbers():
    """A generator of random numbers of the program's own."""
    numbers = random.Random(1)
    shuffled = list(range(5))

    async def draw(me):
        await checkpoint()
        me.see(numbers.random())

    async def shuffle(me):
        numbers.shuffle(shuffled)
        await checkpoint()

    return World((draw, shuffle), lambda: (numbers.random(), shuffled))


def environment():
    os.environ[NAME] = "0"

    async def add(me):
        seen = os.environ[NAME]
        await checkpoint()
        os.environ[NAME] = seen + me.name

    async def around(me):
        await checkpoint()
        os.environb[NAME.encode()] = b"x"

    async def look(me):
        await checkpoint()
        me.see(os.getenv(NAME))

    return World((add, around, look), lambda: os.environ[NAME])


@functools.cache
def make_folder():
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def files():
    path = make_folder() / "file"
    path.write_text("0")

    async def add(me):
        seen = path.read_text()
        await checkpoint()
        path.write_text(seen + me.name)

    async def append(me):
        await checkpoint()
        with path.open("a") as file:
            file.write("+")

    async def look(me):
        await checkpoint()
        me.see(os.stat(path).st_size)  # noqa: PTH116

    return World((add, append, look), path.read_text)


def thread_local():
    LOCAL.n = 0

    async def add(me):
        seen = LOCAL.n
        await checkpoint()
        LOCAL.n = seen + 1

    async def look(me):
        await checkpoint()
        me.see(LOCAL.__dict__["n"])

    return World((add, look), lambda: LOCAL.n)


def text_in_memory():
    text = io.StringIO()
    data = io.BytesIO(b"abc")

    async def write(me):
        text.write(me.name)
        await checkpoint()

    async def read(me):
        await checkpoint()
        me.see(data.read(1))

    async def look(me):
        await checkpoint()
        me.see(text.tell())

    return World((write, read, look), text.getvalue)


def queues():
    simple = queue.SimpleQueue()
    lock = threading.Lock()

    async def put(me):
        simple.put(me.name)
        await checkpoint()

    async def get(me):
        await checkpoint()
        me.see(None if simple.empty() else simple.get())

    async def hold(me):
        if lock.acquire(blocking=False):
            await checkpoint()
            lock.release()
        else:
            me.see("taken")

    return World((put, get, hold), simple.qsize)


def sockets():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)

    async def send(me):
        near.send(b"x")
        await checkpoint()

    async def receive(me):
        await checkpoint()
        try:
            me.see(far.recv(10))
        except BlockingIOError:
            me.see("nothing")

    def close():
        near.close()
        far.close()

    return World((send, receive), close=close)


def interpreter():
    """What belongs to the interpreter: modules, limits, filters of warnings."""

    async def change_limit(me):
        await checkpoint()
        sys.setswitchinterval(0.004 + me.number / 1000)

    async def look_at_limit(me):
        await checkpoint()
        me.see(sys.getswitchinterval())

    async def register(me):
        await checkpoint()
        sys.modules["a_made_up_module"] = random

    async def look(me):
        await checkpoint()
        me.see("a_made_up_module" in sys.modules)

    async def ignore(me):
        before = len(warnings.filters)
        await checkpoint()
        me.see(len(warnings.filters) - before)

    def close():
        sys.setswitchinterval(0.005)
        sys.modules.pop("a_made_up_module", None)

    close()
    return World((change_limit, look_at_limit, register, look, ignore), close=close)


def working_directory():
    async def change(me):
        await checkpoint()
        os.chdir("/")

    async def back(me):
        await checkpoint()
        os.chdir(make_folder())

    async def look(me):
        await checkpoint()
        me.see(Path.cwd() == Path("/"))

    before = Path.cwd()
    return World((change, back, look), close=lambda: os.chdir(before))


SEEN = (numbers_drawn, generator_of_numbers)
UNSEEN = (
    environment,
    files,
    thread_local,
    text_in_memory,
    queues,
    sockets,
    interpreter,
    working_directory,
)
KINDS = SEEN + UNSEEN
