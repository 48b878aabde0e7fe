"""Weather reports over HTTP, and the stages of each as they go: a whole FastAPI application around a supervisor.

    python examples/fastapi_app/main.py --port 8000     # then open http://127.0.0.1:8000, and press the button
    curl -d '{"cities": ["Oslo", "Rome"]}' -H 'Content-Type: application/json' http://127.0.0.1:8000/reports
    curl -N 'http://127.0.0.1:8000/reports/events?cities=Oslo&cities=Rome'
    uvicorn --app-dir examples/fastapi_app --timeout-graceful-shutdown 5 main:app

A report asks a station a city, all at once; stations fail now and then, and are asked again. What does not answer is
missing in the report, and named. A client that goes away ends its run, whether it waits for JSON or for events.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar, cast
from uuid import uuid4

import attrs
import click
import trio
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field, field_validator
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.datastructures import MutableHeaders

from stageflow_actors import (
    Backoff,
    OverloadedError,
    Pipeline,
    Restart,
    RunResult,
    StageContext,
    StageKind,
    Trigger,
    parallel_stages,
)
from stageflow_actors.embed.asyncio import FollowedRun, PortalActor, SupervisorPortal
from stageflow_actors.errors import RestartIntensityError, SupervisorClosedError
from stageflow_actors.events import Event, RunEnded, RunStopping, StageEmitted, StageEnded, StageRestarting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

RETRY_AFTER: Final = 1
"""Seconds after which a client that was turned away may come back."""
PATIENCE: Final = 10.0
"""Seconds after which a report is given out as far as it has come."""
GRACE: Final = 2.0
"""Seconds for which streams may still go on while the server stops."""
GONE: Final = 499
"""The status, seen in no answer, of a request whose client has gone away."""

logger = logging.getLogger("reports")
request_id: ContextVar[str] = ContextVar("request_id", default="-")


# The pipeline

CLIMATE: Final = {"Athens": 19, "Bergen": 8, "Cairo": 22, "Delhi": 25, "Lima": 19, "Oslo": 6, "Quito": 14, "Rome": 16}
"""What stations know: degrees Celsius. Any other city has none."""
BAD_LINES: Final = {"Cairo", "Quito"}
"""Whose lines drop the first call."""


class Station:
    """Asks the station of one city, over a line that may drop the call."""

    kind = StageKind.WORK

    async def execute(self, ctx: StageContext) -> dict[str, Any]:
        city = ctx.config["key"]
        logger.info("asking %s, attempt %d", city, ctx.attempt)  # with the id of the request: see `StampRecords`
        await trio.sleep(ctx.snapshot.data["delay"])
        if city in BAD_LINES and ctx.attempt == 1:
            raise ConnectionError(f"the line to {city} dropped")
        if city not in CLIMATE:
            raise LookupError(f"there is no station in {city}")
        ctx.emit({"city": city, "celsius": CLIMATE[city]})
        return {"city": city, "celsius": CLIMATE[city]}


async def rank(ctx: StageContext) -> dict[str, Any]:
    """Put what was answered in order; what was not is missing."""
    readings = [output.data for output in ctx.inputs.outputs.values()]
    return {"ranking": sorted(readings, key=lambda reading: (-reading["celsius"], reading["city"]))}


class Forecaster:
    """Says how it will be. Resident: what it knows is read once, not for each report."""

    async def __aenter__(self) -> Self:
        await trio.sleep(0.01)  # reads a model that takes a while
        self.words = ((18, "warm"), (10, "mild"), (-50, "cold"))
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def execute(self, ctx: StageContext) -> dict[str, Any]:
        ranking = ctx.inputs.require_from("rank", "ranking")
        if not ranking:
            return {"outlook": "unknown"}
        mean = sum(reading["celsius"] for reading in ranking) / len(ranking)
        return {"outlook": next(word for least, word in self.words if mean >= least)}


def build_report(cities: list[str], forecaster: PortalActor) -> Pipeline:
    """Build the pipeline of a report: a stage a city, whatever else fails; their order; the outlook."""
    again = Restart(max_restarts=2, backoff=Backoff(initial=0.02, maximum=0.1), on=ConnectionError)
    stations = parallel_stages("ask {key}", Station, cities, restart=again, timeout=PATIENCE)
    return (
        Pipeline("report")
        .with_stages(stations)
        .with_stage("rank", rank, StageKind.TRANSFORM, stations, trigger=Trigger.ALL_DONE)
        .with_stage("outlook", forecaster.ref, dependencies="rank")
    )


async def count_tasks(_ctx: StageContext) -> dict[str, int]:
    """Count the tasks on the trio loop; the asyncio loop counts its own."""
    return {"tasks": trio.lowlevel.current_statistics().tasks_living}


# What is asked and answered


class Order(BaseModel):
    """Which report is wanted."""

    cities: list[Annotated[str, Field(pattern=r"^[A-Za-z]{1,40}$")]] = Field(min_length=1, max_length=50)
    delay: float = Field(default=0.1, ge=0, le=60, description="Seconds that a station takes to answer.")

    @field_validator("cities")
    @classmethod
    def refuse_twice(cls, cities: list[str]) -> list[str]:
        """Refuse a city that is named twice."""
        if len(set(cities)) < len(cities):
            raise ValueError("each city is to be named once")
        return cities


class Reading(BaseModel):
    """What a station has answered."""

    city: str
    celsius: int


class Report(BaseModel):
    """A report, whole or in part."""

    run_id: str
    ended: str
    ranking: list[Reading]
    outlook: str | None
    missing: dict[str, str]
    """Why a city is not in the ranking."""

    @classmethod
    def read(cls, result: RunResult) -> Report:
        """Read the result of a run."""
        bad = {name for name, state in result.states.items() if state not in {"ok", "skipped"}}
        return cls(
            run_id=result.run_id,
            ended=str(result.ended),
            ranking=list(result.data("rank")["ranking"]) if "rank" in result else [],
            outlook=result.data("outlook")["outlook"] if "outlook" in result else None,
            missing={name.removeprefix("ask "): result.reason(name) for name in sorted(bad) if name.startswith("ask ")},
        )


class Status(BaseModel):
    """What goes on."""

    runs: int
    asyncio_tasks: int
    trio_tasks: int
    threads: int


def describe(event: Event) -> dict[str, Any]:
    """Return what the page shows of an event."""
    shown: dict[str, Any] = {"at": round(event.at, 3), "stage": getattr(event, "stage", None)}
    match event:
        case StageEnded(state=state, reason=reason):
            shown |= {"state": state.value, "reason": reason}
        case StageRestarting(attempt=attempt):
            shown |= {"attempt": attempt}
        case StageEmitted(event=emitted):
            shown |= {"emitted": dict(emitted)}
        case RunStopping(end=end) | RunEnded(end=end):
            shown |= {"ended": str(end)}
    return shown


# The application


@attrs.frozen
class Service:
    """What the requests share."""

    portal: SupervisorPortal
    forecaster: PortalActor
    counter: PortalActor
    streams: set[FollowedRun] = attrs.field(factory=set)

    def end_streams(self) -> None:
        """End the runs that clients follow; their streams end with what has come of them."""
        for run in self.streams:
            run.cancel("the server is stopping")


async def find_service(request: Request) -> Service:
    """Return what the lifespan has made. Async, because FastAPI would call a plain function in a thread."""
    return cast("Service", request.app.state.service)


ServiceOf = Annotated[Service, Depends(find_service)]


async def follow_report(order: Annotated[Order, Query()], service: ServiceOf) -> AsyncIterator[FollowedRun]:
    """Run a report for as long as its request: as a dependency, which FastAPI leaves whichever way the request ends."""
    pipeline = build_report(order.cities, service.forecaster)
    options: dict[str, Any] = {"continue_on_failure": True, "timeout": PATIENCE + order.delay}
    async with service.portal.follow(pipeline, {"delay": order.delay}, **options) as run:
        service.streams.add(run)
        try:
            yield run
        finally:
            service.streams.remove(run)


async def tell(run: FollowedRun) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a run, and then what came of it."""
    async for event in run.events():
        yield ServerSentEvent(json.dumps(describe(event)), event=type(event).__name__)
    yield ServerSentEvent(Report.read(await run.result()).model_dump_json(), event="result")


