"""An order page put together from a dozen services that are having a bad day.

    python examples/flaky_services.py
    python examples/flaky_services.py --seed 7 --faulty 1

Calls time out, are reset, are answered with rubbish or with `429 Too Many Requests`; each heals by the
policy it was given. The recommendations never do: they and what needs them are missing from the page,
and nothing else is. The services are real, on a server that this script starts itself. Ctrl-C ends the
run and shows how far it came.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Any, Final

import click
import httpx
import trio
from faulty_web.client import BusyError, StatusError, fetch, name_cause, open_client
from faulty_web.faults import Course, Fault, Faults
from faulty_web.running import INTERRUPTED, cancel_at_interrupt, open_console
from faulty_web.server import FaultyServer, Page
from faulty_web.timeline import draw_timeline, list_failed_attempts
from rich.console import Console
from rich.text import Text

from stageflow_actors import (
    Backoff,
    Directive,
    EventStream,
    Intensity,
    Pipeline,
    Restart,
    RunEnding,
    RunResult,
    StageContext,
    StageOutput,
    StageTimeoutError,
    Supervisor,
    Trigger,
    parallel_stages,
)
from stageflow_actors.events import StageCrashed, StageEnded, StageRestarting

ITEMS: Final = ("book", "lamp", "mug", "hat")

SERVICES: Final[Mapping[str, Any]] = {
    "/login": {"token": "c0ffee"},
    "/user": {"name": "Ada", "country": "GB"},
    "/cart": {"items": {"book": 2, "lamp": 1, "mug": 4, "hat": 1}},
    # The hat is no longer sold: there is no price of it.
    "/price/book": {"cents": 1250},
    "/price/lamp": {"cents": 4900},
    "/price/mug": {"cents": 799},
    "/stock": {"missing": ["mug"]},
    "/shipping": {"cents": 450, "days": 3},
    "/discount": {"percent": 10},
    "/payment": {"methods": ["card", "invoice"]},
    "/recommendations": {"items": ["desk"]},
    "/reviews": {"stars": 5},
}

COURSES: Final = {
    "/payment": Course((Fault.BUSY, Fault.BUSY)),
    "/recommendations": Course((Fault.ERROR, Fault.RESET, Fault.GARBAGE), heals=False),
}
"""What goes wrong whatever the seed."""

BACKOFF: Final = Backoff(initial=0.05, factor=2.0, maximum=0.5)

HEAL: Final = Restart(max_restarts=4, backoff=BACKOFF)
"""Whatever happened, try again."""

HEAL_NETWORK: Final = Restart(max_restarts=4, backoff=BACKOFF, on=(httpx.TransportError, StageTimeoutError))
"""A server that answers, if only with an error, is taken at its word."""


def judge(error: Exception) -> Directive:
    """Try again whatever may heal: what does not exist will not exist in a second either."""
    missing = isinstance(error, StatusError) and error.status == httpx.codes.NOT_FOUND
    return Directive.FAIL if missing else Directive.RESTART


HEAL_UNLESS_MISSING: Final = Restart(max_restarts=4, backoff=BACKOFF, decide=judge)

GIVE_UP_SOON: Final = Restart(max_restarts=2, backoff=BACKOFF)
"""For what the page can do without."""

BAD_DAY: Final = Intensity(30, within=60)
"""More restarts than this, over all calls, and it is no use to go on: what fails then, fails."""


def pipeline(timeout: float) -> Pipeline:
    """Return the pipeline of the page.

    Args:
        timeout: Seconds that one attempt at one call may take.
    """
    prices = parallel_stages(
        "price-{key}",
        call,
        {item: {"path": f"/price/{item}"} for item in ITEMS},
        dependencies="cart",
        restart=HEAL_UNLESS_MISSING,
        timeout=timeout,
    )
    calls: tuple[tuple[str, tuple[str, ...], Restart], ...] = (
        ("login", (), HEAL),
        ("user", ("login",), HEAL),
        ("cart", ("user",), HEAL),
        ("stock", ("cart",), HEAL),
        ("shipping", ("user", "cart"), HEAL),
        ("discount", ("user",), HEAL_NETWORK),
        ("payment", ("user",), HEAL),
        ("recommendations", ("user",), GIVE_UP_SOON),
        ("reviews", ("recommendations",), GIVE_UP_SOON),
    )
    services = Pipeline("order-page")
    for name, needs, restart in calls:
        services = services.with_stage(name, call, dependencies=needs, restart=restart, timeout=timeout)
    parts = ("cart", *(price.name for price in prices), "shipping", "discount")
    shown = ("user", "total", "stock", "payment", "recommendations", "reviews")
    return (
        services.with_stages(prices)
        .with_stage("total", add_up, dependencies=parts, trigger=Trigger.ALL_DONE)
        .with_stage("render", render, dependencies=shown, trigger=Trigger.ALL_DONE)
    )


async def call(ctx: StageContext) -> StageOutput:
    """Call a service, once; what goes wrong is the policy's affair."""
    path = ctx.config.get("path", f"/{ctx.stage_name}")
    try:
        answer = await fetch(ctx.snapshot.data["client"], path)
    except BusyError as error:
        return StageOutput.retry(error, after=error.after)
    return StageOutput.ok(answer.json())


