"""`report.html`: what people look at. `page` writes it; `figures` and `tables` make what is on it."""

from hfpipe.reports.html.page import write_group_report, write_report

__all__ = ["write_group_report", "write_report"]
