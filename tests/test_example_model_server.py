"""`examples/model_server.py`: overload, crashes, reloads, slow clients, Ctrl-C; and each request ends in one way."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from click.testing import CliRunner
from rich.console import Console

from stageflow_actors import Intensity, Supervisor
from stageflow_actors.errors import RestartIntensityError

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import model_server
from model_server import Options, Service
from model_web import edge
from model_web.client import connect, post
from model_web.edge import Answer, Request
from model_web.report import draw_report
from model_web.traffic import Bill, Plan, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

EXAMPLES = Path(__file__).parents[1] / "examples"
FOREVER = 600.0
"""A timeout, in seconds, that no test runs into."""
ENGLISH = "all human beings are born free and equal"

read_once = cache(model_server.read_model)


class Counted:
    """The real model, which is read once for all tests, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def classify(self, text: str) -> Any:
        self.asked += 1
        return read_once().classify(text)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """The models that were read, in order."""
    read: list[Counted] = []

    def read_model() -> Counted:
        read.append(Counted())
        return read[-1]

    monkeypatch.setattr(model_server, "read_model", read_model)
    return read


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Service, str]]:
    given = {"timeout": FOREVER, **options}
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        service, address = await model_server.start(supervisor, Options(**given))
        nursery.start_soon(service.keep_letters, supervisor.dead_letters())
        yield service, address


async def send_all(service: Service, texts: list[str]) -> list[Answer]:
    """Send texts all at once; return the answers, in order."""
    answers: dict[int, Answer] = {}

    async def send(number: int, text: str) -> None:
        answers[number] = await service.answer(Request("POST", "/detect", text.encode()))

    async with trio.open_nursery() as nursery:
        for number, text in enumerate(texts):
            nursery.start_soon(send, number, text)
    return [answers[number] for number in range(len(texts))]


async def wait_until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 (nobody tells)
        await trio.sleep(0.001)


def ledger_of(service: Service) -> Any:
    return service.detector.statistics().ledger


# What becomes of a request


async def test_each_of_thousands_ends_in_the_one_way_that_its_text_says() -> None:
    texts = [sample.text for sample in islice(Plan(requests=1, crash_every=0, burst=1, seed=1).samples(), 3000)]
    for number in range(0, 3000, 100):
        texts[number] = f"!crash {texts[number]}"
    for number in range(50, 3000, 200):
        texts[number] = f"!poison {texts[number]}"
    async with serving(max_queued=3000) as (service, _):
        answers = await send_all(service, texts)
    assert [answer.status for answer in answers] == [500 if text.startswith("!poison") else 200 for text in texts]
    deliveries = [answer.data["deliveries"] for answer in answers if answer.status == 200]
    assert Counter(deliveries) == {1: 2955, 2: 30}
    ledger = ledger_of(service)
    assert (ledger.accepted, ledger.replied, ledger.poison) == (3000, 2985, 15)
    assert service.supervisor.ledger.balanced
    assert service.detector.statistics().restarts == 30 + 2 * 15


async def test_the_languages_are_found() -> None:
    plan = Plan(requests=300, crash_every=0, burst=1, seed=2)
    samples = list(islice(plan.samples(), 300))
    async with serving(max_queued=300) as (service, _):
        answers = await send_all(service, [sample.text for sample in samples])
    right = sum(answer.data["language"] == sample.language for answer, sample in zip(answers, samples, strict=True))
    assert right > 0.9 * 300


async def test_what_is_too_much_is_refused_at_once_and_told_what_to_do() -> None:
    async with serving(workers=2, max_queued=8) as (service, _):
        answers = await send_all(service, [f"!sleep 0.01 {ENGLISH}"] * 200)
    # Two were handed to workers and eight queued before any worker could be done.
    assert Counter(answer.status for answer in answers) == {200: 10, 503: 190}
    refused = answers[-1]
    assert refused.retry_after == 1
    assert refused.data == {"error": "8 requests are waiting already; try again in 1 s"}
    assert (ledger_of(service).accepted, ledger_of(service).rejected) == (10, 190)