async def await_unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await work, and cancel it when the client goes away: nobody would read the answer."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.create_task(work), asyncio.create_task(watch())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(GONE)
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})


def create_app(*, max_runs: int = 20, max_queued: int = 40, guest: bool = False) -> FastAPI:
    """Make the application.

    Args:
        max_runs: How many reports are made at once.
        max_queued: How many may wait; one more is turned away.
        guest: Whether trio runs in the thread of the asyncio loop.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        options: dict[str, Any] = {"max_runs": max_runs, "max_queued": max_queued, "overflow": "reject"}
        try:
            async with SupervisorPortal(guest=guest, shutdown=2.0, **options) as portal:
                forecaster = await portal.spawn(Forecaster, name="forecaster")
                counter = await portal.spawn(count_tasks, name="counter")
                app.state.service = Service(portal, forecaster, counter)
                yield
        except RestartIntensityError:
            # uvicorn would go on without a lifespan, and every request be answered with 503.
            app.state.give_up()
            raise

    app = FastAPI(title="Weather reports", lifespan=lifespan)
    app.state.give_up = lambda: None
    app.add_middleware(NameRequests)

    @app.exception_handler(OverloadedError)
    @app.exception_handler(SupervisorClosedError)
    async def turn_away(_request: Request, error: Exception) -> JSONResponse:
        detail = "too many reports are being made" if isinstance(error, OverloadedError) else "the server is stopping"
        return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": str(RETRY_AFTER)})

    @app.post("/reports")
    async def make_report(order: Order, request: Request, service: ServiceOf) -> Report:
        pipeline = build_report(order.cities, service.forecaster)
        options: dict[str, Any] = {"continue_on_failure": True, "timeout": PATIENCE + order.delay}
        run = service.portal.run(pipeline, {"delay": order.delay}, **options)
        return Report.read(await await_unless_gone(request, run))

    @app.get("/reports/events", response_class=EventSourceResponse)
    async def stream_report(run: Annotated[FollowedRun, Depends(follow_report)]) -> EventSourceResponse:
        # While the server stops, streams may end by themselves before they are cut off.
        return EventSourceResponse(tell(run), sep="\n", shutdown_grace_period=GRACE)

    @app.get("/status")
    async def show_status(service: ServiceOf) -> Status:
        statistics = await service.portal.statistics()
        counted = await service.counter.ask()
        return Status(
            runs=statistics.runs,
            asyncio_tasks=len(asyncio.all_tasks()),
            trio_tasks=counted.data["tasks"],
            threads=threading.active_count(),
        )

    @app.get("/", include_in_schema=False)
    async def show_page() -> FileResponse:
        return FileResponse(Path(__file__).with_name("index.html"))

    return app


class NameRequests:
    """Gives each request an id: its own `X-Request-ID` or a new one. The stages that it runs log it too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        name = given if given.isalnum() and len(given) <= 40 else uuid4().hex[:8]
        request_id.set(name)

        async def name_answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        await self.app(scope, receive, name_answer)


