"""How long it takes to check histories, to show what is wrong with one, and whether the checker is right.

    python benchmarks/bench_linearizability.py            all rows, a minute
    python benchmarks/bench_linearizability.py --quick    a smoke check: small histories, one of each kind
    python benchmarks/bench_linearizability.py --only agreement --json figures.json

Histories are made up: clients read and write values by key at random, each at one moment between invocation and
response. Times are processor time. Every verdict is looked at: what is made right must be linearizable, and a read
that is made wrong must be found.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from operator import itemgetter
from pathlib import Path
from random import Random
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import attrs
from measuring import WrongOutputError
from rows import Figure, Settings, Taken
from running import run_rows

from stageflow_actors.testing import Model, Operation, find_violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stageflow_actors.testing import Violation

ROOT = Path(__file__).parent.parent

QUICK = 60
"""Operations of a history in a quick run."""


def keep(state: dict[int, int], call: tuple[Any, ...]) -> tuple[int | None, dict[int, int]]:
    """Do what values by key do."""
    match call:
        case ("put", key, value):
            return None, {**state, key: value}
        case ("get", key):
            return state.get(key), state
    raise ValueError(call)


STORE = Model(keep, {}, partition=itemgetter(1))


@attrs.frozen
class Load:
    """Who does how much."""

    clients: int
    keys: int
    operations: int = 1000
    pending: float = 0.0
    """The share of the writes of which nobody hears whether they were done."""
    wrong: bool = False
    """Whether one read, in the second half, returns what an earlier one has."""

    def make(self, seed: int) -> list[Operation]:
        """Return a history."""
        random = Random(seed)
        state: dict[int, int] = {}
        made: list[Operation] = []
        under_way: dict[int, tuple[Any, ...]] = {}
        at = 0
        while len(made) < self.operations:
            at += 1
            client = random.randrange(self.clients)
            if client not in under_way:
                key = random.randrange(self.keys)
                call = ("put", key, at) if random.random() < 0.5 else ("get", key)
                under_way[client] = (call, at)
            elif len(under_way[client]) == 2:
                result, after = keep(state, under_way[client][0])
                state.update(after)
                under_way[client] += (result,)
            else:
                call, invoked, result = under_way.pop(client)
                lost = call[0] == "put" and random.random() < self.pending
                end = {} if lost else {"result": result, "returned": at}
                made.append(Operation(f"client {client}", call, invoked=invoked, **end))
        made += [Operation(f"client {client}", call, invoked=at) for client, (call, at, *_) in under_way.items()]
        return spoil(made) if self.wrong else made


def spoil(operations: list[Operation]) -> list[Operation]:
    """Let a read in the second half return what was overwritten before it began."""
    for place in range(len(operations) // 2, len(operations)):
        read = operations[place]
        if read.call[0] == "get" and read.result is not None:
            writes = [
                each
                for each in operations
                if each.call[:2] == ("put", read.call[1]) and (each.returned or read.invoked) < read.invoked
            ]
            writes.sort(key=lambda each: each.returned or 0.0)
            over = [one for one in writes if any((one.returned or 0.0) < other.invoked for other in writes)]
            if over and over[-1].call[2] != read.result:
                wrong = attrs.evolve(read, result=over[-1].call[2])
                return [*operations[:place], wrong, *operations[place + 1 :]]
    raise WrongOutputError("no read could be made wrong")


def take(load: Load, seed: int) -> tuple[float, Violation | None]:
    """Return how long it takes to judge a history, in seconds, and the verdict.

    Raises:
        WrongOutputError: It is not that for which the history was made.
    """
    operations = load.make(seed)
    gc.collect()
    began = process_time()
    found = find_violation(operations, STORE)
    seconds = process_time() - began
    if (found is not None) != load.wrong:
        raise WrongOutputError(f"{load} with seed {seed}: {found}")
    return seconds, found


def measure_loads(settings: Settings, loads: Sequence[Load], bar: float) -> Taken:
    """Seconds for each of some loads: the median and the worst of the rounds, each with a history of its own."""
    lines, figures, raw = [], [], {}
    for load in loads:
        small = attrs.evolve(load, operations=min(load.operations, QUICK)) if settings.quick else load
        taken = [take(small, seed) for seed in range(settings.rounds)]
        seconds = [each for each, _ in taken]
        sizes = [len(found.operations) for _, found in taken if found is not None]
        told = f"{load.clients} clients, {load.keys} keys, {load.pending:.0%} pending"
        shown = f"{min(sizes)} to {max(sizes)}" if sizes else ""
        lines.append((told, f"{median(seconds):.3f}", f"{max(seconds):.3f}", shown))
        raw[told] = {"seconds": seconds, "sizes": sizes}
        what = f"{small.operations:,} operations, {told}" + (", one wrong read" if load.wrong else "")
        figures.append(Figure(f"{what}: the worst", bar, max(seconds), "s"))
    return Taken(("load", "s", "worst", "operations shown"), lines, figures, raw)


def measure_agreement(settings: Settings, histories: int) -> Taken:
    """Small random histories of four kinds of things, each judged by trying out every order, too."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from property_tests.histories import draw_history  # noqa: PLC0415 (of the tests)
    from property_tests.test_linearizability import judge  # noqa: PLC0415

    number = QUICK if settings.quick else histories
    verdicts: dict[tuple[str, bool], int] = {}
    agreed = 0
    for seed in range(number):
        random = Random(seed)
        kind, operations = draw_history(random)
        try:
            holds = judge(kind, operations, random)
        except AssertionError:
            continue
        agreed += 1
        verdicts[kind, holds] = verdicts.get((kind, holds), 0) + 1
    kinds = sorted({kind for kind, _ in verdicts})
    lines = [(kind, f"{verdicts.get((kind, True), 0):,}", f"{verdicts.get((kind, False), 0):,}") for kind in kinds]
    figure = Figure(
        "histories in which the checker agrees with all orders", 1.0, agreed / number, "of 1", at_most=False
    )
    return Taken(("thing", "linearizable", "not"), lines, [figure], {"agreed": agreed, "of": number})


MAPS = [Load(8, 20), Load(8, 50), Load(8, 30, pending=0.1)]
REGISTERS = [Load(2, 1), Load(4, 1), Load(8, 1)]
WRONG = [attrs.evolve(load, wrong=True) for load in (Load(8, 30), Load(8, 30, pending=0.1), Load(2, 1), Load(4, 1))]

ROWS: dict[str, Callable[[Settings], Taken]] = {
    "map-1000": partial(measure_loads, loads=MAPS, bar=1.0),
    "register-1000": partial(measure_loads, loads=REGISTERS, bar=5.0),
    "wrong-1000": partial(measure_loads, loads=WRONG, bar=10.0),
    "agreement": partial(measure_agreement, histories=10_000),
}


def main(arguments: Sequence[str] | None = None) -> int:
    return run_rows(__doc__, ROWS, arguments, rounds=1, quick="small histories, one of each kind")


if __name__ == "__main__":
    sys.exit(main())