async def test_a_crash_loses_no_request_that_is_queued() -> None:
    async with serving(workers=1) as (service, _):
        answers = await send_all(service, [f"!crash {ENGLISH}", *[ENGLISH] * 60])
        assert [answer.status for answer in answers] == [200] * 61
        assert [answer.data["deliveries"] for answer in answers] == [2] + [1] * 60
        assert service.detector.statistics().restarts == 1


async def test_a_poisonous_request_is_given_up_and_kept_to_look_at() -> None:
    async with serving() as (service, _):
        (answer,) = await send_all(service, ["!poison"])
        assert answer.status == 500
        assert answer.data == {"error": "the worker died over this text, twice; do not send it again"}
        await wait_until(lambda: bool(service.letters))
        stats = (await service.answer(Request("GET", "/stats", b""))).data
    assert stats["dead_letters"] == [{"reason": "poison", "text": "!poison"}]
    assert stats["tree"]["supervisors"]["detection"]["actors"]["detector"]["ledger"]["poison"] == 1


async def test_what_takes_too_long_is_given_up_and_its_reply_a_dead_letter() -> None:
    async with serving(timeout=0.1) as (service, _):
        (answer,) = await send_all(service, [f"!sleep 0.4 {ENGLISH}"])
        assert answer.status == 504
        assert answer.data == {"error": "there was no answer within 0.1 s; try a shorter text"}
        await wait_until(lambda: bool(service.letters))
        assert [letter.reason for letter in service.letters] == ["late_reply"]
    assert service.supervisor.ledger.balanced


# What becomes of the tree


async def test_a_reload_restarts_the_workers_with_the_model_and_loses_no_request(models: list[Counted]) -> None:
    answers: list[Answer] = []

    async def send(service: Service) -> None:
        answers.extend(await send_all(service, [f"!sleep 0.002 {ENGLISH}"] * 300))

    async with serving(workers=3, max_queued=300) as (service, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, service)
            await wait_until(lambda: ledger_of(service).replied > 10)
            reloaded = await service.answer(Request("POST", "/reload", b""))
        assert reloaded == Answer(200, {"restarts": 1})
        assert service.detector.statistics().restarts == 3
    assert [answer.status for answer in answers] == [200] * 300
    assert [answer.data["deliveries"] for answer in answers] == [1] * 300
    old, new = models
    assert old.asked > 10
    assert old.asked + new.asked == 300
    assert new.asked > 0


async def test_too_many_crashes_reopen_the_model_and_its_workers_and_lose_no_request(
    models: list[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server, "CRASHES", Intensity(3, within=FOREVER))
    async with serving(workers=1) as (service, address):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, service, ["!poison"] * 2)
            await wait_until(lambda: ledger_of(service).accepted == 2)
            answers = await send_all(service, [ENGLISH] * 60)
        assert [answer.status for answer in answers] == [200] * 60
        assert ledger_of(service).poison == 2
        assert len(models) == 2
        assert models[1].asked == 60
        # The edge has nothing to do with it.
        async with httpx.AsyncClient(base_url=address, trust_env=False, verify=False) as client:
            assert (await client.post("/detect", content=ENGLISH)).status_code == 200


async def test_where_that_does_not_help_the_server_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "CRASHES", Intensity(1, within=FOREVER))
    statuses: list[int] = []
    with pytest.RaisesGroup(RestartIntensityError):
        async with serving(workers=1) as (service, _):
            for _ in range(100):
                statuses += [answer.status for answer in await send_all(service, ["!poison"])]
    assert set(statuses) == {500}
    assert service.supervisor.ledger.balanced
    (answer,) = await send_all(service, [ENGLISH])
    assert (answer.status, answer.retry_after) == (503, 1)


# Over HTTP


def open_client(address: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=address, limits=limits, timeout=None, trust_env=False, verify=False)


async def send_raw(address: str, data: bytes) -> bytes:
    """Send bytes; return all that comes back."""
    async with await connect(address) as stream:
        await stream.send_all(data)
        received = b""
        while more := await stream.receive_some():
            received += more
    return received


