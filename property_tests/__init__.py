"""The laws of the runtime over random graphs, one law a file, against a reference model in plain Python."""
