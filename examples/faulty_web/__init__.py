"""The scenery of `flaky_services.py` and `crawl.py`: a web server with faults, a client, and what they print."""
