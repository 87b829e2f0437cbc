"""Who reads, and who calls HTTP triggers: a token that was made for this engine and this use, and nothing else.

The API server's service proxy strips `Authorization`, so readers send the token as `X-Fairlead-Token`. It is verified
here with the cluster's public keys: signature, issuer, audience, subject, expiry. Whoever may create a token of
`fairlead-viewer` may read runs in that namespace; nothing else is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from fairlead.errors import FairleadError, KubeError

VIEWER = "fairlead-viewer"
ALGORITHMS = ("RS256", "ES256")
REFRESH_SECONDS = 10.0
SKEW_SECONDS = 60.0
"""By so much the clock of who made a token may be ahead of ours."""


class Unauthenticated(FairleadError):
    """The token does not prove that its bearer may read. The reason stays in the log."""

    reason = "Unauthenticated"


@dataclass(frozen=True, slots=True)
class Pod:
    """Whom a pod's token speaks for: the user of its account, and the pod's UID."""

    subject: str
    uid: str


def audience(namespace: str, use: str = "view") -> str:
    """Return the audience that a token must be made for.

    Of a reader `view`, of who calls an HTTP trigger `hooks`, of a step's pod none: only kubelets get tokens for that.
    """
    return f"https://engine.{namespace}.fairlead.dev" + (f"/{use}" if use else "")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs the cluster's tokens: the issuer's name and its public keys by id."""

    name: str
    keys: Mapping[str, jwt.PyJWK]

    @classmethod
    def parse(cls, configuration: Mapping[str, Any], key_set: Mapping[str, Any]) -> Issuer:
        """Read what `/.well-known/openid-configuration` and `/openid/v1/jwks` answer."""
        keys = (jwt.PyJWK.from_dict(key) for key in key_set["keys"])
        return cls(configuration["issuer"], {key.key_id: key for key in keys if key.key_id})


class Tokens:
    """Verifies tokens that were made for this engine and one use."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Issuer]],
        namespace: str,
        *,
        use: str = "view",
        now: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how the issuer is asked for.

        Args:
            fetch: asks the cluster.
            namespace: the engine's.
            use: what the tokens are for, as in `audience`.
            now: Unix ms by the clock of the API server, which made the tokens.
            clock: seconds; bounds how often the issuer is asked for.
        """
        self._fetch = fetch
        self._audience = audience(namespace, use)
        self._subject = f"system:serviceaccount:{namespace}:{VIEWER}"
        self._now = now
        self._clock = clock
        self._issuer: Issuer | None = None
        self._fetched_at = float("-inf")

    async def verify(self, token: str) -> None:
        """Return if the token proves that its bearer may read.

        Raises:
            Unauthenticated: it does not.
            KubeError: the cluster's keys could not be had.
        """
        if await self.subject(token) != self._subject:
            raise Unauthenticated("the token is another account's")

    async def subject(self, token: str) -> str:
        """Return the user whose token it is. Raises as `_claims`."""
        return str((await self._claims(token))["sub"])

    async def pod(self, token: str) -> Pod:
        """Return the pod that the token is bound to. Raises as `_claims`."""
        claims = await self._claims(token)
        bound = claims.get("kubernetes.io")
        pod = bound.get("pod") if isinstance(bound, dict) else None
        uid = pod.get("uid") if isinstance(pod, dict) else None
        if not isinstance(uid, str) or not uid:
            raise Unauthenticated("the token is not bound to a pod")
        return Pod(str(claims["sub"]), uid)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """Return what a token says, once that is known to be true.

        Raises:
            Unauthenticated: it is none, or not for this engine and this use.
            KubeError: the cluster's keys could not be had.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(str(header.get("kid", "")))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer.name if self._issuer else "",
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub"],
                    "verify_exp": False,  # these would go by the node's clock: `_in_time` goes by the cluster's
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, UnicodeError) as error:
            raise Unauthenticated(type(error).__name__) from error
        self._in_time(claims)
        return claims

    def _in_time(self, claims: Mapping[str, Any]) -> None:
        now = self._now() / 1000
        try:
            begins, ends = max(float(claims[key]) for key in ("iat", "nbf") if key in claims), float(claims["exp"])
        except (TypeError, ValueError):
            raise Unauthenticated("the token's times are none") from None
        if not now < ends:
            raise Unauthenticated(f"the token ended {now - ends:.0f} s ago")
        if not begins <= now + SKEW_SECONDS:
            raise Unauthenticated(f"ClockSkew: the token begins in {begins - now:.0f} s; the cluster's clocks differ")

    async def _key(self, key_id: str) -> jwt.PyJWK:
        if (self._issuer is None or key_id not in self._issuer.keys) and self._may_fetch():
            self._fetched_at = self._clock()
            try:
                self._issuer = await self._fetch()
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise KubeError(0, "what the API server says of its keys cannot be read") from error
        key = self._issuer.keys.get(key_id) if self._issuer else None
        if key is None or key.algorithm_name not in ALGORITHMS:
            raise Unauthenticated("the token is signed by nobody we know")
        return key

    def _may_fetch(self) -> bool:
        """Tell whether the keys may be asked for again: strangers' tokens must not become a load on the API server."""
        return self._issuer is None or self._clock() - self._fetched_at >= REFRESH_SECONDS
