"""What `sniff` says where a line carries nothing readable."""

import pytest
import trio
import trio.testing

from node.lmn.profiles import profile_of_url
from protocol.errors import RemoteProtocolError
from stromkreis.hints import hint
from stromkreis.live_source import LiveByteSource
from stromkreis.reading_table import ReadingTable

SERIAL = "serial:///dev/ttyUSB0?baud=2400&frame=8E1"


class Line(trio.abc.Stream):
    """Says each of these in turn; None is silence until whoever listens has had enough."""

    def __init__(self, says: list[bytes | None]) -> None:
        self._says = says

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes
        said = self._says.pop(0)
        return await trio.sleep_forever() if said is None else said

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("said", "decodes", "told"),
    [
        (b"", False, "nothing heard for 10 s (baud=2400, frame=8E1): what must be asked is silent until --ask"),
        (b"/SKR5", False, "5 bytes in 10 s and no telegram of sml in them (baud=2400, frame=8E1)"),
        (b"/SKR5", True, ""),
    ],
)
async def test_a_line_of_which_nothing_comes_is_told(
    said: bytes, decodes: bool, told: str, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    del autojump_clock
    source = LiveByteSource(Line([said, None, b""] if said else [None, b""]), "sml", SERIAL)

    def listen() -> bytes:
        return b"".join(source.noted(source.chunks()) if decodes else source.chunks())

    assert await trio.to_thread.run_sync(listen) == said
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "the link has ended"
    assert [line[: len(told)] for line in lines[:-1]] == ([told] if told else [])
    assert not said or decodes or lines[0].endswith("They begin 2f 53 4b 52 35")


def test_what_to_try_names_the_line_and_the_address_as_they_are_set() -> None:
    mbus = profile_of_url(f"mbus+{SERIAL}&address=7", "meter", {})
    assert "baud=2400, frame=8E1" in hint("no_answer", mbus)
    assert "(7)" in hint("no_answer", mbus)
    assert "--search" in hint("no_answer", mbus)
    over_tcp = profile_of_url("sml+tcp://127.0.0.1:1", "meter", {})
    assert "baud" not in hint("meter_silent", over_tcp)
    assert hint("bad_checksum", over_tcp) == ""


def test_the_board_shows_the_latest_fault_in_words() -> None:
    table = ReadingTable(lambda reason: f"try {reason}")
    table.add(RemoteProtocolError("no_key", "an encrypted telegram [bold]"))
    assert str(table.table().caption).endswith("latest: no_key: an encrypted telegram \\[bold]\ntry no_key")
