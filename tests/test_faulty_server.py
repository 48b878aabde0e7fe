"""The faulty server of the examples: every fault as a client meets it, what it counts, and that it survives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from faulty_web.client import BusyError, StatusError, fetch, name_cause, open_client
from faulty_web.faults import Course, Fault, Faults
from faulty_web.server import Budget, FaultyServer, Page

BODY = b'{"answer": 42}'
BAD = tuple(fault for fault in Fault if fault is not Fault.SLOW)


def find(path: str) -> Page | None:
    return None if path == "/nowhere" else Page(BODY)


def make_faults(courses: dict[str, Course] | None = None, **options: Any) -> Faults:
    """Return faults that take next to no time."""
    times: dict[str, Any] = {"latency": (0.0, 0.0), "slow": 0.0, "retry_after": (0.001, 0.002)}
    return Faults(**{"faulty": 0.0, "dead": 0.0, **times, **options}, courses=courses or {})


async def start(nursery: trio.Nursery, server: FaultyServer) -> httpx.AsyncClient:
    address: str = await nursery.start(server.serve)
    return open_client(address)


async def wait_until(condition: Any) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


# What a client meets


async def test_a_good_answer(nursery: trio.Nursery) -> None:
    async with await start(nursery, FaultyServer(find, make_faults())) as client:
        answer = await fetch(client, "/page")
        assert answer.json() == {"answer": 42}
        assert answer.headers["content-type"] == "application/json"


async def test_a_slow_answer_is_a_good_one(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults({"/page": Course((Fault.SLOW,))}))
    async with await start(nursery, server) as client:
        assert (await fetch(client, "/page")).content == BODY
    assert server.statistics().faults == {Fault.SLOW: 1}


@pytest.mark.parametrize(
    ("fault", "error", "cause"),
    [
        (Fault.RESET, httpx.ReadError, "reset"),
        (Fault.GARBAGE, httpx.RemoteProtocolError, "no HTTP"),
        (Fault.TRUNCATED, httpx.RemoteProtocolError, "truncated"),
        (Fault.ERROR, StatusError, "500"),
        (Fault.BUSY, BusyError, "429"),
    ],
)
async def test_a_fault_and_then_a_good_answer(
    fault: Fault, error: type[Exception], cause: str, nursery: trio.Nursery
) -> None:
    server = FaultyServer(find, make_faults({"/page": Course((fault,))}))
    async with await start(nursery, server) as client:
        with pytest.raises(error) as caught:
            await fetch(client, "/page")
        assert name_cause(caught.value) == cause
        assert (await fetch(client, "/page")).content == BODY
    assert server.statistics().faults == {fault: 1}
    assert server.statistics().asked == {"/page": 2}


async def test_a_hang_lasts_until_the_client_goes_away(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults({"/page": Course((Fault.HANG,))}))
    async with await start(nursery, server) as client:
        async with trio.open_nursery() as asking:
            asking.start_soon(fetch, client, "/page")
            await wait_until(lambda: server.statistics().current == 1)
            asking.cancel_scope.cancel()
        await wait_until(lambda: server.statistics().current == 0)
        assert (await fetch(client, "/page")).content == BODY


async def test_a_page_that_is_not_there(nursery: trio.Nursery) -> None:
    async with await start(nursery, FaultyServer(find, make_faults())) as client:
        with pytest.raises(StatusError) as caught:
            await fetch(client, "/nowhere")
        assert name_cause(caught.value) == "404"


async def test_what_goes_wrong_goes_wrong_for_a_page_that_is_not_there_too(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults({"/nowhere": Course((Fault.GARBAGE,))}))
    async with await start(nursery, server) as client:
        for cause in ("no HTTP", "404"):
            with pytest.raises((httpx.RemoteProtocolError, StatusError)) as caught:
                await fetch(client, "/nowhere")
            assert name_cause(caught.value) == cause


async def test_a_busy_server_says_for_how_long(nursery: trio.Nursery) -> None:
    faults = make_faults({"/page": Course((Fault.BUSY,))}, retry_after=(0.25, 0.25))
    async with await start(nursery, FaultyServer(find, faults)) as client:
        with pytest.raises(BusyError, match=r"^429 for /page, which asks for 0\.250 s$") as caught:
            await fetch(client, "/page")
        assert caught.value.after == 0.25


# The budget


async def test_requests_over_the_budget_are_refused_and_leave_the_faults_as_they_were(nursery: trio.Nursery) -> None:
    faults = make_faults({"/page": Course((Fault.ERROR, Fault.ERROR))})
    server = FaultyServer(find, faults, Budget(requests=2, window=3600.0))
    async with await start(nursery, server) as client:
        assert (await fetch(client, "/other")).content == BODY
        with pytest.raises(StatusError):
            await fetch(client, "/page")
        for _ in range(3):
            with pytest.raises(BusyError) as caught:
                await fetch(client, "/page")
            assert 0 < caught.value.after <= 3600.0
    statistics = server.statistics()
    assert statistics.refused == 3
    assert statistics.requests == 5
    assert statistics.asked == {"/other": 1, "/page": 1}
    assert statistics.faults == {Fault.ERROR: 1}


async def test_the_next_window_has_a_budget_of_its_own(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults(), Budget(requests=1, window=0.02))
    async with await start(nursery, server) as client:
        answered = 0
        while answered < 3:
            answered += (await client.get("/page")).is_success
    assert server.statistics().asked == {"/page": 3}


# What it counts


async def test_it_counts_the_requests_that_are_being_answered(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults({"/page": Course((Fault.HANG,), heals=False)}))
    async with await start(nursery, server) as client:
        async with trio.open_nursery() as asking:
            for _ in range(5):
                asking.start_soon(fetch, client, "/page")
            await wait_until(lambda: server.statistics().current == 5)
            asking.cancel_scope.cancel()
        await wait_until(lambda: server.statistics().current == 0)
        await fetch(client, "/other")
    assert server.statistics().max_current == 5
    assert server.statistics().requests == 6


async def test_a_request_that_is_answered_counts_no_more_when_its_answer_arrives(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults())
    async with await start(nursery, server) as client:
        for _ in range(50):
            await fetch(client, "/page")
            assert server.statistics().current == 0
    assert server.statistics().max_current == 1


# What clients do


async def connect(address: str) -> trio.SocketStream:
    url = httpx.URL(address)
    assert url.port is not None
    return await trio.open_tcp_stream(url.host, url.port)


async def test_what_is_no_http_ends_its_connection_and_no_other(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults())
    address: str = await nursery.start(server.serve)
    async with await connect(address) as stream:
        await stream.send_all(b"\x00\x01\x02 what is this\r\n\r\n")
        assert await stream.receive_some() == b""
    async with open_client(address) as client:
        assert (await fetch(client, "/page")).content == BODY


async def test_half_a_request_and_a_hang_up_are_survived(nursery: trio.Nursery) -> None:
    server = FaultyServer(find, make_faults())
    address: str = await nursery.start(server.serve)
    async with await connect(address) as stream:
        await stream.send_all(b"GET /page HTTP/1.1\r\nHos")
    async with open_client(address) as client:
        assert (await fetch(client, "/page")).content == BODY
    assert server.statistics().asked == {"/page": 1}


async def test_requests_sent_at_once_are_answered_in_order(nursery: trio.Nursery) -> None:
    server = FaultyServer(lambda path: Page(path.encode()), make_faults(latency=(0.005, 0.005)))
    address: str = await nursery.start(server.serve)
    async with await connect(address) as stream:
        for path in ("first", "second", "third"):
            await stream.send_all(f"GET /{path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            await wait_until(lambda: server.statistics().current == 1)
        received = b""
        while not received.endswith(b"/third"):
            received += await stream.receive_some()
    assert received.index(b"/first") < received.index(b"/second")
    assert server.statistics().max_current == 1


# The faults


def test_a_course_that_heals() -> None:
    course = Course((Fault.RESET, Fault.HANG))
    assert [course.fault(asked) for asked in range(1, 5)] == [Fault.RESET, Fault.HANG, None, None]


def test_a_course_that_never_heals() -> None:
    course = Course((Fault.RESET, Fault.HANG), heals=False)
    assert [course.fault(asked) for asked in range(1, 5)] == [Fault.RESET, Fault.HANG] * 2


def test_a_course_without_faults() -> None:
    assert Course(heals=False).fault(1) is None


def test_courses_follow_from_the_seed_and_the_path_alone() -> None:
    paths = [f"/page/{number}" for number in range(300)]
    drawn = {path: Faults(seed=3).course(path) for path in paths}
    assert {path: Faults(seed=3).course(path) for path in reversed(paths)} == drawn
    assert {path: Faults(seed=4).course(path) for path in paths} != drawn


def test_as_many_paths_are_faulty_and_dead_as_was_asked_for() -> None:
    faults = Faults(seed=1, faulty=0.3, dead=0.1, longest=3)
    courses = [faults.course(f"/page/{number}") for number in range(4000)]
    dead = [course for course in courses if not course.heals]
    faulty = [course for course in courses if course.faults and course.heals]
    assert len(dead) == pytest.approx(400, rel=0.2)
    assert len(faulty) == pytest.approx(1200, rel=0.1)
    assert {len(course.faults) for course in dead + faulty} == {1, 2, 3}
    assert {fault for course in faulty for fault in course.faults} == set(Fault)
    assert {fault for course in dead for fault in course.faults} == set(BAD)


def test_given_courses_take_precedence() -> None:
    given = Course((Fault.HANG,), heals=False)
    assert Faults(faulty=1.0, courses={"/page": given}).course("/page") is given


def test_times_are_drawn_between_their_limits() -> None:
    faults = Faults(seed=2, latency=(0.25, 0.5), retry_after=(2.0, 3.0))
    delays = [faults.delay("/page", asked) for asked in range(1, 50)]
    assert all(0.25 <= delay <= 0.5 for delay in delays)
    assert len(set(delays)) == len(delays)
    assert all(2.0 <= faults.wish("/page", asked) <= 3.0 for asked in range(1, 50))
