"""The actor that owns the SQLite file."""

import sqlite3
from pathlib import Path
from typing import Any

import pykka

from stageflow_actors import StageContext

COLUMNS = ("path", "changed", "lines", "functions", "classes")
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, changed INTEGER, lines INTEGER, functions INTEGER, classes INTEGER
)
"""


class Catalogue(pykka.ThreadingActor):
    """What is known of the files. The handle is made, used and closed in the actor's own thread."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.database: sqlite3.Connection

    def on_start(self) -> None:
        """Open the file."""
        self.database = sqlite3.connect(self.path)
        self.database.execute(SCHEMA)

    def on_stop(self) -> None:
        """Close it."""
        self.database.close()

    def execute(self, ctx: StageContext) -> dict[str, Any]:
        """Store what the stages of a scan have found; or, asked by the application, do what the message says."""
        if len(ctx.inputs):
            return self.store([output.data for output in ctx.inputs.outputs.values()])
        if "files" in ctx.snapshot.data:
            return self.store(ctx.snapshot.data["files"])
        return self.look_up()

    def store(self, files: Any) -> dict[str, Any]:
        """Store rows, all of them or none."""
        with self.database:
            names = ", ".join(f":{column}" for column in COLUMNS)
            self.database.executemany(f"INSERT OR REPLACE INTO files VALUES ({names})", [dict(file) for file in files])
        return {"stored": len(files)}

    def look_up(self) -> dict[str, Any]:
        """Return when each file that is known was changed last, and the totals."""
        changed = dict(self.database.execute("SELECT path, changed FROM files"))
        query = "SELECT count(*), total(lines), total(functions), total(classes) FROM files"
        totals = [int(value) for value in self.database.execute(query).fetchone()]
        return {"changed": changed, "totals": totals}
