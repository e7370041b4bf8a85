"""Configuration: what wins, and that an error names the key, what was found and what was expected."""

import os
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig
from loadtest.config import MetersConfig
from node.config import NodeConfig
from node.configured import policy_of
from protocol.dcnet.setup.epoch import Policy
from stromkreis.config import ConfigError, load


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stromkreis.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _error(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(CoordinatorConfig, "coordinator", _file(tmp_path, text))
    return str(caught.value)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STROMKREIS_")]:
        monkeypatch.delenv(name)


def test_defaults_are_the_fields_quarter_hour() -> None:
    config = load(CoordinatorConfig, "coordinator", None)
    assert (config.epoch.rounds, config.epoch.period_s, config.epoch.interval_s) == (32, 900.0, 900)
    assert config.database_url == "sqlite:///var/coordinator/coordinator.sqlite"
    assert config.pki_path == Path("var/coordinator/pki")


def test_file_then_environment_then_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROMKREIS_COORDINATOR__EPOCH__ROUNDS", "8")
    monkeypatch.setenv("STROMKREIS_NODE__TOKEN", "x")
    path = _file(
        tmp_path,
        '[coordinator]\ndata_dir = "a"\n[coordinator.epoch]\nperiod_s = 5\norigin_unix_s = 9\nrounds = 7\n'
        "ring_size = 9\n",
    )
    config = load(
        CoordinatorConfig,
        "coordinator",
        path,
        options={"epoch.ring_size": 10, "epoch.period_s": None},
    )
    assert (config.epoch.period_s, config.epoch.rounds, config.epoch.ring_size) == (5.0, 8, 10)
    assert config.data_dir == Path("a")


def test_environment_takes_lists_as_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROMKREIS_COORDINATOR__AREAS", '["north", "south"]')
    config = load(CoordinatorConfig, "coordinator", None)
    assert config.areas == ("north", "south")


def test_error_names_key_found_and_expected(tmp_path: Path) -> None:
    text = _error(tmp_path, "[coordinator.epoch]\nperiod_s = -1\n")
    assert "stromkreis.toml" in text
    assert "coordinator.epoch.period_s: found -1; expected greater than 0" in text


def test_error_names_the_variable_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROMKREIS_COORDINATOR__EPOCH__ROUNDS", "many")
    text = _error(tmp_path, "[coordinator]\n")
    assert text.startswith("STROMKREIS_COORDINATOR__EPOCH__ROUNDS: coordinator.epoch.rounds: found 'many'; expected")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("STROMKREIS_COORDINATOR__EPOCH__RUNDS", "coordinator.epoch.runds is no key there; did you mean rounds?"),
        ("STROMKREIS_COORDINATOR__LISTN", "coordinator.listn is no key there; did you mean listen?"),
        ("STROMKREIS_COORDINATOR__WEB__LISTEN", "no TOML value"),
        ("STROMKREIS_COORDINATOR__AREAS", "no TOML value"),
    ],
)
def test_a_variable_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setenv(name, "[north")
    text = _error(tmp_path, "[coordinator]\n")
    assert text.startswith(name)
    assert expected in text


def test_a_text_with_commas_is_a_list_where_the_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROMKREIS_METERS__PROTOCOLS", "sml,dlms")
    assert load(MetersConfig, "meters", None).protocols == ("sml", "dlms")


def test_mistyped_key_gets_a_suggestion(tmp_path: Path) -> None:
    assert "coordinator.epoch.ringsize is no key there; did you mean ring_size?" in _error(
        tmp_path, "[coordinator.epoch]\nringsize = 3\n"
    )


def test_mistyped_key_in_a_list_of_tables_gets_a_suggestion(tmp_path: Path) -> None:
    text = '[[node.gateways]]\nid = "ESTK0000000001"\nmetres = []\n'
    with pytest.raises(ConfigError, match=r"node.gateways.0.metres is no key there; did you mean meters"):
        load(NodeConfig, "node", _file(tmp_path, text))


def test_mistyped_section_gets_a_suggestion(tmp_path: Path) -> None:
    assert "unknown section [coordinater]; did you mean coordinator?" in _error(tmp_path, "[coordinater]\n")


