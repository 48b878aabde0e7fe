"""The benchmark of linearizability: every history is what it is made to be, and every verdict is looked at."""

from __future__ import annotations

import importlib
import json

import attrs
import pytest
from bench_scripts import make_importable

from stageflow_actors.testing import check_linearizable

OURS = {"peers", "measuring", "rows", "running", "bench_dag005", "bench_linearizability"}


@pytest.fixture
def script(monkeypatch):
    """Import it as it is when it is run, and forget it afterwards."""
    make_importable(monkeypatch, OURS)
    return importlib.import_module("bench_linearizability")


def test_a_quick_run_prints_and_writes_all_rows(script, tmp_path, capsys):
    numbers = tmp_path / "figures.json"
    assert script.main(["--quick", "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    written = json.loads(numbers.read_text())
    assert list(written["rows"]) == list(script.ROWS) == ["map-1000", "register-1000", "wrong-1000", "agreement"]
    assert "histories in which the checker agrees with all orders" in printed
    assert written["rows"]["agreement"]["agreed"] == written["rows"]["agreement"]["of"] == script.QUICK
    assert all(size <= 4 for load in written["rows"]["wrong-1000"].values() for size in load["sizes"])


def test_a_load_is_what_it_says(script):
    load = script.Load(3, 2, operations=100, pending=0.5)
    operations = load.make(7)
    assert operations == load.make(7) != load.make(8)
    assert len({each.client for each in operations}) == 3
    assert {each.call[1] for each in operations} == {0, 1}
    assert 0 < sum(each.pending for each in operations if each.call[0] == "put") < 50
    check_linearizable(operations, script.STORE)


def test_a_wrong_verdict_is_named(script):
    wrong = importlib.import_module("measuring").WrongOutputError
    load = script.Load(2, 1, operations=20, wrong=True)
    assert script.take(load, 1)[1] is not None
    with pytest.raises(wrong, match=r"Load\(clients=2, keys=1, operations=20.* with seed 1: not linearizable"):
        script.take(Misnamed(load), 1)
    with pytest.raises(wrong, match="no read could be made wrong"):
        script.spoil([])


@attrs.frozen
class Misnamed:
    """A load that says of a wrong history that it is right."""

    load: object
    wrong = False

    def make(self, seed):
        return self.load.make(seed)

    def __repr__(self):
        return repr(self.load)


def test_a_history_that_is_judged_otherwise_is_counted(script, monkeypatch):
    judging = importlib.import_module("property_tests.test_linearizability")

    def judge(kind, operations, random):
        assert kind != "queue"
        return True

    monkeypatch.setattr(judging, "judge", judge)
    taken = script.measure_agreement(script.Settings({}, 1, quick=True), 0)
    (figure,) = taken.figures
    assert not figure.ok
    assert [line[0] for line in taken.lines] == ["counter", "register", "store"]


def test_no_rounds_are_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err
