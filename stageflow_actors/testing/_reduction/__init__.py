"""Partial order reduction: of schedules that cannot be told apart, one is run.

`search` decides what is run, and is pure; `events` says which steps depend on which. The rest finds out what a step
touched: `classes` has objects tell of their attributes, `heap` compares what cannot tell, `frames` and `code` say what
a task could reach, `kinds` and `modules` whether the state of a thing can be seen at all, `objects` and `shared` keep
the names of things, and `tracker` puts it together.
"""
