"""A colon is missing."""


def greet(name)
    return f"hello, {name}"
