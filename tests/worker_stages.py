"""Stages that misuse their worker process, which imports them from here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from stageflow_actors.placement import _serving


def hold(ctx):
    """Hold the pipe of the test open until this process, and those that inherit it, have ended."""
    pipe = Path(ctx.config["pipe"]).open("wb", buffering=0)  # noqa: SIM115 (until the process ends)
    os.set_inheritable(pipe.fileno(), True)
    return pipe


def tell(pipe):
    pipe.write(b"%d\n" % os.getpid())


def fork_and_spin(ctx):
    """Leave a child behind that has everything open that this process has."""
    pipe = hold(ctx)
    if os.fork() == 0:
        threading.Event().wait()
    tell(pipe)
    while True:
        pass


def fork_and_die(ctx):
    hold(ctx)
    if os.fork() == 0:
        threading.Event().wait()
    os._exit(3)


def wait_for_a_program(ctx):
    """Wait for a program that never ends, as stages do that call other tools."""
    pipe = hold(ctx)
    tell(pipe)
    waiting = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    subprocess.run(waiting, check=False, pass_fds=[pipe.fileno()])


def tell_and_wait(ctx):
    tell(hold(ctx))
    threading.Event().wait()


def leave_a_thread(ctx):
    """Keep the process from ending by itself."""
    threading.Thread(target=threading.Event().wait).start()
    return {"pid": os.getpid()}


def read_pid(ctx):
    return {"pid": os.getpid()}


def break_off(ctx):
    """Die in the middle of a reply."""
    frame = sys._getframe()
    while frame.f_code is not _serving.serve.__code__:
        frame = frame.f_back
    channel = frame.f_locals["channel"]
    channel.sendall(_serving.HEADER.pack(10_000))
    channel.sendall(bytes(5_000))
    os._exit(7)


def fail_locked():
    raise LockedError


def wait_for_ever():
    threading.Event().wait()


def take_long():
    time.sleep(0.05)  # of real work: what is tested is that it does not count


def exit_at_once():
    os._exit(4)


class LockedError(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()
