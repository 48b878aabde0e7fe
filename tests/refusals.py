"""How the tests of refusals get at a message."""

from __future__ import annotations

import pytest

from stageflow_actors import PipelineValidationError


async def refusal(call, *args, **options):
    """Return the message with which something is refused."""
    with pytest.raises(PipelineValidationError) as caught:
        await call(*args, **options)
    return str(caught.value)
