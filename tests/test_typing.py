"""What a user's type checker sees and refuses, checked with mypy."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """A function that checks a file strictly, as the project's configuration says, and returns mypy's report."""
    api = pytest.importorskip("mypy.api")
    cache = tmp_path_factory.mktemp("mypy")

    def run(path):
        config = ROOT / "pyproject.toml"
        report, errors, status = api.run(
            ["--config-file", str(config), "--cache-dir", str(cache), "--no-error-summary", str(path)]
        )
        return errors + report, status

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield run


def test_there_is_something_to_check():
    assert [path.name for path in FILES] == ["refuse.py", "see.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_checkers_see_what_is_promised(check, path):
    assert check(path) == ("", 0)


def test_a_mistake_that_is_not_found_would_fail_the_check(check, tmp_path):
    path = tmp_path / "mistake.py"
    path.write_text("from stageflow_actors import Pipeline\n\nPipeline('p')  # type: ignore[arg-type]\n")
    report, status = check(path)
    assert 'Unused "type: ignore" comment' in report
    assert status == 1
