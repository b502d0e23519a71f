"""The browser's way to RAS, and the demo: the page on which a teacher uploads essays.

The demo stands in for HuleEdu's Batch, File and Identity services, and is off unless it is switched on.
A process serves with `main(PageSettings.load())`; a program embeds it: `async with Page(settings) as page:`.
"""

from outbox.huleedu.page.service import Page, main
from outbox.huleedu.page.settings import PageSettings

__all__ = ["Page", "PageSettings", "main"]
