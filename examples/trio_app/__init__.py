"""Words counted over HTTP: a Starlette application on trio, with the supervisor in the same loop."""
