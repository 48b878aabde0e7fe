"""`python -m pykka_app`."""

from .app import main

main(prog_name="pykka_app")
