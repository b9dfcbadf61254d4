"""Penstock: a multi-tenant gateway for large language models.

The path of one request is told in `gateway.edge`; `gateway.app` is where the stages meet.
"""

__version__ = "0.1.0"
