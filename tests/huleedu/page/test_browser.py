"""What a teacher sees and does, in a real browser on real servers. The pictures are in `artefacts/page`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest
from selenium.webdriver.common.keys import Keys

from outbox.huleedu.events import SLOT_ASSIGNED, EssaySlotAssignedV1
from tests.huleedu.page.conftest import HuleEdu, OpenWindow
from tests.support.browser import LAPTOP, PHONE, Browser
from tests.support.huleedu import event
from tests.support.kafka import Topics
from tests.support.producing import produce

pytestmark = pytest.mark.slow

PICTURES = Path(__file__).parents[3] / "artefacts" / "page"

DROP = """
const data = new DataTransfer();
data.items.add(new File(["An essay that was dropped."], arguments[0], { type: "text/plain" }));
for (const kind of ["dragenter", "dragover", "drop"]) {
  const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data });
  document.getElementById("drop").dispatchEvent(event);
}
"""
NAMELESS = """
return [...document.querySelectorAll("button, input, select, summary, a")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.innerText || each.labels?.[0]?.innerText || each.ariaLabel))
  .map((each) => each.outerHTML);
"""
COVERED = """
const news = document.getElementById("news").getBoundingClientRect();
return [...document.querySelectorAll("#ras, #way, .batch, #slot-list, #file-list, header")]
  .filter((each) => each.checkVisibility())
  .filter((each) => {
    const box = each.getBoundingClientRect();
    return box.left < news.right && news.left < box.right && box.top < news.bottom && news.top < box.bottom;
  })
  .map((each) => each.id || each.className);
