"""What the checks of `deploy/` share: an engine, the images, and the whole system running in containers."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping

import pytest

from outbox.devstack.server import free_port
from tests.deploy import images
from tests.deploy.engine import Engine, running_engine

READY_SECONDS = 600.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nobody starts containers who did not ask for them, by `-m deploy`."""
    if config.option.markexpr != "deploy":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("deploy")])
        items[:] = [item for item in items if not item.get_closest_marker("deploy")]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Docker engine."""
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="session")
def built(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images, in the compose file's variables."""
    return images.build(engine, tmp_path_factory.mktemp("images"))


class System:
    """The compose file, running."""

    def __init__(self, engine: Engine, variables: Mapping[str, str]) -> None:
        self.engine = engine
        self.variables = variables

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Give a command about the system; what it printed."""
        where = ("--file", str(images.DEPLOY / "compose.yaml"), "--project-name", "outbox-check")
        return self.engine.compose(*where, *arguments, check=check, **self.variables)

    def container(self, service: str) -> dict[str, object]:
        """What the engine knows of a service's container."""
        name = self.compose("ps", "--quiet", service).split()[-1]
        (found,) = json.loads(self.engine.docker("inspect", name))
        assert isinstance(found, dict)
        return found

    def health(self, service: str) -> str:
        """How a service's container is."""
        state = self.container(service)["State"]
        assert isinstance(state, dict)
        return str(state["Health"]["Status"])

    def wait_until_healthy(self) -> None:
        """Return when every service that stays says that it is well."""
        waiting = {name for name, service in images.services().items() if _stays(service)}
        until = time.monotonic() + READY_SECONDS
        while waiting := {name for name in waiting if self.health(name) != "healthy"}:
            if time.monotonic() > until:
                logs = self.compose("logs", "--tail=20", *waiting)
                pytest.fail(f"not well after {READY_SECONDS:g} s: {waiting}\n{logs}", pytrace=False)
            time.sleep(1.0)


def _stays(service: Mapping[str, object]) -> bool:
    return service.get("restart") != "no" and "profiles" not in service


@pytest.fixture(scope="session")
def system(engine: Engine, built: Mapping[str, str]) -> Iterator[System]:
    """The whole system, from its compose file."""
    secret = {name: secrets.token_hex(32) for name in ("POSTGRES_PASSWORD", "RAS_API_KEY", "JWT_SECRET")}
    ports = {name: str(free_port()) for name in ("PAGE_PORT", "GATEWAY_PORT")}
    system = System(engine, {**built, **secret, **ports})
    try:
        system.compose("up", "--detach", "--no-build")
        system.wait_until_healthy()
        yield system
    finally:
        system.compose("down", "--volumes", "--timeout", "30")
