"""Only a token of fairlead-viewer, for this engine, signed by the cluster, in time, reads anything."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fairlead.engine.clock import SteadyClock
from fairlead.engine.tokens import Issuer, Tokens, Unauthenticated, audience
from fairlead.errors import KubeError

ISSUER = "https://kubernetes.default.svc.cluster.local"
OURS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
THEIRS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": [audience("team")],
    "sub": "system:serviceaccount:team:fairlead-viewer",
}


def issuer() -> Issuer:
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OURS.public_key())) | {"kid": "k1", "alg": "RS256"}
    return Issuer.parse({"issuer": ISSUER}, {"keys": [key]})


def signed(key: Any = OURS, algorithm: str = "RS256", kid: str = "k1", **changes: Any) -> str:
    now = int(time.time())
    claims = GOOD | {"iat": now, "exp": now + 600} | changes
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm, headers={"kid": kid})


def unsigned() -> str:
    parts = ({"alg": "none", "kid": "k1"}, GOOD | {"iat": 1, "exp": int(time.time()) + 600})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def keyed_with_the_public_key() -> str:
    """HS256 with the public key as the secret: what a verifier that trusts `alg` would take."""
    public = OURS.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = GOOD | {"iat": int(time.time()), "exp": int(time.time()) + 600}
    parts = ({"alg": "HS256", "kid": "k1"}, claims)
    body = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(public, body, "sha256")).rstrip(b"=")
    return (body + b"." + mac).decode()


class Cluster:
    def __init__(self) -> None:
        self.asked = 0

    async def fetch(self) -> Issuer:
        self.asked += 1
        return issuer()


async def test_the_viewers_token_for_this_engine_is_taken() -> None:
    await Tokens(Cluster().fetch, "team", now=SteadyClock()).verify(signed())


@pytest.mark.requirement("A06")
@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="none"),
        pytest.param("nothing", id="no token at all"),
        pytest.param(unsigned(), id="alg none"),
        pytest.param(keyed_with_the_public_key(), id="HS256 with the public key"),
        pytest.param(signed(THEIRS), id="another signer"),
        pytest.param(signed(kid="k2"), id="unknown key"),
        pytest.param(signed(exp=int(time.time()) - 1), id="expired"),
        pytest.param(signed(exp=None), id="never expires"),
        pytest.param(signed(aud=["https://kubernetes.default.svc"]), id="made for the API server"),
        pytest.param(signed(aud=["https://engine.team.fairlead.dev"]), id="made for step pods"),
        pytest.param(signed(aud=[audience("other")]), id="made for another namespace"),
        pytest.param(signed(sub="system:serviceaccount:other:fairlead-viewer"), id="another namespace's viewer"),
        pytest.param(signed(sub="system:serviceaccount:team:default"), id="another account"),
        pytest.param(signed(iss="https://elsewhere"), id="another issuer"),
    ],
)
async def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await Tokens(Cluster().fetch, "team", now=SteadyClock()).verify(token)


@pytest.mark.parametrize("answer", ["{}", '"busy"', '{"keys": "none"}', "{"])
async def test_keys_that_cannot_be_read_could_not_be_had(answer: str) -> None:
    async def fetch() -> Issuer:
        return Issuer.parse({"issuer": ISSUER}, json.loads(answer))

    with pytest.raises(KubeError):
        await Tokens(fetch, "team", now=SteadyClock()).verify(signed())


async def test_strangers_do_not_make_the_engine_ask_for_keys_again_and_again() -> None:
    cluster = Cluster()
    tokens = Tokens(cluster.fetch, "team", now=SteadyClock(), clock=lambda: 100.0)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await tokens.verify(signed(kid="k2"))
    assert cluster.asked == 1


async def test_a_rotated_key_is_found_after_a_while() -> None:
    cluster = Cluster()
    now = [0.0]
    tokens = Tokens(cluster.fetch, "team", now=SteadyClock(), clock=lambda: now[0])
    await tokens.verify(signed())
    now[0] = 60.0
    with pytest.raises(Unauthenticated):
        await tokens.verify(signed(kid="k2"))
    assert cluster.asked == 2
