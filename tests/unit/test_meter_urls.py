"""From a gateway's configuration to its meters' profiles: links, names, and keys that are never repeated."""

import pytest
from pydantic import SecretStr

from node.config import MeteringLogConfig
from node.configured import meter_profiles, retention_of_meters
from node.gateway_config import GatewayConfig
from node.lmn.profiles import ANY_METER
from node.metering.retention import Retention
from protocol.errors import StromkreisError

KEY = "00112233445566778899aabbccddeeff"


def gateway(*meters: str, **keys: dict[str, str]) -> GatewayConfig:
    secret = {name: {purpose: SecretStr(key) for purpose, key in each.items()} for name, each in keys.items()}
    return GatewayConfig(id="ESTK0000000001", meters=meters, keys=secret)


def test_what_belongs_to_the_meter_leaves_the_link() -> None:
    first, second, third = meter_profiles(
        gateway(
            "sml+tcp://127.0.0.1:20000?push=1",
            "dlms+serial:///dev/ttyUSB0?baud=9600&address=16/1/17&frame=8N1",
            "wmbus+radio:///dev/ttyUSB1?baud=57600&id=1STK0100000001&address=amber",
            **{"1STK0100000001": {"encryption": KEY}},
        )
    )
    assert (first.protocol, first.link, first.push, first.meter_id) == ("sml", "tcp://127.0.0.1:20000", True, ANY_METER)
    assert (second.link, second.address) == ("serial:///dev/ttyUSB0?baud=9600&frame=8N1", "16/1/17")
    assert (third.link, third.address) == ("radio:///dev/ttyUSB1?baud=57600&frame=8N1", "amber")
    assert (third.name_on_bus, third.key("encryption")) == ("1STK0100000001", bytes.fromhex(KEY))
    assert [each.device for each in (first, second, third)] == [f"ESTK0000000001/{n}" for n in range(3)]
    assert (first.keys, second.keys) == ({}, {})


def test_a_serial_line_has_the_settings_that_its_protocol_starts_with() -> None:
    links = {
        protocol: meter_profiles(gateway(f"{protocol}+serial:///dev/ttyUSB0"))[0].link.partition("?")[2]
        for protocol in ("mbus", "iec62056-21", "p1", "wmbus", "sml")
    }
    assert links == {
        "mbus": "baud=2400&frame=8E1", "iec62056-21": "baud=300&frame=7E1", "p1": "baud=115200&frame=8N1",
        "wmbus": "baud=57600&frame=8N1", "sml": "",
    }  # fmt: skip
    (profile,) = meter_profiles(gateway("mbus+serial:///dev/ttyUSB0?baud=300&address=5"))
    assert (profile.link, profile.address) == ("serial:///dev/ttyUSB0?baud=300&frame=8E1", "5")


def test_a_meter_may_have_a_retention_of_its_own() -> None:
    urls = ("sml+tcp://a:1?keep_days=30", "sml+tcp://b:1?keep_telegrams_s=7200", "sml+tcp://c:1")
    configured = gateway(*urls)
    assert retention_of_meters(MeteringLogConfig(), [configured], [meter_profiles(configured)]) == {
        ("ESTK0000000001", "ESTK0000000001/0"): Retention(telegrams_s=3600, values_s=30 * 86_400),
        ("ESTK0000000001", "ESTK0000000001/1"): Retention(telegrams_s=7200, values_s=400 * 86_400),
    }


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        (("smll+tcp://h:1",), "no driver 'smll'"),
        (("mbus+tcp://h:1?address=1", "mbus+tcp://h:1?address=2"), "several meters on tcp://h:1: each needs its id="),
        (("sml+tcp://h:1?id=A", "p1+tcp://h:1?id=B"), "the meters on one link must share their protocol"),
        (("modbus+tcp://h:1?push=1",), "meters with modbus do not push"),
        (("mbus+tcp://h:1?push=1&id=A", "mbus+tcp://h:1?push=1&id=B"), "a link with pushed M-Bus is one meter"),
        (("mbus+tcp://h:1?push=1&address=12345678",), "a meter that pushes sends to a primary address"),
        (("mbus+tcp://h:1?pages=B1,51017A05",), "a page is default, or what selects it"),
    ],
)
def test_meters_that_contradict_each_other_are_told_before_anything_runs(urls: tuple[str, ...], told: str) -> None:
    with pytest.raises(StromkreisError, match=f"^gateway ESTK0000000001: {told}"):
        meter_profiles(gateway(*urls))


def test_the_rest_of_a_profile_is_in_the_url_too() -> None:
    (meter,) = meter_profiles(
        gateway("p1+tcp://h:1?registers=1-0:1.8.0,1-0:2.8.1*255&interval_s=1&medium=7&time_zone=Europe/Amsterdam")
    )
    assert [str(register) for register in meter.registers] == ["1-0:1.8.0*255", "1-0:2.8.1*255"]
    assert (meter.silence_s, meter.medium, str(meter.zone()), meter.link) == (3, 7, "Europe/Amsterdam", "tcp://h:1")
    (pulses,) = meter_profiles(gateway("s0+serial:///dev/ttyS0?constant_imp_per_kwh=1000"))
    assert pulses.constant_imp_per_kwh == 1000
    (sleeper,) = meter_profiles(gateway("iec62056-21+serial:///dev/ttyUSB0?wake_up=1"))
    assert sleeper.wake_up


@pytest.mark.parametrize(
    ("url", "keys", "told"),
    [
        ("sml://h:1", {}, "PROTOCOL"),
        ("sml+udp://h:1", {}, "meter 0: a link is tcp://"),
        ("dlms+tcp://h:1?key=" + KEY, {}, "a TCP link is tcp://host:port alone"),
        ("p1+tcp://h:1?time_zone=Nowhere", {}, "meter 0: time_zone: no time zone 'Nowhere'"),
        ("p1+tcp://h:1?interval_s=often", {}, "meter 0: interval_s: Input should be a valid number"),
        ("p1+tcp://h:1?registers=energy", {}, "meter 0: registers: "),
        ("dlms+tcp://h:1?id=M", {"M": {"encryption": KEY + "x"}}, "key 'encryption' is not hexadecimal"),
        ("dlms+tcp://h:1", {"M": {"encryption": KEY}}, "keys of meter M, which no URL names"),
    ],
)
def test_what_cannot_be_is_told_without_its_key(url: str, keys: dict[str, dict[str, str]], told: str) -> None:
    with pytest.raises(StromkreisError) as raised:
        meter_profiles(gateway(url, **keys))
    assert KEY not in str(raised.value)
    assert told in str(raised.value)
    assert KEY not in repr(gateway("sml+tcp://h:1", **keys))
