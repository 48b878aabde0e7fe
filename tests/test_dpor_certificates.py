"""How few executions a certificate takes: of orders that make no difference, one is run."""

from __future__ import annotations

import pytest
import trio
from race_cases import side_by_side
from trio.lowlevel import checkpoint

from property_tests.corpus import find
from property_tests.race_models import count_interleavings
from stageflow_actors.testing import explore

MOST = 5_000


def certify(program, **options):
    """Return the certificate of a program that holds."""
    report = explore(program, strategy="dpor", max_executions=MOST, **options)
    report.raise_for_failure()
    assert report.complete, report
    assert report.untracked == ()
    assert report.certificate.method == "dpor" or report.certificate.executions == 1  # the only schedule: that is all
    return report.certificate


def count_traces(program, **options):
    """Return how many executions went to their end: each is another way of ordering dependent steps."""
    certificate = certify(program, **options)
    return certificate.executions - certificate.pruned


class Slot:
    """A place in memory."""

    def __init__(self, value=0):
        self.value = value


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_independent_tasks_are_run_once(tasks):
    async def program():
        async def work():
            lock, items, slot = trio.Lock(), [], Slot()
            for number in range(3):
                async with lock:
                    items.append(number)
                    await checkpoint()
                    slot.value += 1

        await side_by_side(*[work] * tasks)

    assert certify(program).executions == 1


@pytest.mark.parametrize("tasks", [2, 5])
def test_readers_alone_are_run_once(tasks):
    async def program():
        shared, table, items = Slot(1), {"a": 1}, [1]

        async def read():
            for _ in range(3):
                assert shared.value == table["a"] == items[0] == 1
                await checkpoint()

        await side_by_side(*[read] * tasks)

    assert certify(program).executions == 1


def test_two_tasks_over_one_variable_are_run_in_every_order():
    async def program():
        value = 0

        async def add():
            nonlocal value
            value += 1
            await checkpoint()
            value += 1

        await side_by_side(add, add)
        assert value == 4

    assert count_traces(program) == count_interleavings([2, 2]) == 6


def test_steps_before_and_after_the_shared_one_do_not_count():
    async def program():
        value = 0

        async def add():
            nonlocal value
            for _ in range(3):
                await checkpoint()
            value += 1
            for _ in range(3):
                await checkpoint()

        await side_by_side(add, add, add)
        assert value == 3

    assert count_traces(program) == 6


@pytest.mark.parametrize("readers", [1, 2, 4, 6])
def test_readers_and_a_writer(readers):
    """Each reader comes before the writer or after it: 2**n traces (Abdulla et al., POPL 2014, `readers`)."""

    async def program():
        shared = Slot()

        async def read():
            assert shared.value in (0, 1)

        async def write():
            shared.value = 1

        await side_by_side(write, *[read] * readers)

    certificate = certify(program)
    assert certificate.executions - certificate.pruned == 2**readers


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_last_zero(size):
    """Abdulla et al., POPL 2014, `lastzero`: an optimal reduction explores (n + 3) * 2**(n - 2) traces."""

    async def program():
        array = [Slot() for _ in range(size + 1)]

        def writer(at):
            async def write():
                before = array[at - 1].value
                await checkpoint()
                array[at].value = before + 1

            return write

        async def search():
            at = size
            while array[at].value != 0:
                at -= 1
                await checkpoint()

        await side_by_side(search, *[writer(at) for at in range(1, size + 1)])

    assert count_traces(program) == (size + 3) * 2 ** (size - 2)


@pytest.mark.parametrize(("tasks", "traces"), [(4, 1), (11, 1), (12, 8)])
def test_indexer(tasks, traces):
    """Flanagan and Godefroid, POPL 2005, `indexer`: a hash table; from 12 tasks on keys collide."""

    async def program():
        table = [Slot() for _ in range(128)]

        def indexer(number):
            async def index():
                for message in range(1, 5):
                    word = message * 11 + number
                    at = word * 7 % 128
                    while table[at].value:
                        await checkpoint()
                        at = (at + 1) % 128
                    table[at].value = word
                    await checkpoint()

            return index

        await side_by_side(*[indexer(number) for number in range(tasks)])
        assert sum(slot.value > 0 for slot in table) == tasks * 4

    assert count_traces(program) == traces


