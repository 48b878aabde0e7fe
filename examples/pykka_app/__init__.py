"""A synchronous application of pykka actors with a supervisor among them: it keeps a catalogue of Python sources.

Run it in the folder `examples`:

    python -m pykka_app
    python -m pykka_app path/to/a/folder --database catalogue.db

It scans the files of a folder, by default of a package of the standard library, and stores what it finds in an SQLite
file, with which the next scan begins: what has not changed is not read again. There are three pykka actors. The
`SupervisorActor` runs the scan. `Display` hears of its events and prints the progress. `Catalogue` owns the SQLite
handle, which only one thread may use: a resident actor of the supervisor, and the last stage of the scan. Ctrl-C ends
the scan, stores what had been read, and stops everything in order.
"""
