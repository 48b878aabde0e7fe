"""Written for Python 2."""

try:
    print "hello, world"
except IOError, error:
    raise
