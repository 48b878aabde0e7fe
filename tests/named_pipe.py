"""A named pipe, by which a test sees when another process begins, and that it has ended."""

from __future__ import annotations

import os


class NamedPipe:
    """A process that holds it open shows its reader when it began, and when the last one has ended that has it."""

    def __init__(self, folder):
        self.path = folder / "pipe"
        os.mkfifo(self.path)

    def __enter__(self):
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._descriptor, True)
        self._keep = os.open(self.path, os.O_WRONLY)
        return self

    def __exit__(self, *_):
        os.close(self._descriptor)
        if self._keep is not None:
            os.close(self._keep)

    def wait_for_begin(self):
        """Wait until somebody has written its process id."""
        assert os.read(self._descriptor, 100).strip().isdigit()

    def wait_for_end(self):
        """Wait until no process holds the pipe open."""
        os.close(self._keep)
        self._keep = None
        while os.read(self._descriptor, 100):
            pass
