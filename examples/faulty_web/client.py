"""The client's side of a faulty server. It tries nothing twice: restarts are the runtime's affair."""

import httpx

from stageflow_actors import StageFailedError, StageTimeoutError
from stageflow_actors.errors import RestartIntensityError


class BusyError(Exception):
    """The server asked to be left alone for a while.

    Attributes:
        after: For how many seconds.
    """

    def __init__(self, path: str, after: float) -> None:
        super().__init__(f"429 for {path}, which asks for {after:.3f} s")
        self.after = after


def open_client(address: str) -> httpx.AsyncClient:
    """Return a client without timeouts and limits of its own, which the runtime has."""
    # At every request the pool of httpcore looks through all connections once for each of them: few idle
    # ones halve the time that a crawl takes.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4)
    # Nothing is encrypted here: without `verify` it does not spend time on reading certificates.
    return httpx.AsyncClient(base_url=address, limits=limits, timeout=None, trust_env=False, verify=False)


class StatusError(Exception):
    """The server answered, and not well.

    Attributes:
        status: The answer's status.
    """

    def __init__(self, path: str, status: int) -> None:
        super().__init__(f"{status} for {path}")
        self.status = status


async def fetch(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """Ask for a path once and return the answer.

    Raises:
        BusyError: The server wants to be asked later.
        StatusError: It answered with another error.
        httpx.TransportError: It did not answer, or not in HTTP.
    """
    response = await client.get(path)
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise BusyError(path, float(response.headers["Retry-After"]))
    if not response.is_success:
        raise StatusError(path, response.status_code)
    return response


def name_cause(error: BaseException | None) -> str:
    """Return in a few words what an attempt, or a stage after its last attempt, died of."""
    while isinstance(error, (StageFailedError, RestartIntensityError)):
        error = error.__cause__
    if isinstance(error, BusyError):
        return "429"
    if isinstance(error, StatusError):
        return str(error.status)
    if isinstance(error, StageTimeoutError):
        return "timeout"
    if isinstance(error, httpx.ReadError):
        return "reset"
    if isinstance(error, httpx.RemoteProtocolError):
        return "truncated" if "complete message body" in str(error) else "no HTTP"
    return type(error).__name__
