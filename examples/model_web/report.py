"""What came of it, as a table."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .traffic import Bill, Traffic

COLUMNS = {200: "answered", 503: "refused", 504: "too late", 500: "crashed", 408: "cut off"}


def draw_report(traffic: Traffic) -> RenderableType:
    """Return what became of all requests, what the server did about it, and whether that adds up."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("clients")
    headings = ["sent", *(f"{name}\n{status}" for status, name in COLUMNS.items()), "hung up", "lost", "p50", "p99"]
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom")
    bills = traffic.bills
    for kind, bill in bills.items():
        table.add_row(kind, *_draw_bill(bill))
    total = Bill(
        sum(bill.sent for bill in bills.values()),
        hung_up=sum(bill.hung_up for bill in bills.values()),
        lost=sum(bill.lost for bill in bills.values()),
    )
    for bill in bills.values():
        total.statuses.update(bill.statuses)
        total.seconds += bill.seconds
    table.add_section()
    table.add_row("all", *_draw_bill(total), style="bold")
    return Group("", table, "", *(Text(fact) for fact in _list_facts(traffic, total.statuses[200])))


def _draw_bill(bill: Bill) -> list[str]:
    counts = [bill.sent, *(bill.statuses[status] for status in COLUMNS), bill.hung_up, bill.lost]
    return [*(f"{count:,}" if count else "·" for count in counts), *(_percentile(bill, share) for share in (50, 99))]


def _percentile(bill: Bill, share: int) -> str:
    ordered = sorted(bill.seconds)
    return f"{ordered[len(ordered) * share // 100] * 1000:,.0f} ms" if ordered else "·"


def _list_facts(traffic: Traffic, answered: int) -> list[str]:
    right = sum(bill.right for bill in traffic.bills.values())
    healed = sum(bill.healed for bill in traffic.bills.values())
    share = f" ({right / answered:.1%})" if answered else ""
    facts = [
        f"languages  {right:,} of {answered:,} found correctly{share}",
        f"workers    {traffic.crashes:,} crashes, over which {healed:,} requests were healed: another worker answered",
        f"model      with its workers closed and opened again {traffic.reopened:,} x, because of too many crashes",
    ]
    return [*facts, f"ledger     {traffic.ledger}: {'balanced' if traffic.ledger.balanced else 'NOT balanced'}"]