@pytest.mark.parametrize("tasks", [2, 8, 13])
def test_file_system(tasks):
    """Flanagan and Godefroid, POPL 2005, `file system`: up to 13 tasks take blocks of their own."""

    async def program():
        inodes, busy = [Slot() for _ in range(32)], [Slot() for _ in range(26)]
        of_inodes, of_blocks = [trio.Lock() for _ in inodes], [trio.Lock() for _ in busy]

        def creator(number):
            async def create():
                at = number % 32
                async with of_inodes[at]:
                    block = at * 2 % 26
                    while not inodes[at].value:
                        async with of_blocks[block]:
                            if not busy[block].value:
                                busy[block].value = 1
                                inodes[at].value = block + 1
                        block = (block + 1) % 26

            return create

        await side_by_side(*[creator(number) for number in range(tasks)])

    assert certify(program).executions == 1


def dine(seats, meals=1):
    """Return philosophers that take the fork with the lower number first."""

    async def program():
        forks = [trio.Lock() for _ in range(seats)]

        def philosopher(seat):
            low, high = sorted((seat, (seat + 1) % seats))

            async def eat():
                for _ in range(meals):
                    async with forks[low], forks[high]:
                        await checkpoint()

            return eat

        await side_by_side(*[philosopher(seat) for seat in range(seats)])

    return program


@pytest.mark.parametrize("clock", ["explore", "auto"])
def test_three_ordered_philosophers_are_certified_in_fifty_executions(clock):
    assert explore(dine(3), strategy="dpor", max_executions=50, clock=clock).complete
    assert explore(find("three philosophers").twin, strategy="dpor", max_executions=50, clock=clock).complete


def test_a_producer_and_a_consumer():
    async def program():
        send, receive = trio.open_memory_channel(1)
        got = []

        async def produce():
            async with send:
                for number in range(3):
                    await send.send(number)

        async def consume():
            got.extend([number async for number in receive])

        await side_by_side(produce, consume)
        assert got == [0, 1, 2]

    every = explore(program, strategy="dfs", max_executions=MOST)
    assert every.complete
    assert certify(program).executions <= every.executions


def test_a_certificate_says_how_it_came_about():
    async def program():
        await side_by_side(checkpoint, checkpoint)

    report = explore(program, strategy="dpor")
    assert report.certificate == type(report.certificate)("dpor", 1, 0)
    assert report.executions == report.reduced >= 1  # those that showed what is to be followed are no part of the proof
    assert (report.sampled, report.bound) == (0, None)
    made = f"{report.executions} executions, {report.reduced} by partial order reduction"
    assert str(report) == f"program: no failure in any schedule that can be told apart: complete, {made}"
    report = explore(program, strategy="dfs")
    assert report.certificate == type(report.certificate)("dfs", 6, 0)
    assert str(report) == "program: no failure in any schedule: complete, 6 executions"


def test_there_is_no_certificate_where_executions_are_too_few_or_something_fails():
    async def program():
        value = 0

        async def add():
            nonlocal value
            value += 1
            await checkpoint()
            value += 1

        await side_by_side(add, add, add)
        assert value == 6

    assert count_traces(program) == 90
    for most in (1, 2, 89):
        report = explore(program, strategy="dpor", max_executions=most)
        assert not report.complete
        assert report.certificate is None
        assert "complete" not in str(report)
    assert explore(find("lost update").bug, strategy="dpor").certificate is None


def test_a_jump_of_the_clock_that_nobody_notices_is_left_out():
    async def program():
        async def work():
            with trio.move_on_after(60):
                await checkpoint()
                await checkpoint()

        await side_by_side(work)

    every = explore(program, strategy="dfs")
    assert every.complete
    assert certify(program).executions <= every.executions
    assert certify(program, clock="auto").executions == 1
