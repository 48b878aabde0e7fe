"""Index a source tree: one stage actor per file, and a join that builds the import graph.

    stageflow-actors run examples/source_index.py
    stageflow-actors run examples/source_index.py --set root=path/to/a/folder

Without `root` it indexes the standard library of the Python that runs it. Files that cannot be decoded
or parsed end as FAILED, with file, line and reason, and cost nobody else; the folder `broken_sources`
beside this file holds some, so that there are always a few.
"""

import ast
import io
import os
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stageflow_actors import Pipeline, PipelineValidationError, RunResult, StageContext, Trigger, parallel_stages

STDLIB = Path(sysconfig.get_paths()["stdlib"])
BROKEN = Path(__file__).resolve().with_name("broken_sources")
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}
STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)  # no import, function or class is inside an expression
SHOWN = 10


def pipeline(root: Path = STDLIB) -> Pipeline:
    """Return a pipeline of one stage a file, and a join that runs whatever became of them."""
    files = find_sources(root.resolve())
    # What the compiler thinks of other people's code is no news here. Once for the whole process:
    # `warnings.catch_warnings` is not for threads.
    for category in (SyntaxWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    workers = parallel_stages("{key}", index_file, files)
    return (
        Pipeline("source-index")
        .with_stages(workers)
        .with_stage("join", build_index, dependencies=workers, trigger=Trigger.ALL_DONE)
    )


def find_sources(root: Path) -> dict[str, dict[str, Any]]:
    """Return the files below `root`, and the broken ones.

    Raises:
        PipelineValidationError: There is none.
    """
    files = find_files(root)
    if not files:
        problem = f"root {str(root)!r} {'has no .py file in it' if root.is_dir() else 'is no folder'}"
        raise PipelineValidationError(problem, hint="name one: --set root=FOLDER")
    if not BROKEN.is_relative_to(root):
        files |= {f"{BROKEN.name}/{name}": config for name, config in find_files(BROKEN).items()}
    return files


def find_files(root: Path) -> dict[str, dict[str, Any]]:
    """Return each file's path below `root`, and with it the configuration of its stage."""
    top = root
    while (top / "__init__.py").is_file():  # the root may itself be a package, or lie in one
        top = top.parent
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".py")):
            parts = path.relative_to(top).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            package = module if is_package else module.rpartition(".")[0]
            found[path.relative_to(root).as_posix()] = {"path": path, "module": module, "package": package}
    return found


# One file: the stages


class SourceError(Exception):
    """A file that is not Python source: `file:line: reason`."""

    def __init__(self, file: str, line: int, kind: str, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}")
        self.kind = kind


def index_file(ctx: StageContext) -> dict[str, Any]:
    """Read, parse and measure one file. It is a plain `def`, so it runs in a worker thread."""
    path: Path = ctx.config["path"]
    text = read_source(path, ctx.stage_name)
    counts, at_import, deferred = inspect_tree(parse_source(text, ctx.stage_name), ctx.config["package"])
    lines = [line.strip() for line in io.StringIO(text)]
    return {
        "module": ctx.config["module"],
        "bytes": path.stat().st_size,
        "lines": len(lines),
        "code": sum(1 for line in lines if line and not line.startswith("#")),
        **counts,
        "imports": sorted(at_import),
        "deferred_imports": sorted(deferred - at_import),
    }


def read_source(path: Path, name: str) -> str:
    """Return a file's text in the encoding that it declares (PEP 263)."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SourceError(name, line, "undecodable bytes", str(error)) from error
    except (SyntaxError, LookupError) as error:
        # The declaration is in one of the first two lines, and the error does not say in which.
        first = path.read_bytes().split(b"\n", 1)[0]
        line = 1 if b"coding" in first or not first.isascii() else 2
        reason = str(error).replace(f" for {str(path)!r}", "")
        raise SourceError(name, line, "bad encoding declaration", reason) from error


def parse_source(text: str, name: str) -> ast.Module:
    """Return the syntax tree of a file's text."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(name, line, "null byte", "source code cannot contain null bytes")
    try:
        return ast.parse(text, name)
    except SyntaxError as error:
        raise SourceError(name, error.lineno or 1, "syntax error", str(error.msg)) from error


def inspect_tree(tree: ast.Module, package: str) -> tuple[dict[str, int], set[str], set[str]]:
    """Return counts, the names that are imported with the module, and those only in functions or for type checkers."""
    counts = Counter(functions=0, classes=0, documentable=0, documented=0)
    at_import: set[str] = set()
    deferred: set[str] = set()
    work: list[tuple[ast.AST, bool]] = [(tree, False)]
    while work:
        node, later = work.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            (deferred if later else at_import).update(name_imports(node, package))
            continue
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        later = later or is_function or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        counts["functions"] += is_function
        counts["classes"] += isinstance(node, ast.ClassDef)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            counts["documentable"] += 1
            counts["documented"] += ast.get_docstring(node, clean=False) is not None
        work += [(child, later) for child in ast.iter_child_nodes(node) if isinstance(child, STATEMENTS)]
    return dict(counts), at_import, deferred


