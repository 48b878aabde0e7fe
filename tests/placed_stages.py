"""Stages for other processes, which import them from here."""

from __future__ import annotations

import os
import signal
import sys
from contextvars import ContextVar
from pathlib import Path

from stageflow_actors import StageKind, StageOutput

request = ContextVar("request", default="none")
carried: ContextVar[str] = ContextVar("carried")
state = {"ready": 0}


def look(ctx):
    """Tell everything that a stage can see."""
    inputs = ctx.inputs
    return {
        "pid": os.getpid(),
        "name": ctx.stage_name,
        "attempt": ctx.attempt,
        "key": ctx.idempotency_key,
        "config": ctx.config,
        "data": ctx.snapshot.data,
        "run": ctx.snapshot.run_id,
        "outputs": {name: output.data for name, output in inputs.outputs.items()},
        "states": {name: inputs.state(name).value for name in inputs},
        "failures": {name: str(failure) for name in inputs if (failure := inputs.failure(name))},
    }


def read_pid(ctx):
    return {"pid": os.getpid()}


def echo_item(ctx):
    return {"item": ctx.snapshot.data["item"], "pid": os.getpid()}


def ask_for_output(ctx):
    return {"value": ctx.inputs.require_from("broken", "value")}


def misses(ctx):
    return {"value": ctx.inputs.require_from("undeclared", "value")}


def emit(ctx):
    ctx.emit({"half": True})
    ctx.emit("done")
    return {}


def emit_and_fail(ctx):
    ctx.emit("so far")
    raise ValueError("no further")


def emit_a_lambda(ctx):
    ctx.emit(lambda: None)


class Adds:
    """A fresh instance an attempt, made where it runs."""

    kind = StageKind.TRANSFORM

    def __init__(self, base=0):
        self.base = base
        self.pid = os.getpid()

    def execute(self, ctx):
        return {"sum": self.base + ctx.snapshot.data.get("n", 0), "made_in": self.pid, "runs_in": os.getpid()}


class OddError(Exception):
    """Can be pickled, and then not be read: what it is made of is not in its arguments."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class LockedError(Exception):
    """Holds what cannot be pickled."""

    def __init__(self):
        super().__init__("locked")
        self.handler = lambda: None


def fail_in_depth():
    raise KeyError("inner")


def fail_with_cause(ctx):
    try:
        fail_in_depth()
    except KeyError as error:
        outer = ValueError("outer")
        outer.add_note("seen twice")
        raise outer from error


def fail_oddly(ctx):
    raise OddError(7, reason="odd")


def fail_to_decode(ctx):
    b"caf\xe9".decode()


def fail_to_parse(ctx):
    compile("1 +", "somewhere.py", "exec")


def fail_to_open(ctx):
    Path("/no/such/file").read_text(encoding="utf-8")


def fail_in_a_circle(ctx):
    one, other = ValueError("one"), ValueError("other")
    one.other, other.other = other, one
    one.__context__ = other
    raise one


def fail_too_deep(ctx):
    fail_too_deep(ctx)


def fail_locked(ctx):
    raise LockedError


def fail_in_a_group(ctx):
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


def exit_politely(ctx):
    raise SystemExit(3)


def return_a_lambda(ctx):
    return {"callback": lambda: None}


def return_a_number(ctx):
    return 7


def return_a_retry(ctx):
    return StageOutput.retry("busy") if ctx.attempt == 1 else StageOutput.ok(attempt=ctx.attempt)


def die(ctx):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(ctx):
    if ctx.attempt == 1:
        os._exit(9)
    return {"attempt": ctx.attempt}


def spin(ctx):
    """Compute for ever, and hold a pipe open meanwhile: its reader sees the end of the process."""
    if "pipe" in ctx.config:
        pipe = Path(ctx.config["pipe"]).open("wb", buffering=0)  # noqa: SIM115 (until the process ends)
        pipe.write(b"%d\n" % os.getpid())
    while True:
        pass


def look_at_interrupts(ctx):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return {"ignored": signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "blocked": signal.SIGINT in blocked}


def get_ready():
    state["ready"] += 1


def read_state(ctx):
    return state


def break_down():
    raise OSError("no licence")


def read_request(ctx):
    return {"request": request.get(), "carried": carried.get("nothing")}


def change_request(ctx):
    request.set("changed")
    return {}


def capture_request():
    return f"<{request.get()}>"


def restore_request(value):
    request.set(value)


def fail_in_a_plugin(ctx):
    """Raise what only this process can import."""
    sys.path.insert(0, ctx.config["folder"])
    import plugin_of_a_worker  # noqa: PLC0415 (it is found only now)

    plugin_of_a_worker.fail()


def fail_because_of_a_plugin(ctx):
    try:
        fail_in_a_plugin(ctx)
    except Exception as error:
        raise ValueError("the plugin failed") from error


def fail_deep_at_first(ctx):
    if ctx.attempt == 1:
        dig(900)
    return {"attempt": ctx.attempt}


def dig(depth):
    if not depth:
        raise ValueError("deep")
    dig(depth - 1)


def return_a_coroutine(ctx):
    async def helper():
        """Do nothing."""

    return helper()