app = create_app()


# Serving it


class StampRecords(logging.Filter):
    """Puts the request's id into the records of its stages: they run in the context of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class Server(uvicorn.Server):
    """Says where it serves, and ends the streams before it waits for the connections, which they would keep open."""

    gave_up = False

    def give_up(self) -> None:
        """Stop serving, because there is no supervisor any more."""
        self.gave_up = self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        click.echo(f"serving at http://127.0.0.1:{port}; Ctrl-C stops")

    async def shutdown(self, sockets: Any = None) -> None:
        cast("FastAPI", self.config.app).state.service.end_streams()
        await super().shutdown(sockets)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="On 127.0.0.1; 0 for any.")
@click.option("--max-runs", type=click.IntRange(min=1), default=20, show_default=True, help="Reports made at once.")
@click.option("--max-queued", type=click.IntRange(min=0), default=40, show_default=True, help="Reports that may wait.")
@click.option("--guest", is_flag=True, help="Run trio in the thread of the asyncio loop.")
@click.option("--quiet", is_flag=True, help="Log only what goes wrong.")
def main(*, port: int, max_runs: int, max_queued: int, guest: bool, quiet: bool) -> None:
    """Serve weather reports until Ctrl-C."""
    handler = logging.StreamHandler()
    handler.addFilter(StampRecords())
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(format="%(levelname)s [%(request_id)s] %(message)s", level=level, handlers=[handler])
    # A station that is asked again is no news here, and one that does not answer is in the report.
    logging.getLogger("stageflow_actors").setLevel(logging.CRITICAL)
    served = create_app(max_runs=max_runs, max_queued=max_queued, guest=guest)
    # Logging stays as it is; clients that do not read are cut off within the graceful timeout.
    options: dict[str, Any] = {"log_config": None, "access_log": not quiet, "timeout_graceful_shutdown": int(GRACE) + 1}
    server = Server(uvicorn.Config(served, host="127.0.0.1", port=port, **options))
    served.state.give_up = server.give_up
    try:
        server.run()
    except KeyboardInterrupt:  # uvicorn raises it again once it has stopped
        click.echo("stopped")
    if server.gave_up:
        raise click.ClickException("the supervisor gave up, see above")


if __name__ == "__main__":
    main()
