"""Weather reports over HTTP: a whole FastAPI application around a supervisor."""
