"""Chromium without a window, driven by a test: what a person would do with the page, and would see."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium.common import ElementNotInteractableException, NoSuchElementException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tests.support import programs, servers
from tests.support.waiting import PATIENCE, until

T = TypeVar("T")


LAPTOP, PHONE = (1280, 860), (390, 844)

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)


class Browser:
    """One window with a profile of its own. Selenium waits in threads, so that the servers here can work."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    async def open(self, url: str) -> None:
        """Go there."""
        await asyncio.to_thread(self._driver.get, url)

    async def back(self) -> None:
        """Go back to the page before."""
        await asyncio.to_thread(self._driver.back)

    async def script(self, body: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; what it returns."""
        return await asyncio.to_thread(self._driver.execute_script, body, *arguments)

    async def asynchronous(self, body: str, *arguments: Any) -> Any:
        """Run JavaScript that calls its last argument with what it has to say; what that is."""
        return await asyncio.to_thread(self._driver.execute_async_script, body, *arguments)

    async def text(self, selector: str) -> str:
        """What can be read in the first element of this selector; nothing if there is none."""
        found = await self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return str(found)

    async def texts(self, selector: str) -> list[str]:
        """The same of each."""
        found = await self.script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)", selector
        )
        return list(found)

    async def shows(self, selector: str, *words: str, deadline: float = PATIENCE) -> str:
        """Wait until the element can be seen and these words read in it; what can be read then."""
        said = ""

        async def can_be_read() -> bool:
            nonlocal said
            said = await self.text(selector)
            return bool(said) and all(word in said for word in words)

        try:
            await until(can_be_read, deadline=deadline)
        except TimeoutError:
            raise AssertionError(
                f"{selector} does not show {words} but {said!r}; {await self.log()}"
            ) from None
        return said

    async def has(self, selector: str) -> None:
        """Wait until there is such an element."""
        await self._on(selector, lambda element: element)

    async def click(self, selector: str) -> None:
        """Click it."""
        await self._on(selector, WebElement.click)

    async def type(self, selector: str, *keys: str) -> None:
        """Press keys in it; a file input takes paths."""
        await self._on(selector, lambda element: element.send_keys(*keys))

    async def fill(self, selector: str, value: str) -> None:
        """Replace what is in a field."""
        await self._on(selector, WebElement.clear)
        await self.type(selector, value)

    async def select(self, selector: str, option: str) -> None:
        """Choose an option, by what is written there."""
        await self._on(selector, lambda element: Select(element).select_by_visible_text(option))

    async def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        await asyncio.to_thread(ActionChains(self._driver).send_keys(*keys).perform)

    async def choose(self, *paths: Path) -> None:
        """Choose files."""
        await self.type("#picker", "\n".join(map(str, paths)))

    async def look(self, *, size: tuple[int, int] = LAPTOP, dark: bool = False) -> None:
        """Be a window of this size, for somebody who likes it dark or light, and without motion."""
        await self._devtools(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 2, "mobile": size == PHONE},
        )
        likes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in likes.items()]
        await self._devtools("Emulation.setEmulatedMedia", {"features": features})

    async def picture(self, file: Path) -> None:
        """A picture of the whole page."""
        options = {"format": "png", "captureBeyondViewport": True}
        taken = await self._devtools("Page.captureScreenshot", options)
        await asyncio.to_thread(_keep, file, base64.b64decode(taken["data"]))

    async def has_network(self, *, there: bool = True) -> None:
        """Be a machine with a network, or without."""
        options = {"offline": not there, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self._devtools("Network.enable", {})
        await self._devtools("Network.emulateNetworkConditions", options)

    async def stands_still(self, *, still: bool = True) -> None:
        """Freeze the page, or let it go on."""
        await self._devtools("Page.setWebLifecycleState", {"state": "frozen" if still else "active"})

    async def log(self) -> Sequence[str]:
        """What the browser has complained of since it was asked last."""
        entries = await asyncio.to_thread(self._driver.get_log, "browser")
        return [entry["message"] for entry in entries]

    async def _on(self, selector: str, do: Callable[[WebElement], T]) -> T:
        """As soon as it is there and takes it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await asyncio.to_thread(
                        lambda: do(self._driver.find_element(By.CSS_SELECTOR, selector))
                    )
                except (NoSuchElementException, ElementNotInteractableException):
                    await asyncio.sleep(0.05)

    async def _devtools(self, command: str, options: Mapping[str, Any]) -> Any:
        return await asyncio.to_thread(self._driver.execute_cdp_cmd, command, dict(options))


def _keep(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Browser]:
    """A window, within the block."""
    chromium, driver = programs.find("chromium"), programs.find("chromedriver")
    if chromium is None or driver is None:
        servers.missing("chromium and chromedriver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(executable_path=driver)
    started = await asyncio.to_thread(Chrome, options=options, service=service)
    try:
        yield Browser(started)
    finally:
        await asyncio.to_thread(started.quit)
