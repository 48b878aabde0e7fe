"""A late message takes up room in the mailbox, and is not there: who waits for it, and what is dropped for whom."""

from __future__ import annotations

import trio
from race_mail import SMALL, agree, run_all, together

from stageflow_actors import Mailbox
from stageflow_actors.testing import Dropped, Late

FIRST = Late("log", at=1)


def test_it_takes_up_room():
    async def body(log, ref):
        await log.tell(ref, "late")
        await together(
            (log.ask, ref, "in hand", 0.2),
            (log.ask, ref, "refused"),
        )
        await trio.sleep(2)

    logs = run_all(body, FIRST, mailbox=SMALL["reject"])
    # Of one sender all that follows waits behind the late one; these are others.
    assert agree(logs, "ends") == {"late": "told", "in hand": "reply 1", "refused": "MailboxFull"}
    assert agree(logs, "seen") == [("in hand", 1), ("late", 1)]


def test_who_waits_for_the_room_that_it_takes_up_is_served_before_it():
    async def body(log, ref):
        await log.tell(ref, "late")
        await together((log.ask, ref, "in hand", 0.2), (log.ask, ref, "waits"))
        assert trio.current_time() == 0.2
        await trio.sleep(2)

    assert agree(run_all(body, FIRST, mailbox=SMALL["wait"]), "seen") == [("in hand", 1), ("waits", 1), ("late", 1)]


def test_the_sender_waits_for_room_behind_its_own_late_message():
    async def body(log, ref):
        await log.tell(ref, "late")
        await log.tell(ref, "behind")
        assert trio.current_time() == 1
        await log.ask(ref, "last")

    logs = run_all(body, FIRST, mailbox=Mailbox(0))
    assert agree(logs, "seen") == [("late", 1), ("behind", 1), ("last", 1)]
    assert agree(logs, "ends") == {"late": "told", "behind": "told", "last": "reply 1"}


def test_who_waits_for_room_behind_its_own_late_message_may_give_up():
    async def body(log, ref):
        await log.tell(ref, "late")
        with trio.move_on_after(0.5):
            await log.tell(ref, "behind")
        assert ref.statistics().blocked == 0
        log.tell_nowait(ref, "at once")
        await trio.sleep(1)

    logs = run_all(body, FIRST, mailbox=Mailbox(0))
    assert agree(logs, "seen", "ends") == [
        [("late", 1)],
        {"late": "told", "behind": "Cancelled", "at once": "MailboxFull"},
    ]


def test_who_waits_for_room_behind_its_own_late_message_hears_of_the_end():
    async def body(log, ref):
        async def send():
            await log.tell(ref, "late")
            await log.tell(ref, "behind")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(0.5)
            assert ref.statistics().blocked == 1
            await ref.stop()

    logs = run_all(body, FIRST, mailbox=Mailbox(0))
    assert agree(logs, "ends", "letters") == [
        {"late": "told", "behind": "ActorDead"},
        [("stopped", "late"), ("no_recipient", "behind")],
    ]


def test_one_that_is_dropped_for_a_newer_message_is_an_overflow():
    async def body(log, ref):
        await together((log.ask, ref, "late"), (log.ask, ref, "in hand", 0.2), (log.ask, ref, "newer"))
        assert trio.current_time() == 0.2
        await log.ask(ref, "next")

    logs = run_all(body, FIRST, mailbox=SMALL["drop_oldest"])
    assert agree(logs, "ends") == {"late": "MailboxFull", "in hand": "reply 1", "newer": "reply 1", "next": "reply 1"}
    assert agree(logs, "letters") == [("overflow", "late")]


def test_what_was_behind_one_that_is_dropped_comes_when_that_would_have():
    async def body(log, ref):
        await log.tell(ref, "late")
        await log.tell(ref, "behind")
        await together((log.ask, ref, "in hand", 0.2), (log.ask, ref, "newer"))
        await log.ask(ref, "last")

    logs = run_all(body, FIRST, mailbox=Mailbox(2, overflow="drop_oldest"))
    assert agree(logs, "seen") == [("in hand", 1), ("newer", 1), ("behind", 1), ("last", 1)]
    assert {log.at["behind"] for log in logs} == {1}


def test_one_that_is_dropped_for_the_next_of_its_own_sender():
    async def body(log, ref):
        await log.tell(ref, "late")
        await log.tell(ref, "newer")
        await log.ask(ref, "last")
        assert trio.current_time() == 0

    logs = run_all(body, FIRST, mailbox=SMALL["drop_oldest"])
    assert agree(logs, "seen", "letters") == [[("newer", 1), ("last", 1)], [("overflow", "late")]]


def test_one_that_finds_the_mailbox_full_waits_behind_one_that_is_late():
    async def body(log, ref):
        await log.tell(ref, "late")
        await log.tell(ref, "behind")
        assert trio.current_time() == 1
        await log.ask(ref, "last")

    for mailbox in (SMALL["wait"], Mailbox(5)):
        logs = run_all(body, FIRST, Dropped("log", at=2), mailbox=mailbox)
        assert agree(logs, "seen") == [("late", 1), ("behind", 1), ("last", 1)]


def test_a_message_that_finds_no_room_is_not_late():
    async def body(log, ref):
        await together((log.ask, ref, "in hand", 0.2), (log.tell, ref, "queued"), (log.ask, ref, "waits"))
        assert trio.current_time() == 0.2

    logs = run_all(body, Late("log", at=3), mailbox=SMALL["wait"])
    assert agree(logs, "seen") == [("in hand", 1), ("queued", 1), ("waits", 1)]
