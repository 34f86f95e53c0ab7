"""The key goes into one header and nowhere else."""

import logging
import traceback

import platform_stub as does
import pytest
from platform_stub import Behaviour, Stub

from reconciler.errors import PlatformError, Rejected
from reconciler.platforms.openai import OpenAI

CANARY = "sk-canary-4f1c9e7b2d"
ECHO = does.error("invalid_request", f"Incorrect API key provided: {CANARY} (Bearer {CANARY})")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500])
def test_no_error_or_log_carries_the_key_even_if_the_platform_echoes_it(
    stub: Stub, waits, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    platform = OpenAI(stub.url, key=CANARY, clock=waits.clock())
    stub.on("GET files", does.says(status, ECHO))
    stub.on("POST files", does.says(status, ECHO))
    told = [repr(platform)]

    for call in (lambda: platform.list("files"), lambda: platform.create("files", {"a": 1}, key="k")):
        with pytest.raises(PlatformError) as caught:
            call()
        told += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]

    assert f"Bearer {CANARY}" == stub.requests("GET files")[0].headers["authorization"]
    assert not [text for text in [*told, caplog.text] if CANARY in text]


def drops_after_echo(to: does.Handler) -> None:
    """A status line that is no HTTP, made of the key."""
    to.wfile.write(f"HTTP/1.1 {CANARY}\r\n\r\n".encode())
    to.hang_up()


@pytest.mark.parametrize("behaviour", [does.drops, drops_after_echo])
def test_no_transport_error_carries_the_key(stub: Stub, waits, behaviour: Behaviour) -> None:
    platform = OpenAI(stub.url, key=CANARY, clock=waits.clock())
    stub.on("POST files", behaviour)

    with pytest.raises(PlatformError) as caught:
        platform.create("files", {"a": 1}, key="k")

    assert CANARY not in str(caught.value)


def test_a_wrong_key_is_told_by_the_name_of_its_variable(stub: Stub) -> None:
    platform = OpenAI(stub.url, name="shared", key=CANARY, key_env="SHARED_KEY")
    stub.on("GET files", does.says(401, does.error("invalid_api_key")))

    with pytest.raises(Rejected, match=r"shared .* does not accept the key in SHARED_KEY; set SHARED_KEY"):
        platform.list("files")


@pytest.mark.parametrize("key", [f"{CANARY}\nx: y", f"{CANARY} two", f"{CANARY}é"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(stub: Stub, key: str) -> None:
    with pytest.raises(Rejected, match="the key in OPENAI_API_KEY") as caught:
        OpenAI(stub.url, key=key)

    assert CANARY not in str(caught.value)


def test_a_key_with_a_newline_at_its_end_is_the_key(stub: Stub) -> None:
    stub.objects["models"] = []

    OpenAI(stub.url, key=f"{CANARY}\n").list("models")

    assert f"Bearer {CANARY}" == stub.requests("GET models")[0].headers["authorization"]


def test_credentials_in_the_address_are_not_shown(stub: Stub, waits) -> None:
    stub.on("GET files", does.says(500, does.error(None)))
    platform = OpenAI(stub.url.replace("http://", f"http://user:{CANARY}@"), clock=waits.clock())

    with pytest.raises(PlatformError) as caught:
        platform.list("files")

    assert not [text for text in (str(caught.value), repr(platform)) if CANARY in text]