def name_imports(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Return the absolute names of what a statement imports: modules, or things in modules."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return names
    parents = package.split(".") if node.level else []
    base = [*parents[: max(0, len(parents) - node.level + 1)], node.module]
    return [".".join(filter(None, [*base, "" if name == "*" else name])) for name in names]


# All files: the join


def build_index(ctx: StageContext) -> dict[str, Any]:
    """Put together what the files' stages found, and count those that failed by kind."""
    files = [output.data for output in ctx.inputs.outputs.values()]
    errors = [failure.error for name in ctx.inputs if (failure := ctx.inputs.failure(name))]
    kinds = [error.kind if isinstance(error, SourceError) else type(error).__name__ for error in errors]
    modules = {file["module"] for file in files}
    importers: Counter[str] = Counter()
    graph: dict[str, set[str]] = {}
    lengths: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for file in files:
        now = {find_module(name, modules) for name in file["imports"]}
        later = {find_module(name, modules) for name in file["deferred_imports"]}
        importers.update(sorted((now | later) - {file["module"]}))
        graph[file["module"]] = (now & modules) - {file["module"]}
        lengths[file["module"]] = file["lines"]
        packages[file["module"].partition(".")[0]] += file["lines"]
    totals = ("bytes", "lines", "code", "functions", "classes", "documentable", "documented")
    return {
        "files": len(ctx.inputs),
        "modules": len(files),
        **{key: sum(file[key] for file in files) for key in totals},
        "largest": lengths.most_common(SHOWN),
        "importers": importers.most_common(SHOWN),
        "packages": packages.most_common(SHOWN),
        "cycles": find_cycles(graph),
        "broken": Counter(kinds).most_common(),
    }


def find_module(name: str, modules: Collection[str]) -> str:
    """Return the module of the tree that an imported name is or lies in; its first part, if it is none of the tree."""
    module = name
    while module and module not in modules:
        module = module.rpartition(".")[0]
    return module or name.partition(".")[0]


def find_cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, the largest first.

    Tarjan's strongly connected components, without recursion: chains of imports are long.
    """
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    ended: set[str] = set()
    work: list[tuple[str, Iterator[str]]] = []
    cycles = []

    def enter(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        path.append(module)
        work.append((module, iter(graph[module])))

    for start in graph:
        if start not in numbers:
            enter(start)
        while work:
            module, imported = work[-1]
            for other in imported:
                if other not in numbers:
                    enter(other)
                    break
                if other not in ended:
                    lowest[module] = min(lowest[module], numbers[other])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[module])
                if lowest[module] == numbers[module]:
                    group = [path.pop()]
                    while group[-1] != module:
                        group.append(path.pop())
                    ended.update(group)
                    if len(group) > 1:
                        cycles.append(sorted(group))
    return sorted(cycles, key=lambda group: (-len(group), group))


# What the command line prints


def report(result: RunResult) -> RenderableType | None:
    """Return what a person wants to see of a run: nothing, if it ended before the join."""
    if "join" not in result:
        return None
    index = result.data("join")
    documented = index["documented"] / max(1, index["documentable"])
    totals = (
        f"{index['modules']:,} of {index['files']:,} files indexed\n"
        f"{index['bytes'] / 1e6:.1f} MB, {index['lines']:,} lines, {index['code']:,} of them code\n"
        f"{index['functions']:,} functions, {index['classes']:,} classes, {documented:.0%} documented"
    )
    largest = render_counts("Largest modules, in lines", index["largest"])
    importers = render_counts("Most imported, by modules", index["importers"])
    return Group(
        Text(totals, style="bold"),
        Columns([largest, importers], padding=(0, 4)),
        render_counts("Lines per top-level package", index["packages"], bars=True),
        render_groups("Import cycles", index["cycles"]),
        render_counts("Broken files", index["broken"]),
    )


def render_counts(title: str, counts: Sequence[tuple[str, int]], *, bars: bool = False) -> Group:
    """Return a table of names and numbers, each number as a bar too where that is wanted."""
    table = Table(box=None, show_header=False)
    for name, count in counts:
        bar = [ProgressBar(total=counts[0][1], completed=count, width=40)] if bars else []
        table.add_row(name, Text(f"{count:,}", justify="right"), *bar)
    return Group(Text(f"\n{title}", style="bold"), table)


def render_groups(title: str, groups: Sequence[Sequence[str]]) -> Group:
    """Return a table of groups of names: the first groups, and the first names of each."""
    table = Table(box=None, show_header=False)
    for group in groups[:SHOWN]:
        more = f" and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
        table.add_row(f"{len(group)} modules", ", ".join(group[:SHOWN]) + more)
    return Group(Text(f"\n{title}: {len(groups) or 'none'}", style="bold"), table)
