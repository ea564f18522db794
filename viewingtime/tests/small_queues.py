"""The application with queues that a test can fill."""

from parentalcontrols.wsgi import application
from viewingtime import gathering

__all__ = ["application"]

gathering.MOST_REQUESTS = 20  # type: ignore[misc]
gathering.MOST_REQUESTS_OF_ONE = 5  # type: ignore[misc]
