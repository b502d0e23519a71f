"""The page on which a teacher uploads essays, and its server.

The server stands in for HuleEdu's Batch, File and Identity services, and is the browser's only way to RAS.
A process serves with `main(PageSettings.load())`; a program embeds it: `async with Page(settings) as page:`.
"""

from outbox.huleedu.page.service import Page, main
from outbox.huleedu.page.settings import PageSettings

__all__ = ["Page", "PageSettings", "main"]
