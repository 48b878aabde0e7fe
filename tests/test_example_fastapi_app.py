"""`examples/fastapi_app/`, from outside: reports, streams, clients that leave, overload, and every way to stop it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner
from portal_cases import list_threads
from web_cases import PATIENCE, ROOT, Served, open_client, read_events, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = "fastapi_app/main.py"
ENDLESS = {"cities": ["Oslo"], "delay": 60}


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("fastapi_app_under_test", ROOT / "examples" / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI looks annotations up there
    spec.loader.exec_module(module)
    return module


example = load_example()


@pytest.fixture(scope="module", params=["thread", "guest"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One server for all tests that leave it as it was, in each mode of the portal."""
    arguments = ["--guest"] if request.param == "guest" else []
    with serving(SCRIPT, "--quiet", *arguments) as served:
        yield served
        code, out, err = served.end(signal.SIGINT)
        assert (code, out, err) == (0, "stopped\n", "")


# Reports


def test_a_report_has_what_was_answered_and_names_what_was_not(served: Served) -> None:
    order = {"cities": ["Oslo", "Rome", "Atlantis", "Cairo"], "delay": 0}
    answer = served.client.post("/reports", json=order)
    assert answer.status_code == 200
    report = answer.json()
    assert report.pop("run_id")
    assert report == {
        "ended": "completed",
        "ranking": [
            {"city": "Cairo", "celsius": 22},
            {"city": "Rome", "celsius": 16},
            {"city": "Oslo", "celsius": 6},
        ],
        "outlook": "mild",
        "missing": {"Atlantis": "LookupError: there is no station in Atlantis"},
    }


def test_a_report_of_nothing_is_a_report(served: Served) -> None:
    report = served.client.post("/reports", json={"cities": ["Atlantis"], "delay": 0}).json()
    assert (report["ranking"], report["outlook"]) == ([], "unknown")


def test_a_stream_tells_all_stages_and_ends_with_the_report(served: Served) -> None:
    query = {"cities": ["Oslo", "Quito", "Atlantis"], "delay": 0}
    with served.client.stream("GET", "/reports/events", params=query) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = list(read_events(answer.iter_lines()))
    kinds = [kind for kind, _ in events]
    assert kinds[-2:] == ["RunEnded", "result"]
    ended = {data["stage"]: data["state"] for kind, data in events if kind == "StageEnded"}
    assert ended == {"ask Oslo": "ok", "ask Quito": "ok", "ask Atlantis": "failed", "rank": "ok", "outlook": "ok"}
    assert [data["stage"] for kind, data in events if kind == "StageRestarting"] == ["ask Quito"]
    emitted = [data["emitted"] for kind, data in events if kind == "StageEmitted"]
    assert sorted(each["city"] for each in emitted) == ["Oslo", "Quito"]
    report = events[-1][1]
    assert [reading["city"] for reading in report["ranking"]] == ["Quito", "Oslo"]
    assert list(report["missing"]) == ["Atlantis"]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({}, "Field required"),
        ({"cities": []}, "List should have at least 1 item"),
        ({"cities": ["Oslo", "Oslo"]}, "each city is to be named once"),
        ({"cities": ["Oslo; Rome"]}, "String should match pattern"),
        ({"cities": ["Oslo"], "delay": -1}, "greater than or equal to 0"),
    ],
)
def test_a_bad_order_is_refused_before_anything_runs(served: Served, order: dict[str, Any], told: str) -> None:
    answer = served.client.post("/reports", json=order)
    assert answer.status_code == 422
    assert told in answer.text
    assert served.client.get("/reports/events", params=order).status_code == 422


def test_the_page_listens_to_the_events_that_there_are(served: Served) -> None:
    page = served.client.get("/").text
    assert "new EventSource(`/reports/events?" in page
    listened = set(re.findall(r'on\("(\w+)"', page))
    assert listened == {"StageStarted", "StageRestarting", "StageEmitted", "StageEnded", "result"}


# Clients that leave


def test_a_client_that_leaves_a_stream_ends_its_run(served: Served) -> None:
    # With the first stream of a process sse-starlette starts a task that waits for the end of the process.
    served.client.get("/reports/events", params={"cities": ["Oslo"], "delay": 0})
    before = served.wait_for(lambda status: status["runs"] == 0)
    with served.client.stream("GET", "/reports/events", params=ENDLESS) as answer:
        reader = read_events(answer.iter_lines())  # dropping it closes the stream
        assert next(reader)[0] == "StageStarted"
        assert served.client.get("/status").json()["runs"] == 1
    served.wait_for(lambda status: status["runs"] == 0)
    # What has told that it has ended may still be about to: its task is counted a moment longer.
    names = ("asyncio_tasks", "trio_tasks")
    served.wait_for(lambda status: all(status[name] <= before[name] for name in names))


def test_a_client_that_leaves_while_it_waits_for_json_ends_its_run(served: Served) -> None:
    with open_client(served.address) as other, pytest.raises(httpx.ReadTimeout):
        other.post("/reports", json=ENDLESS, timeout=httpx.Timeout(PATIENCE, read=0.3))
    served.wait_for(lambda status: status["runs"] == 0)


def test_a_client_that_leaves_in_the_middle_of_a_send_ends_its_run() -> None:
    """The server waits for it to take what was sent, and then it is gone: nothing but the application is asked."""

    async def main() -> None:
        gone, sending = asyncio.Event(), asyncio.Event()
        received = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            for message in received:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sending.set()
                await asyncio.Event().wait()

        app = example.create_app()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "GET",
            "path": "/reports/events",
            "query_string": b"cities=Oslo&delay=60",
            "headers": [],
        }
        async with app.router.lifespan_context(app):
            request = asyncio.create_task(app(scope, receive, send))
            await sending.wait()
            portal = app.state.service.portal
            assert (await portal.statistics()).runs == 1
            gone.set()
            await request
            assert (await portal.statistics()).runs == 0
            assert app.state.service.streams == set()

    before = list_threads()
    asyncio.run(main())  # which also ends the task in which sse-starlette waits for the end of the process
    assert list_threads() - before == set()


