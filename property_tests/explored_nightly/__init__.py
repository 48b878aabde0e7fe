"""Programs of the runtime that are explored at nightly size, beside the race tests that are explored in every run."""
