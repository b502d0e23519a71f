"""Tokens signed with a private key: the JWKS, its rotation, and attempts to confuse algorithms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.huleedu.conftest import StartGateway
from tests.support.gateway import claims, client, closing

CANNOT_BE_CHECKED = (1013, "tokens cannot be checked now, try again later")
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """An identity service: keys by id, and a JWKS that says how often it was asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {}
        self.asked = 0
        self.broken = False
        self.server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/jwks.json"

    def add(self, key_id: str, kind: str = "RSA") -> None:
        self.keys[key_id] = (
            rsa.generate_private_key(65_537, 2_048)
            if kind == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )

    def token(self, key_id: str | None, *, key: PrivateKey | None = None, algorithm: str = "RS256") -> str:
        return jwt.encode(
            claims(), key or self.keys[key_id or ""], algorithm, {"kid": key_id} if key_id else None
        )

    def document(self, ids: Sequence[str] | None = None) -> str:
        return json.dumps({"keys": [self._public(key_id) for key_id in ids or self.keys]})

    def _public(self, key_id: str) -> dict[str, Any]:
        match self.keys[key_id].public_key():
            case rsa.RSAPublicKey() as public:
                return {**RSAAlgorithm.to_jwk(public, as_dict=True), "kid": key_id, "use": "sig"}
            case public:
                return {**ECAlgorithm.to_jwk(public, as_dict=True), "kid": key_id}

    def answer(self, connection: ServerConnection, _: Request) -> Response:
        self.asked += 1
        if self.broken:
            return connection.respond(HTTPStatus.BAD_GATEWAY, "broken")
        return connection.respond(HTTPStatus.OK, self.document())


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    issuer.add("first")

    async def nothing(_: ServerConnection) -> None:
        pass

    async with serve(nothing, "127.0.0.1", 0, process_request=issuer.answer) as issuer.server:
        yield issuer


async def accepted(gateway: Any, bearer: str) -> bool:
    async with client(gateway, bearer) as socket:
        try:
            await (await socket.ping())
        except ConnectionClosed:
            assert await closing(socket) in ((4401, "signature"), CANNOT_BE_CHECKED)
            return False
        return True


async def by_url(start_gateway: StartGateway, issuer: Issuer, **changed: Any) -> Any:
    return await start_gateway(jwt_secret=None, jwks=issuer.url, **changed)


async def test_both_kinds_of_keys(start_gateway: StartGateway, issuer: Issuer) -> None:
    issuer.add("curve", "EC")
    gateway = await by_url(start_gateway, issuer)
    assert await accepted(gateway, issuer.token("first"))
    assert await accepted(gateway, issuer.token("curve", algorithm="ES256"))


async def test_keys_may_be_in_a_file(start_gateway: StartGateway, issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(issuer.document())
    gateway = await start_gateway(jwt_secret=None, jwks=str(tmp_path / "jwks.json"))
    assert await accepted(gateway, issuer.token("first"))
    assert await accepted(gateway, issuer.token(None, key=issuer.keys["first"]))


@pytest.mark.parametrize("odd", [5, {"kty": "new"}, {"kty": "RSA", "n": 5}, {"kid": []}])
async def test_a_key_that_cannot_be_read_keeps_nobody_from_the_others(
    start_gateway: StartGateway, issuer: Issuer, tmp_path: Path, odd: Any
) -> None:
    document = json.loads(issuer.document())
    if isinstance(odd, dict):
        odd = {**document["keys"][0], "kid": "odd", **odd}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [odd, *document["keys"]]}))
    gateway = await start_gateway(jwt_secret=None, jwks=str(tmp_path / "jwks.json"))
    assert await accepted(gateway, issuer.token("first"))


async def test_algorithms_cannot_be_confused(start_gateway: StartGateway, issuer: Issuer) -> None:
    issuer.add("curve", "EC")
    gateway = await by_url(start_gateway, issuer)
    public = issuer.keys["first"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    mac = jwt.get_algorithm_by_name("HS256")
    unsigned = jwt.encode(claims(), "", "none", {"kid": "first"})
    body = ".".join(
        [jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"first"}').decode(), unsigned.split(".")[1]]
    )
    public_key_as_secret = f"{body}.{jwt.utils.base64url_encode(mac.sign(body.encode(), public)).decode()}"
    assert not await accepted(gateway, public_key_as_secret)
    assert not await accepted(gateway, unsigned)
    assert not await accepted(gateway, issuer.token("first", key=issuer.keys["curve"], algorithm="ES256"))
    assert not await accepted(gateway, issuer.token("first", algorithm="RS512"))
    assert not await accepted(gateway, issuer.token("first", key=rsa.generate_private_key(65_537, 2_048)))
    assert not await accepted(gateway, issuer.token(None, key=issuer.keys["first"]))


async def test_a_new_key_is_fetched_when_a_token_names_it(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = await by_url(start_gateway, issuer, jwks_cooldown_seconds=0.001)
    issuer.add("second")
    assert await accepted(gateway, issuer.token("second"))
    assert await accepted(gateway, issuer.token("first"))
    assert issuer.asked == 2


async def test_a_withdrawn_key_is_forgotten(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = await by_url(start_gateway, issuer, jwks_cooldown_seconds=0.001, jwks_max_age_seconds=0.01)
    withdrawn = issuer.token("first")
    issuer.add("second")
    del issuer.keys["first"]
    while await accepted(gateway, withdrawn):
        pass


async def test_unknown_keys_do_not_flood_the_issuer(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = await by_url(start_gateway, issuer)
    for number in range(5):
        assert not await accepted(gateway, issuer.token(f"made up {number}", key=issuer.keys["first"]))
    assert issuer.asked == 1


async def refusal(gateway: Any, bearer: str) -> tuple[int | None, str]:
    async with client(gateway, bearer) as socket:
        return await closing(socket)


async def test_an_unknown_key_is_1013_while_a_refresh_is_suppressed(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    bogus = issuer.token("bogus", key=issuer.keys["first"])
    gateway = await by_url(start_gateway, issuer)
    assert await refusal(gateway, bogus) == CANNOT_BE_CHECKED


async def test_an_unknown_key_is_1013_while_a_refresh_fails(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = await by_url(start_gateway, issuer, jwks_cooldown_seconds=0.001)
    issuer.add("second")
    rotated, bogus = issuer.token("second"), issuer.token("bogus", key=issuer.keys["first"])
    issuer.broken = True
    for bearer in (bogus, rotated):
        assert await refusal(gateway, bearer) == CANNOT_BE_CHECKED
    issuer.broken = False
    assert await accepted(gateway, rotated)
    assert await refusal(gateway, bogus) == (4401, "signature")


async def test_a_key_replaced_under_an_old_id_is_fetched_again(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = await by_url(start_gateway, issuer, jwks_cooldown_seconds=0.3)
    old = issuer.token("first")
    assert await accepted(gateway, old)
    issuer.add("first")
    while not await accepted(gateway, issuer.token("first")):
        pass
    while (found := await refusal(gateway, old)) == CANNOT_BE_CHECKED:
        pass
    assert found == (4401, "signature")


async def test_the_last_keys_count_while_the_issuer_is_away(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = await by_url(start_gateway, issuer, jwks_cooldown_seconds=0.001, jwks_max_age_seconds=0.01)
    issuer.broken = True
    asked = issuer.asked
    while issuer.asked < asked + 3:
        assert await accepted(gateway, issuer.token("first"))
