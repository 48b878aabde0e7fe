"""A claimant for the tests of limiters, and what they look at."""

from __future__ import annotations

from stageflow_actors._tickets import Ticket


class Desk:
    """A claimant that writes down what it is told."""

    def __init__(self):
        self.admissions = []
        self.refusals = []
        self.on_admitted = lambda ticket: None

    def admitted(self, ticket):
        self.admissions.append(ticket.what)
        self.on_admitted(ticket)

    def refused(self, ticket, error):
        self.refusals.append((ticket.what, error))

    def ticket(self, what, *limiters, priority=0):
        return Ticket(self, what, limiters, priority)

    def request(self, what, *limiters, priority=0):
        """Return a ticket that has been requested."""
        ticket = self.ticket(what, *limiters, priority=priority)
        if ticket.request():
            self.admissions.append(what)
        return ticket


def held(limiter):
    """Return how many run and how many wait."""
    statistics = limiter.statistics()
    return statistics.running, statistics.queued
