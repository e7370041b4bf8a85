"""Serial streams over pseudo-terminals: both ends are serial devices to pyserial."""

import pytest
import trio
import trio.testing

from loadtest.meters.serial_bus import serial_bus
from node.lmn.serial_link import open_serial


async def receive(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(120):
        while len(data) < size:
            data += await stream.receive_some()
    return data


async def test_bytes_pass_in_both_directions_unchanged() -> None:
    everything = bytes(range(256)) * 40
    async with (
        serial_bus() as (left, right),
        open_serial(left, 115200) as a,
        open_serial(right, 115200) as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.send_all, everything)
        assert await receive(b, len(everything)) == everything
        await b.send_all(everything[:300])
        assert await receive(a, 300) == everything[:300]


async def test_seven_bits_even_parity_is_what_the_line_carries() -> None:
    async with serial_bus() as (left, right), open_serial(left, 300, 7, "E") as a, open_serial(right, 300) as raw:
        await a.send_all(b"/?!\r\n")
        assert await receive(raw, 5) == bytes([0xAF, 0x3F, 0x21, 0x8D, 0x0A])
        await raw.send_all(bytes([0xAF, 0x2F, 0x8D]))
        assert await receive(a, 3) == b"/\0\r"
        assert a.parity_error_count == 1


async def test_parity_that_a_pseudo_terminal_cannot_have_is_no_obstacle() -> None:
    async with (
        serial_bus() as (left, right),
        open_serial(left, 2400, 8, "E") as a,
        open_serial(right, 2400, 8, "E") as b,
    ):
        await a.send_all(b"\x10\x40\x01\x41\x16")
        assert await receive(b, 5) == b"\x10\x40\x01\x41\x16"


async def test_the_speed_changes_after_the_last_byte() -> None:
    async with serial_bus() as (left, _), open_serial(left, 300, 7, "E") as a:
        await a.send_all(b"\x06050\r\n")
        await a.set_baudrate(9600)
        assert a.baudrate == 9600


async def test_every_participant_of_a_bus_hears_the_others() -> None:
    async with (
        serial_bus(3) as paths,
        open_serial(paths[0]) as a,
        open_serial(paths[1]) as b,
        open_serial(paths[2]) as c,
    ):
        await a.send_all(b"hello")
        assert await receive(b, 5) == b"hello"
        assert await receive(c, 5) == b"hello"


async def test_closed_is_closed_and_wakes_the_reader() -> None:
    async with serial_bus() as (left, _):
        a = open_serial(left)

        async def reader() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await a.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            await a.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await a.send_all(b"x")


def test_a_device_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match="no-such-device"):
        open_serial("/dev/no-such-device")


async def test_a_device_belongs_to_one_process() -> None:
    async with serial_bus() as (left, _), open_serial(left):
        with pytest.raises(OSError, match="exclusively lock"):
            open_serial(left)
