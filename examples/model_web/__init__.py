"""The scenery of `model_server.py`: HTTP, clients of every kind, and what they print."""
