from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

import outbox
from outbox import Message
from outbox.message import Sent


def test_a_message_is_kept_as_it_was_made() -> None:
    message = Message(type="t", sink="kafka", destination="d", payload=b"")
    with pytest.raises(FrozenInstanceError):
        message.payload = b"else"  # type: ignore[misc]  # as who has no checker does
    assert message == Message(type="t", sink="kafka", destination="d", payload=b"")


def test_its_fields_are_named() -> None:
    with pytest.raises(TypeError):
        Message("t", "kafka", "d", b"")  # type: ignore[call-arg]  # the same


def test_two_messages_share_no_headers() -> None:
    one, other = (Message(type="t", sink="kafka", destination="d", payload=b"") for _ in range(2))
    assert one.headers == {}
    assert one.headers is not other.headers


def test_what_the_sink_does_not_tell_is_none() -> None:
    assert Sent() == (None, None, None)


@pytest.mark.parametrize("module", ["outbox.errors", "outbox.message", "outbox.policy"])
def test_the_vocabulary_needs_only_the_standard_library(module: str) -> None:
    # The package's own __init__ is put aside: it imports the writer.
    program = f"""
import sys, types
package = types.ModuleType("outbox")
package.__path__ = {list(outbox.__path__)}
sys.modules["outbox"] = package
before = set(sys.modules)
import {module}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(new - set(sys.stdlib_module_names) - {{"outbox"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "[]\n"
