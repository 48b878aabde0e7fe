"""What was measured is kept in a file, and a run that was stopped goes on with it."""

from __future__ import annotations

import pytest
from race_bench import bench  # noqa: F401  # a fixture


@pytest.fixture
def kept(bench):  # noqa: F811
    return bench("race_kept")


def never():
    pytest.fail("it is measured already")


def test_what_is_measured_is_measured_once(kept):
    store = kept.Kept()
    assert store.take("a", lambda: (1, 2)) == [1, 2]
    assert store.take("a", never) == [1, 2]
    assert store.take("b", lambda: None) is None
    assert store.take("b", never) is None


def test_it_is_there_in_the_next_run(kept, tmp_path):
    file = tmp_path / "kept"
    first = kept.open_kept(file, {"rounds": 5})
    first.take("a", lambda: {"x": 1})
    second = kept.open_kept(file, {"rounds": 5})
    assert second.take("a", never) == {"x": 1}
    second.take("b", lambda: 2)
    assert kept.open_kept(file, {"rounds": 5}).values == {"a": {"x": 1}, "b": 2}


def test_a_run_with_other_settings_is_refused(kept, tmp_path):
    file = tmp_path / "kept"
    kept.open_kept(file, {"rounds": 5})
    with pytest.raises(kept.OtherRunError, match="is of a run with other settings or versions"):
        kept.open_kept(file, {"rounds": 4})


@pytest.mark.parametrize("content", ["", "something else\n", '["about", {"rou'])
def test_a_file_of_something_else_is_refused_and_left_alone(kept, tmp_path, content):
    file = tmp_path / "kept"
    file.write_text(content)
    with pytest.raises(kept.OtherRunError):
        kept.open_kept(file, {"rounds": 5})
    assert file.read_text() == content


def test_a_line_that_was_cut_short_is_measured_again(kept, tmp_path):
    file = tmp_path / "kept"
    store = kept.open_kept(file, {})
    store.take("a", lambda: 1)
    whole = file.read_text()
    file.write_text(whole + '["b", [1, ')
    again = kept.open_kept(file, {})
    assert again.values == {"a": 1}
    assert file.read_text() == whole
    assert again.take("b", lambda: 2) == 2
    assert kept.open_kept(file, {}).values == {"a": 1, "b": 2}