"""
LEAVE = """
const event = new Event("beforeunload", { cancelable: true });
dispatchEvent(event);
return event.defaultPrevented;
"""
AXE = """
const tell = arguments[arguments.length - 1];
const said = (each) => `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html).join(", ")}`;
axe.run().then(({ violations }) => tell(violations.map(said)), (error) => tell([String(error)]));
"""
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def essays(folder: Path, *names: str) -> list[Path]:
    """Files with these names."""
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in names]
    for number, path in enumerate(paths, 1):
        path.write_text("It was a bright cold day in April. " * 100 * number)
    return paths


async def create(window: Browser, slots: int, title: str = "", course: str = "") -> None:
    await window.fill("#slots", str(slots))
    await window.type("[name=title]", title)
    await window.type("[name=course_code]", course)
    await window.click("#create button")
    await window.shows("#batch-title", title or "Batch of")
    await window.shows("#count", f"0 of {slots} filled")


async def complaints(window: Browser) -> list[str]:
    """What the browser complains of, but for RAS not knowing a batch yet."""
    return [line for line in await window.log() if "404" not in line]


async def test_three_files_fill_three_slots(open_window: OpenWindow, tmp_path: Path) -> None:
    window = await open_window("astrid")
    await create(window, 5, "Argumentative essays", "ENG5")
    names = {"Alva Nilsson.txt", "Björn Ek, draft “2”.txt", "essay 3.txt"}
    await window.choose(*essays(tmp_path, *names))
    await window.shows("#count", "3 of 5 filled")
    slots = await window.texts("#slot-list li")
    assert {slot.split("\n")[-1] for slot in slots[:3]} == names
    assert all("free" in slot for slot in slots[3:])
    for file in await window.texts("#file-list li"):
        assert "Slot" in file
        assert "after" in file
    await window.shows("#notices", "assigned to essay slot")
    await window.shows("#ras-body", "The same story as the slots: 3 of 5 essays assigned")
    way = await window.shows("#way-body", "This browser heard of it", "Redis has the notification")
    steps = ("The file was stored", "Kafka has the upload", "ELS assigned slot", "Kafka has the assignment")
    assert all(step in way for step in steps)
    assert "from ELS's commit to this browser" in way
    assert await complaints(window) == []
    await window.picture(PICTURES / "laptop-light.png")
    await window.look(dark=True)
    await window.picture(PICTURES / "laptop-dark.png")
    for dark in (False, True):
        await window.look(size=PHONE, dark=dark)
        assert await window.script(OVERFLOW) == 0
        await window.picture(PICTURES / f"phone-{'dark' if dark else 'light'}.png")
    await window.look()
    # What there is comes back with the page.
    await window.script("location.reload()")
    await window.shows("#count", "3 of 5 filled")
    await window.shows("#ras-body", "The same story")
    assert len(await window.texts("#file-list li")) == 3


async def test_without_redis_it_asks_ras_until_redis_is_back(
    huleedu: HuleEdu, open_window: OpenWindow, tmp_path: Path
) -> None:
    window = await open_window("bilal")
    await create(window, 3)
    await window.choose(*essays(tmp_path, "before.txt"))
    await window.shows("#slot-list li:nth-child(1)", "before.txt")
    await huleedu.redis.kill()
    await window.shows("#connection", "No live connection")
    await window.shows("#banner", "There is no live connection", "asks its server about every three seconds")
    await window.choose(*essays(tmp_path, "meanwhile.txt"))
    await window.shows("#slot-list li:nth-child(2)", "meanwhile.txt")
    await window.shows("#file-list li:nth-child(2)", "Slot 2", "learnt by asking")
    await window.shows("#ras-body", "The same story as the slots: 2 of 3")
    await window.shows("#way-body", "Kafka has the assignment", "by asking")
    await window.shows("#way-body", "Redis is to get the notification")
    await window.picture(PICTURES / "connection-down.png")
    await window.look(size=PHONE, dark=True)
    await window.picture(PICTURES / "connection-down-phone-dark.png")
    await window.look()
    await huleedu.redis.start()
    await window.shows("#connection", "Live")
    assert await window.text("#banner") == ""
    await window.choose(*essays(tmp_path, "afterwards.txt"))
    await window.shows("#file-list li:nth-child(3)", "Slot 3", "after")
    await window.shows("#count", "All 3 slots filled")


async def test_two_windows_two_users(open_window: OpenWindow, tmp_path: Path) -> None:
    astrid, bilal = await asyncio.gather(open_window("astrid"), open_window("bilal"))
    await create(astrid, 2, "Astrid's")
    await create(bilal, 2, "Bilal's")
    await astrid.choose(*essays(tmp_path, "astrid.txt"))
    await bilal.choose(*essays(tmp_path, "bilal.txt"))
    for window, own, other in ((astrid, "astrid", "bilal"), (bilal, "bilal", "astrid")):
        await window.shows("#slot-list li:nth-child(1)", f"{own}.txt")
        await window.shows("#ras-body", f"{own}.txt")
        assert f"{other}.txt" not in await window.text("body")
        assert other.title() + "'s" not in await window.text("body")
    # The same window may be somebody else.
    await bilal.select("#users", "Chloe")
    await bilal.shows("#batch-title", "A new batch")
    assert "bilal.txt" not in await bilal.text("main")


async def test_what_finds_no_slot_or_is_no_essay_says_so(open_window: OpenWindow, tmp_path: Path) -> None:
    window = await open_window("chloe")
    await create(window, 30, "A whole class")
    await window.choose(*essays(tmp_path, *(f"student {number:02}.txt" for number in range(1, 32))))
    await window.shows("#count", "All 30 slots filled")
    await window.shows('#file-list li[data-state="excess"]', "Uploaded, but no slot was left")
    picture, empty, large = essays(tmp_path, "picture.txt", "empty.txt", "large.txt")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    empty.write_bytes(b"")
    large.write_bytes(b"x" * 1_000_001)
    await window.choose(picture, empty, large)
    await window.shows("#file-list li:nth-child(32)", "It is a picture; save the essay as plain text")
    await window.shows("#file-list li:nth-child(33)", "There is nothing in it")
    await window.shows("#file-list li:nth-child(34)", "It is larger than 1 MB")
    await window.shows("#notices", "were not taken")
    await window.click('#file-list li[data-state="excess"] button')
    await window.shows("#way-body", "ELS found no slot left")
    await window.shows("#ras-body", "The same story as the slots: 30 of 30", "1 file without a slot")
    await window.shows("#news", "No slot was left for")
    await window.picture(PICTURES / "excess.png")


async def test_by_keyboard_alone(open_window: OpenWindow, tmp_path: Path) -> None:
    window = await open_window("")
    await window.picture(PICTURES / "login.png")
    assert await window.script(NAMELESS) == []
    await window.press(Keys.TAB, Keys.TAB, Keys.TAB, Keys.ENTER)
    await window.has("#batch-title:focus")
    await window.shows("#connection", "Live")
    await window.shows("#batch-title", "A new batch")
    assert await window.script(NAMELESS) == []
    await window.picture(PICTURES / "new-batch.png")
    await window.script("document.getElementById('users').focus()")
    await window.press(Keys.TAB, "2", Keys.TAB, "By keyboard", Keys.TAB, Keys.ENTER)
    await window.shows("#count", "0 of")
    await window.has("#picker:focus")
    await window.choose(*essays(tmp_path, "typed.txt"))
    await window.shows("#slot-list li:nth-child(1)", "typed.txt")
    assert await window.script(NAMELESS) == []
    await window.press(Keys.TAB, Keys.ENTER)
    await window.shows("#way-body", "typed.txt")
    assert await complaints(window) == []


@pytest.mark.parametrize("name", ["dropped.txt", "<img src=x onerror=alert(1)>.txt"])
async def test_a_dropped_file(open_window: OpenWindow, name: str) -> None:
    window = await open_window("davit")
    await create(window, 1)
    await window.script(DROP, name)
    await window.shows("#slot-list li", name)
    await window.shows("#count", "All 1 slot filled")
    assert await complaints(window) == []


async def test_the_completion_of_the_batch_is_told_and_kept_where_it_covers_nothing(
    open_window: OpenWindow, tmp_path: Path
) -> None:
    window = await open_window("astrid")
    await create(window, 4)
    for number in range(4):
        await window.choose(*essays(tmp_path, f"essay {number}.txt"))
        await window.shows("#notices", f"File “essay {number}.txt” assigned to essay slot {number + 1}")
    await window.shows("#notices", "The batch is complete: all 4 slots are filled")
    await window.shows("#earlier-count", "earlier notice")
    await window.click("#earlier summary")
    await window.shows("#earlier-list", "File “essay 0.txt” assigned to essay slot 1")
    for size in (LAPTOP, PHONE):
        await window.look(size=size)
        assert await window.script(COVERED) == []
        await window.picture(PICTURES / f"notices-{size[0]}.png")
    # None of it is news to who comes back, nor to another user of the window.
    await window.look()
    await window.select("#users", "Bilal")
    await window.shows("#batch-title", "A new batch")
    assert "essay 0.txt" not in await window.script("return document.body.textContent")
    await window.select("#users", "Astrid")
    await window.shows("#count", "All 4 slots filled")
    await window.shows("#ras-body", "4 of 4")
    assert not await window.text("#notices")


async def test_a_tab_that_is_closed_in_mid_upload_warns(
    huleedu: HuleEdu, open_window: OpenWindow, tmp_path: Path
) -> None:
    window = await open_window("astrid")
    await create(window, 1)
    assert not await window.script(LEAVE)
    await huleedu.stop_page()
    await window.choose(*essays(tmp_path, "slow.txt"))
    await window.shows("#file-list li", "The server cannot be reached; trying again")
    assert await window.script(LEAVE)
    await huleedu.start_page()
    await window.shows("#file-list li", "Slot 1")
    assert not await window.script(LEAVE)


async def test_a_failure_to_load_is_told_with_a_way_to_try_again(
    huleedu: HuleEdu, open_window: OpenWindow, tmp_path: Path
) -> None:
    window = await open_window("astrid")
    await create(window, 1, "The first")
    await window.choose(*essays(tmp_path, "there.txt"))
    await window.shows("#file-list li", "Slot 1")
    await window.click("#new summary")
    await create(window, 1, "The second")
    await huleedu.stop_page()
    await window.select("#batches", "The first")
    await window.shows("#trouble", "The files of this batch cannot be loaded: The server cannot be reached.")
    await window.picture(PICTURES / "trouble.png")
    await huleedu.start_page()
    await window.click("#trouble button")
    await window.has("#trouble:empty")
    await window.shows("#file-list li", "there.txt", "Slot 1")
    await huleedu.stop_page()
    await window.select("#users", "Bilal")
    await window.shows("#trouble", "Your batches cannot be loaded")
    await huleedu.start_page()
    await window.select("#users", "Astrid")
    await window.shows("#batch-title", "The second")
    await window.has("#trouble:empty")


async def test_everybody_can_use_it(
    huleedu: HuleEdu, open_window: OpenWindow, axe: str, tmp_path: Path
) -> None:
    """What axe-core has against each view: nothing, in light and dark, on laptop and phone."""
    window = await open_window("")
    assert await barriers(window, axe) == []
    await window.click('#people button[data-user="davit"]')
    await window.shows("#connection", "Live")
    assert await barriers(window, axe) == []
    await create(window, 2, "For everybody", "ENG5")
    picture, *texts = essays(tmp_path, "picture.txt", "one.txt", "two.txt", "three.txt")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    await window.choose(*texts, picture)
    await window.shows("#count", "All 2 slots filled")
    await window.shows('#file-list li[data-state="excess"]', "no slot was left")
    await window.shows('#file-list li[data-state="failed"]', "It is a picture")
    await window.shows("#ras-body", "The same story")
    await window.shows("#way-body", "ELS")
    await window.shows("#earlier-count", "earlier notice")
    await window.script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert await barriers(window, axe) == []
    await huleedu.redis.kill()
    await window.shows("#banner", "There is no live connection")
    assert await barriers(window, axe) == []


async def barriers(window: Browser, axe: str) -> list[str]:
    """What axe-core finds, in every look."""
    found = []
    for dark in (False, True):
        for size in (LAPTOP, PHONE):
            await window.look(size=size, dark=dark)
            look = f"{'dark' if dark else 'light'} {size[0]}"
            found += [f"{look}: {each}" for each in await window.asynchronous(f"{axe};{AXE}")]
    await window.look()
    return found


async def test_a_server_that_is_away_for_a_moment(
    huleedu: HuleEdu, open_window: OpenWindow, tmp_path: Path
) -> None:
    window = await open_window("astrid")
    await create(window, 1)
    await huleedu.stop_page()
    await window.choose(*essays(tmp_path, "patient.txt"))
    await window.shows("#file-list li", "The server cannot be reached; trying again")
    await huleedu.start_page()
    await window.shows("#file-list li", "Slot 1")


async def test_a_notification_that_was_lost_is_made_up_for(kafka: Topics, open_window: OpenWindow) -> None:
    window = await open_window("astrid")
    await create(window, 2)
    await window.shows("#ras-body", "0 of 2 essays assigned")
    status = json.loads(await window.script("return document.querySelector('#ras-body pre').textContent"))
    lost = EssaySlotAssignedV1(
        batch_id=status["batch_id"],
        essay_id=status["essays"][0]["essay_id"],
        file_upload_id=str(uuid4()),
        text_storage_id="text",
        original_file_name="nobody told.txt",
        slot_index=0,
        correlation_id=uuid4(),
    )
    await produce(kafka.bootstrap, SLOT_ASSIGNED, event(SLOT_ASSIGNED, lost), key=lost.batch_id)
    await window.shows("#slot-list li", "nobody told.txt")
    await window.shows("#file-list li", "Slot 1", "learnt by asking")
    assert await window.text("#connection") == "Live"


async def test_uploads_go_on_while_another_batch_is_looked_at(
    huleedu: HuleEdu, open_window: OpenWindow, tmp_path: Path
) -> None:
    window = await open_window("bilal")
    await create(window, 1, "The first")
    await huleedu.stop_page()
    await window.choose(*essays(tmp_path, "patient.txt"))
    await window.shows("#file-list li", "trying again")
    await huleedu.start_page()
    await window.click("#new summary")
    await create(window, 1, "The second")
    assert await window.texts("#file-list li") == []
    await window.select("#batches", "The first")
    await window.shows("#slot-list li", "patient.txt")
    assert len(await window.texts("#file-list li")) == 1


async def test_a_refused_token_is_told_and_can_be_tried_again(
    huleedu: HuleEdu, open_window: OpenWindow
) -> None:
    await huleedu.stop_page()
    await huleedu.start_page(jwt_secret="a secret that the gateway does not know at all")
    window = await open_window("")
    await window.click('#people button[data-user="davit"]')
    await window.shows("#connection", "Not connected")
    await window.shows("#banner", "This page is not told of changes any more: the token was refused.")
    await window.picture(PICTURES / "refused.png")
    await huleedu.stop_page()
    await huleedu.start_page()
    await window.click("#banner button")
    await window.shows("#connection", "Live")