async def add_up(ctx: StageContext) -> dict[str, Any]:
    """Add up what has a price; the page says what has none."""
    amounts = ctx.inputs.get_from("cart", "items", {})
    prices = {item: ctx.inputs.get_from(f"price-{item}", "cents") for item in amounts}
    goods = sum(price * amounts[item] for item, price in prices.items() if price is not None)
    goods -= goods * ctx.inputs.get_from("discount", "percent", 0) // 100
    return {
        "cents": goods + ctx.inputs.get_from("shipping", "cents", 0),
        "without_price": [item for item, price in prices.items() if price is None],
    }


async def render(ctx: StageContext) -> dict[str, Any]:
    """Put together a page of whatever there is."""
    inputs = ctx.inputs
    total = inputs.output("total").data
    lines = [
        f"Order of {inputs.get_from('user', 'name', 'an unknown user')}",
        f"Total {total['cents'] / 100:.2f}, to be paid by {' or '.join(inputs.get_from('payment', 'methods', ['?']))}",
    ]
    lines += [f"No longer sold: {item}" for item in total["without_price"]]
    lines += [f"Out of stock: {item}" for item in inputs.get_from("stock", "missing", ())]
    absent = [name for name in inputs if name not in inputs.outputs]
    if absent:
        lines.append(f"Not on this page: {', '.join(absent)}")
    return {"lines": lines}


async def assemble(faults: Faults, timeout: float, console: Console) -> RunResult:
    """Start the services, run the pipeline against them, and return what came of it."""
    server = FaultyServer(find_service, faults)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(server.serve)
        async with open_client(address) as client, Supervisor(random=Random(faults.seed).random) as supervisor:
            run = supervisor.start(pipeline(timeout), {"client": client}, continue_on_failure=True, intensity=BAD_DAY)
            await nursery.start(cancel_at_interrupt, run)
            async with trio.open_nursery() as telling:
                telling.start_soon(narrate, run.events(), console)
                result = await run.result()
        nursery.cancel_scope.cancel()
    return result


def find_service(path: str) -> Page | None:
    """Return what a service has to say."""
    return Page(json.dumps(SERVICES[path]).encode()) if path in SERVICES else None


async def narrate(stream: EventStream, console: Console) -> None:
    """Print what goes wrong, when it does."""
    causes: dict[str, str] = {}
    async with stream as events:
        async for event in events:
            match event:
                case StageCrashed():
                    causes[event.stage] = f"attempt {event.attempt} died of {name_cause(event.error)}"
                    continue
                case StageRestarting():
                    told = f"{causes[event.stage]}, attempt {event.attempt} comes in {event.delay:.2f} s"
                case StageEnded(reason=reason) if reason:
                    told = f"{event.state.value}: {reason}"
                case _:
                    continue
            console.print(f"{event.at:6.2f} s  {event.stage}: {told}", soft_wrap=True)


def report(result: RunResult, console: Console) -> None:
    """Print the page, the timeline, and what went wrong."""
    console.print("\nAttempts over time", style="bold")
    console.print(draw_timeline(result, console.width))
    console.print("\nFailed attempts", style="bold")
    console.print(list_failed_attempts(result))
    console.print("\nThe page", style="bold")
    lines = result.data("render")["lines"] if "render" in result else [f"There is none: {result.reason('render')}"]
    console.print("\n".join(lines))
    console.print()
    console.print(Text(str(result)), soft_wrap=True)


@click.command()
@click.option("--seed", type=int, default=5, show_default=True, help="What goes wrong follows from it.")
@click.option(
    "--faulty",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="The share of services that fail at first.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=0.4,
    show_default=True,
    help="Seconds that an attempt at a call may take.",
)
def main(seed: int, faulty: float, timeout: float) -> None:
    """Put together an order page from a dozen services that are having a bad day."""
    console = open_console()
    console.print(f"seed {seed}; the same again: --seed {seed} --faulty {faulty:g} --timeout {timeout:g}")
    faults = Faults(seed=seed, faulty=faulty, dead=0, courses=COURSES, latency=(0.02, 0.12), slow=0.6)
    code = INTERRUPTED
    try:
        result = trio.run(partial(assemble, faults, timeout, console))
        report(result, console)
        code = INTERRUPTED if result.ended.ending is RunEnding.CANCELLED else 0
    except* KeyboardInterrupt:
        console.print("interrupted")
    sys.exit(code)


if __name__ == "__main__":
    main()