def test_missing_section_and_missing_key_say_what_is_expected(tmp_path: Path) -> None:
    assert "found [meters]; expected a section [coordinator]" in _error(tmp_path, "[meters]\n")
    with pytest.raises(ConfigError, match=r"node.root_certificate is missing; expected PEM file of the SM-PKI root"):
        load(NodeConfig, "node", _file(tmp_path, "[node.fleet]\ncount = 1\n"))


def test_no_toml_and_no_file(tmp_path: Path) -> None:
    assert "no TOML" in _error(tmp_path, "[coordinator\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(MetersConfig, "meters", tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[coordinator]\nlisten = "ipc:///x"\n', "an endpoint of the form tcp://HOST:PORT"),
        ('[coordinator.web]\ncertificate = "c.pem"\n', "certificate and private_key together"),
        ('[coordinator]\nareas = ["a", "a"]\n', "areas of different names"),
        ("[coordinator]\nareas = []\n", "at least 1 item"),
        ("[coordinator.epoch]\nperiod_s = 5\n", "an origin_unix_s of about now"),
        ("[coordinator.epoch]\nperiod_s = 960\ninterval_s = 960\n", "an interval_s of whole quarter hours"),
        ("[coordinator.epoch]\nperiod_s = 5\nmetering_origin_unix_s = 1767225600\n", "an origin_unix_s of about now"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _error(tmp_path, text)


def test_half_hours_without_a_lapse_need_no_origin() -> None:
    half_hours = {"epoch": {"period_s": 1800, "interval_s": 1800}}
    assert CoordinatorConfig.model_validate(half_hours).epoch.origin_unix_s == 0


def test_the_gateways_policy_is_the_nodes_to_set() -> None:
    config = {"root_certificate": "r", "fleet": {"count": 1}}
    assert policy_of(NodeConfig.model_validate(config).policy) == Policy()
    strict = NodeConfig.model_validate({**config, "policy": {"corrupt": 0.05, "ring_size_min": 24}})
    assert policy_of(strict.policy) == Policy(corrupt_ppm=50_000, ring_size_min=24)


def test_no_error_repeats_a_secret(tmp_path: Path) -> None:
    secret = '[node]\n[[node.gateways]]\nid = "ESTK0000000001"\nmeters = ["sml+tcp://h:1"]\ntoken = 74110815\n'
    with pytest.raises(ConfigError, match=r"node.gateways.0.token: found a int") as caught:
        load(NodeConfig, "node", _file(tmp_path, secret))
    assert "74110815" not in str(caught.value)
    password = _error(tmp_path, '[coordinator]\ndatabase = ["postgresql://u:hunter2@h/n"]\n')
    assert "coordinator.database" in password
    assert "hunter2" not in password


def test_fleet_and_listed_gateways_make_one_list() -> None:
    config = NodeConfig.model_validate(
        {
            "root_certificate": "root.pem",
            "token": "t",
            "gateways": [{"id": "ESTK0000000009", "meters": ["sml+tcp://h:1"], "token": "own", "area": "north"}],
            "fleet": {"count": 2, "prefix": "ESTK00", "meter": "sml+tcp://h:{port}", "first_port": 7},
        }
    )
    gateways = config.all_gateways()
    assert [(g.id, g.area, g.meters) for g in gateways] == [
        ("ESTK0000000009", "north", ("sml+tcp://h:1",)),
        ("ESTK0000000000", "default", ("sml+tcp://h:7",)),
        ("ESTK0000000001", "default", ("sml+tcp://h:8",)),
    ]
    assert [g.token.get_secret_value() for g in gateways if g.token] == ["own", "t", "t"]


def test_a_node_without_gateways_or_with_one_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one gateway"):
        NodeConfig.model_validate({"root_certificate": "r"})
    twice = [{"id": "ESTK0000000001", "meters": ["sml+tcp://h:1"]}] * 2
    with pytest.raises(ValueError, match="gateways of different ids"):
        NodeConfig.model_validate({"root_certificate": "r", "gateways": twice})


def test_intervals_count_from_the_metering_origin() -> None:
    epoch = CoordinatorConfig.model_validate({"epoch": {"origin_unix_s": 5_000.75, "period_s": 1}}).epoch
    assert [epoch.interval_index(5_000 + s) for s in (-900, 0, 1_800)] == [-1, 0, 2]
    lapse = epoch.model_copy(update={"metering_origin_unix_s": 900_000})
    assert lapse.interval_index(900_900) == 1