async def test_a_refusal_says_when_to_come_back() -> None:
    async with serving(workers=1, max_queued=1) as (service, address), open_client(address) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(partial(client.post, "/detect", content=f"!sleep 0.3 {ENGLISH}"))
            await wait_until(lambda: ledger_of(service).accepted == 2)
            answer = await client.post("/detect", content=ENGLISH)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json() == {"error": "1 requests are waiting already; try again in 1 s"}


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"there are POST /detect"),
        (b"no HTTP\r\n\r\n", 400, b"illegal request line"),
        (b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", 408, b"send the request within 0.05 s"),
        (b"", 408, b"send the request within 0.05 s"),
        (
            b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n" + b"x" * 65537,
            413,
            b"at most 65,536 bytes",
        ),
    ],
)
async def test_what_is_no_proper_request_reaches_no_worker(
    sent: bytes, status: int, told: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "PATIENCE", 0.05)
    async with serving() as (service, address):
        received = await send_raw(address, sent)
        assert received.startswith(b"HTTP/1.1 %d " % status)
        assert told in received
        assert ledger_of(service).accepted == 0


async def test_who_hangs_up_is_not_worked_for() -> None:
    async with serving(workers=1) as (service, address), trio.open_nursery() as nursery:
        nursery.start_soon(send_all, service, [f"!sleep 0.3 {ENGLISH}"])
        await wait_until(lambda: ledger_of(service).accepted == 1)
        async with await connect(address) as stream:
            await stream.send_all(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nnever")
            await wait_until(lambda: service.detector.statistics().queued == 1)
        await wait_until(lambda: ledger_of(service).cancelled == 1)
        assert service.detector.statistics().queued == 0
    assert ledger_of(service).replied == 1


async def test_leaving_answers_who_is_there_first() -> None:
    answers: list[httpx.Response] = []

    async def send(client: httpx.AsyncClient) -> None:
        answers.append(await client.post("/detect", content=f"!sleep 0.05 {ENGLISH}"))

    async with trio.open_nursery() as nursery, open_client("") as client:
        async with serving(workers=2) as (service, address):
            client.base_url = httpx.URL(address)
            for _ in range(12):
                nursery.start_soon(send, client)
            await wait_until(lambda: ledger_of(service).accepted == 12)
        assert service.supervisor.ledger.balanced
        assert ledger_of(service).replied == 12
        await wait_until(lambda: len(answers) == 12)
        with pytest.raises(httpx.ConnectError):
            await client.get("/stats")
    assert [answer.status_code for answer in answers] == [200] * 12


# What is sent, and what is shown of it


def test_what_is_sent_follows_from_the_seed() -> None:
    one, same, other = (list(Plan(requests=100, crash_every=5, burst=1, seed=seed).steady()) for seed in (3, 3, 4))
    assert one == same != other
    assert len(one) == 100
    crashes = [number for number, sample in enumerate(one, 1) if sample.text.startswith("!crash")]
    poison = [number for number, sample in enumerate(one, 1) if sample.text.startswith("!poison")]
    assert sorted(crashes + poison) == list(range(5, 101, 5))
    assert len(poison) == 4
    assert [number for number, sample in enumerate(one, 1) if sample.text.startswith("!sleep")] == [91, 96]


def draw(traffic: Traffic) -> str:
    console = Console(width=120, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(draw_report(traffic))
    return captured.get()


def test_the_report_adds_up_all_kinds() -> None:
    traffic = Traffic(Console(), crashes=3)
    traffic.bills["steady crowd"] = Bill(4, Counter({200: 3, 503: 1}), seconds=[0.1, 0.2, 0.3], right=2, healed=1)
    traffic.bills["that hang up"] = Bill(2, hung_up=1, lost=1)
    shown = draw(traffic)
    rows = {line[:12].strip(): line[12:].split() for line in shown.splitlines()}
    assert rows["steady crowd"] == ["4", "3", "1", "·", "·", "·", "·", "·", "200", "ms", "300", "ms"]
    assert rows["all"] == ["6", "3", "1", "·", "·", "·", "1", "1", "200", "ms", "300", "ms"]
    assert "2 of 3 found correctly (66.7%)" in shown
    assert "3 crashes, over which 1 requests were healed" in shown
    assert traffic.code == 1  # one was lost


# As a script


def run_script(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "model_server.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "COLUMNS": "120"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


def read_row(out: str, kind: str) -> dict[str, int]:
    """Return the counts in one row of the report."""
    (row,) = re.findall(rf"^{kind} +(.+)$", out, re.MULTILINE)
    counts = [0 if word == "·" else int(word.replace(",", "")) for word in row.split()[:8]]
    return dict(zip(("sent", "200", "503", "504", "500", "408", "hung up", "lost"), counts, strict=True))


def test_the_script_accounts_for_everything() -> None:
    process = run_script("--requests", "400", "--seed", "3", "--crash-every", "50")
    out, err = process.communicate()
    assert err == ""
    assert process.returncode == 0
    assert "POST /reload: 200" in out
    assert "detection: the supervisor has had 100 restarts within 3 s" in out
    rows = {kind: read_row(out, kind) for kind in ("steady crowd", "burst", "crash storm", "that stall", "all")}
    for row in rows.values():
        assert row["sent"] == sum(row.values()) - row["sent"]
        assert row["lost"] == 0
    assert rows["steady crowd"]["sent"] == 400
    assert rows["burst"]["503"] > 100
    assert rows["that stall"] == {**dict.fromkeys(rows["all"], 0), "sent": 20, "408": 20}
    (ledger,) = re.findall(r"([\d,]+ accepted = .*): balanced", out)
    counts = {name: int(number.replace(",", "")) for number, name in re.findall(r"([\d,]+) ([a-z ]+\b)", ledger)}
    accepted, replied, refused = counts["accepted"], counts["replied"], counts["rejected"]
    late = counts.get("late reply", 0)
    answered = rows["all"]["200"]
    assert answered <= replied - late <= answered + 20  # who hung up may have been answered before that was seen
    assert accepted + refused <= rows["all"]["sent"] - 20


def test_an_interrupt_ends_the_traffic_and_shows_how_far_it_came() -> None:
    """So many requests would take hours: nothing else can end it, and the first incident is far away."""
    process = run_script("--requests", "10000000", "--crash-every", "3")
    assert process.stdout is not None
    for line in process.stdout:
        if "detection" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert err == ""
    assert process.returncode == 130
    row = read_row(out, "steady crowd")
    assert row["200"] > 0
    assert row["lost"] == 0
    assert row["sent"] == sum(row.values()) - row["sent"]
    assert ": balanced\n" in out


def test_an_interrupt_of_the_server_answers_thousands_before_and_those_who_are_there() -> None:
    process = run_script("--serve", "--workers", "3")
    assert process.stdout is not None
    address = process.stdout.readline().split()[2].rstrip(";")
    statuses = trio.run(send_and_interrupt, address, process)
    out, err = process.communicate()
    assert process.returncode == 0
    assert statuses == {200: 2000 + 20}
    assert re.match(r"stopping: who is there is answered first\nstopped: [\d,]+ accepted = ", out)
    assert err == ""


async def send_and_interrupt(address: str, process: subprocess.Popen[str]) -> Counter[int]:
    """Send two thousand requests and, while twenty more are being worked on, Ctrl-C."""
    statuses: Counter[int] = Counter()

    async def send(texts: Iterator[str]) -> None:
        for text in texts:
            statuses[(await post(address, "/detect", text)).status] += 1

    plan = Plan(requests=2000, crash_every=0, burst=1, seed=5)
    async with trio.open_nursery() as nursery:
        texts = (sample.text for sample in islice(plan.samples(), 2000))
        for _ in range(60):
            nursery.start_soon(send, texts)
    async with trio.open_nursery() as nursery, open_client(address) as client:
        for _ in range(20):
            nursery.start_soon(send, iter([f"!sleep 0.2 {ENGLISH}"]))
        accepted = 0
        while accepted < 2020:
            detection = (await client.get("/stats")).json()["tree"]["supervisors"]["detection"]
            accepted = detection["actors"]["detector"]["ledger"]["accepted"]
        process.send_signal(signal.SIGINT)
    return statuses


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run_script("--serve", "--port", str(port))
        out, _ = process.communicate()
    assert process.returncode == 1
    assert "actor 'edge': it did not start: OSError: [Errno" in out


def test_the_script_explains_itself() -> None:
    shown = CliRunner().invoke(model_server.main, ["--help"])
    assert shown.exit_code == 0
    assert "--crash-every INTEGER" in shown.output
