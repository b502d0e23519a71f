"""The Result Aggregator Service: keeps what events say of essays, and tells how a batch is.

A process listens with `main(RasSettings.load())`; a program embeds it: `async with Ras(settings) as ras:`.
"""

from outbox.huleedu.ras.answer import BatchStatus, EssayStatus, OverallStatus
from outbox.huleedu.ras.service import Ras, main
from outbox.huleedu.ras.settings import RasSettings

__all__ = ["BatchStatus", "EssayStatus", "OverallStatus", "Ras", "RasSettings", "main"]