# Overload


def test_who_there_is_no_place_for_is_told_when_to_come_back() -> None:
    with serving(SCRIPT, "--quiet", "--max-runs", "1", "--max-queued", "0") as served:
        with served.client.stream("GET", "/reports/events", params=ENDLESS) as answer:
            reader = read_events(answer.iter_lines())
            assert next(reader)[0] == "StageStarted"
            order = {"cities": ["Oslo"], "delay": 0}
            for refused in (
                served.client.post("/reports", json=order),
                served.client.get("/reports/events", params=order),
            ):
                assert refused.status_code == 503
                assert refused.headers["Retry-After"] == "1"
                assert refused.json() == {"detail": "too many reports are being made"}
        served.wait_for(lambda status: status["runs"] == 0)
        assert served.client.post("/reports", json=order).status_code == 200


# The id of a request


def test_the_id_of_a_request_is_in_the_log_lines_of_its_stages() -> None:
    with serving(SCRIPT) as served:
        order = {"cities": ["Oslo", "Cairo"], "delay": 0}
        named = served.client.post("/reports", json=order, headers={"X-Request-ID": "mine42"})
        assert named.headers["X-Request-ID"] == "mine42"
        other = served.client.post("/reports", json=order, headers={"X-Request-ID": "no good\u00e9".encode()})
        made = other.headers["X-Request-ID"]
        assert re.fullmatch("[0-9a-f]{8}", made)
        _, _, err = served.end(signal.SIGINT)
    for name in ("mine42", made):
        asked = re.findall(rf"^INFO \[{name}\] asking (\w+), attempt (\d)$", err, re.MULTILINE)
        assert sorted(asked) == [("Cairo", "1"), ("Cairo", "2"), ("Oslo", "1")]


# Stopping


@pytest.mark.parametrize("mode", [(), ("--guest",)])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_stopping_ends_streams_with_what_has_come_of_them(number: int, code: int, mode: tuple[str, ...]) -> None:
    with serving(SCRIPT, "--quiet", *mode) as served, open_client(served.address) as other:
        query = {"cities": ["Oslo", "Atlantis"], "delay": 60}
        with (
            served.client.stream("GET", "/reports/events", params=query) as one,
            other.stream("GET", "/reports/events", params=query) as two,
        ):
            readers = [read_events(answer.iter_lines()) for answer in (one, two)]
            for reader in readers:
                assert next(reader)[0] == "StageStarted"
            served.process.send_signal(number)
            for reader in readers:
                kind, data = list(reader)[-1]
                assert kind == "result"
                assert data["ended"] == "cancelled: the server is stopping"
        out, err = served.process.communicate(timeout=PATIENCE)
        assert served.process.returncode == code
        assert out == ("stopped\n" if number == signal.SIGINT else "")
        assert err == ""


def test_a_server_that_is_killed_leaves_nothing() -> None:
    with serving(SCRIPT, "--quiet") as served:
        with (
            pytest.raises(httpx.RemoteProtocolError),
            served.client.stream("GET", "/reports/events", params=ENDLESS) as answer,
        ):
            for _ in read_events(answer.iter_lines()):
                served.process.kill()
        served.process.wait(PATIENCE)
        with serving(SCRIPT, "--quiet", "--port", str(httpx.URL(served.address).port)) as again:
            assert again.address == served.address
            assert again.end(signal.SIGINT)[0] == 0


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, str(ROOT / "examples" / SCRIPT), "--port", str(taken.getsockname()[1])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)
    assert done.returncode == 3
    assert "address already in use" in done.stderr.lower()


def test_uvicorn_itself_may_serve_it() -> None:
    command = [sys.executable, "-m", "uvicorn", "--app-dir", "examples/fastapi_app", "--port", "0", "main:app"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"running on (http://127\.0\.0\.1:\d+)", line)
            if found:
                break
        with open_client(found[1]) as client:
            assert client.post("/reports", json={"cities": ["Rome"], "delay": 0}).json()["outlook"] == "mild"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def test_the_script_explains_itself() -> None:
    shown = CliRunner().invoke(example.main, ["--help"])
    assert shown.exit_code == 0
    assert "--max-queued INTEGER" in shown.output


BROKEN = """
import sys

sys.path.insert(0, {folder!r})
import main


async def forget(self, ctx):
    raise MemoryError("the model is gone")


main.Forecaster.execute = forget
main.main()
"""


def test_a_supervisor_that_gives_up_ends_the_server(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(folder=str(ROOT / "examples" / "fastapi_app")), encoding="utf-8")
    with serving(str(script), "--quiet") as served:
        for _ in range(3):
            report = served.client.post("/reports", json={"cities": ["Oslo"], "delay": 0}).json()
            assert (report["outlook"], report["ranking"]) == (None, [{"city": "Oslo", "celsius": 6}])
        with contextlib.suppress(httpx.HTTPError):  # over which it may answer, or end first
            served.client.post("/reports", json={"cities": ["Oslo"], "delay": 0})
        out, err = served.process.communicate(timeout=PATIENCE)
    assert served.process.returncode == 1
    assert out == ""
    assert "RestartIntensityError: the supervisor has had 3 restarts within 5 s" in err
    assert err.endswith("Error: the supervisor gave up, see above\n")
