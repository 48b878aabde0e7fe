"""`examples/trio_app/`, from outside: counts, streams, clients that leave, overload, and every way to stop it."""

from __future__ import annotations

import importlib.util
import signal
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from web_cases import PATIENCE, ROOT, Served, open_client, read_events, serving

SCRIPT = "trio_app/main.py"
TEXT = "the whale and the sea " * 500
COUNTS = {"words": 2500, "different": 4, "most_common": {"the": 1000, "whale": 500, "and": 500, "sea": 500}}
SLOW = ("--threads", "1", "--delay", "0.2")
"""So that a text takes a second, and can be left."""


def start_stream(served: Served, client: httpx.Client | None = None) -> Any:
    return (client or served.client).stream("POST", "/counts/events", content=TEXT)


def test_a_text_is_counted() -> None:
    with serving(SCRIPT) as served:
        answer = served.client.post("/counts", content=TEXT)
        assert answer.status_code == 200
        assert answer.json()["counts"] == COUNTS
        assert answer.json()["ended"] == "completed"
        assert served.client.post("/counts", content="").json()["counts"]["words"] == 0
        with start_stream(served) as answer:
            events = list(read_events(answer.iter_lines()))
        assert sorted(data["emitted"]["piece"] for kind, data in events if kind == "StageEmitted") == [0, 1, 2, 3, 4]
        assert [kind for kind, _ in events][-2:] == ["RunEnded", "result"]
        assert events[-1][1]["counts"] == COUNTS
        assert served.end(signal.SIGINT)[:2] == (0, "stopped\n")


def test_a_text_that_is_too_long_is_refused() -> None:
    def send_unknown_length() -> Any:
        yield b"whale"

    with serving(SCRIPT) as served:
        for content in (b"x" * 2_000_001, send_unknown_length()):
            answer = served.client.post("/counts", content=content)
            assert answer.status_code == 413
            assert answer.text == "send at most 2,000,000 bytes, and say how many"


def test_a_client_that_leaves_ends_its_run() -> None:
    with serving(SCRIPT, "--threads", "1", "--delay", "60") as served:
        before = served.wait_for(lambda status: status["runs"] == 0)
        with start_stream(served) as answer:
            assert next(read_events(answer.iter_lines()))[0] == "StageStarted"
            assert served.client.get("/status").json()["runs"] == 1
        # The thread cannot be interrupted; the run is done with it when its shutdown budget is spent.
        served.wait_for(lambda status: status["runs"] == 0)
        with open_client(served.address) as other, pytest.raises(httpx.ReadTimeout):
            other.post("/counts", content=TEXT, timeout=httpx.Timeout(PATIENCE, read=0.3))
        served.wait_for(lambda status: status["runs"] == 0)
        served.wait_for(lambda status: status["trio_tasks"] <= before["trio_tasks"])


def test_who_there_is_no_place_for_is_told_when_to_come_back() -> None:
    with serving(SCRIPT, *SLOW, "--max-runs", "1") as served:
        with ExitStack() as stack:
            for _ in range(3):  # one that is counted, and two that are queued
                stack.enter_context(start_stream(served, stack.enter_context(open_client(served.address))))
            for path in ("/counts", "/counts/events"):
                refused = served.client.post(path, content=TEXT)
                assert refused.status_code == 503
                assert refused.headers["Retry-After"] == "1"
                assert refused.json() == {"detail": "too many texts are being counted"}
        served.wait_for(lambda status: status["runs"] == 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_ends_streams_with_what_has_come_of_them(number: int) -> None:
    with serving(SCRIPT, *SLOW) as served:
        with start_stream(served) as answer:
            reader = read_events(answer.iter_lines())
            assert next(reader)[0] == "StageStarted"
            served.process.send_signal(number)
            kind, data = list(reader)[-1]
            assert kind == "result"
            assert data["ended"] == "cancelled: the server is stopping"
        out, err = served.process.communicate(timeout=PATIENCE)
        assert served.process.returncode == 0
        assert out == "stopped\n"
        assert "ERROR" not in err


def test_a_server_that_is_killed_leaves_nothing() -> None:
    with serving(SCRIPT, *SLOW) as served:
        with pytest.raises(httpx.RemoteProtocolError), start_stream(served) as answer:
            for _ in read_events(answer.iter_lines()):
                served.process.kill()
        served.process.wait(PATIENCE)
        with serving(SCRIPT, "--port", str(httpx.URL(served.address).port)) as again:
            assert again.address == served.address
            assert again.end(signal.SIGINT)[0] == 0


def test_the_script_explains_itself() -> None:
    spec = importlib.util.spec_from_file_location("trio_app_under_test", ROOT / "examples" / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = CliRunner().invoke(module.main, ["--help"])
    assert shown.exit_code == 0
    assert "--threads INTEGER" in shown.output
