"""config.toml: what is read, what is complained of and where, and that the documents and the shipped file know every key."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mammograms_made import mammogram

from listener.config import LISTED_TABLES, SINGLE_TABLES, Config, ConfigErrors, load
from pipeline.rule_condition import SYMBOLS
from pipeline.rules import Action, Rule
from pipeline.send import Pacs
from store.study import ImageKind, View, WhenIncomplete
from store.view import CID_4014, STANDARD, TRUSTED, Device, Dialect, resolve_view

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "config.toml"
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

RULE = """
[[rule]]
name = "all"
when = "true"
action = "hold"
"""
PACS = """
[[pacs]]
name = "archive"
ae_title = "ARCHIVE"
host = "10.0.0.1"
port = 104
"""
HASH = "$argon2id$v=19$m=65536,t=3,p=4$RTNcuJZtRvLILpPyRkT2ng$2q0R0wLYVnhgDBa5bzMcmdZQYSWlrMh1FaFFRODhb3k"
USER = f"""[[user]]
name = "kim"
role = "viewer"
password_hash = "{HASH}"
"""
DEVICE = """[[device]]
manufacturer = "Example"
model = "One"
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def read(path: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {})


def complaints(path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Without the folder."""
    with pytest.raises(ConfigErrors) as errors:
        read(path, text, environ)
    assert str(errors.value) == "\n".join(errors.value.complaints)
    return [complaint.replace(f"{path.parent}/", "") for complaint in errors.value.complaints]


def keys(table: type) -> dict[str, Any]:
    """Each key with its default; MISSING when it has none."""
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(table)
    }


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


# What is read


def test_the_shipped_file_is_valid_and_holds_the_defaults() -> None:
    config = load(SHIPPED, {})
    assert config.rules == (Rule("every new mammogram", 'Modality == "MG" and StudyAge <= 14', Action.ANALYSE, ("orthanc",)),)
    assert config.pacs == (Pacs(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=4242, url="http://127.0.0.1:8042"),)
    assert config.study.fetch_from == "orthanc"
    written = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    for name, table in SINGLE_TABLES.items():
        for key, value in written[name].items():
            assert value == plain(keys(table)[key]), f"{name}.{key}"


def test_the_shipped_file_shows_every_key() -> None:
    """Advanced ones behind a comment sign, with their default."""
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", SHIPPED.read_text(encoding="utf-8"))
    shown = tomllib.loads(text)
    for name, table in SINGLE_TABLES.items():
        assert shown[name].keys() == keys(table).keys(), name
        assert {key: value for key, value in shown[name].items() if value != plain(keys(table)[key])} == {}
    for name in ("pacs", "rule"):
        assert shown[name][0].keys() == keys(LISTED_TABLES[name]).keys(), name
    assert set(LISTED_TABLES) == {"pacs", "rule", "device", "sender", "user"}
    for name in ("device", "sender", "user"):
        assert f"a [[{name}]] table: docs/configuration.md" in text


def test_a_rule_names_its_model_card_relative_to_the_file(config_file: Path) -> None:
    (config_file.parent / "cards").mkdir()
    (config_file.parent / "cards" / "x.toml").touch()
    rule = '[[rule]]\nname = "a"\nwhen = "true"\naction = "analyse"\nmodel = "cards/x.toml"\n'
    assert [one.card for one in read(config_file, rule).rules] == [str(config_file.parent.absolute() / "cards/x.toml")]
    assert [one.card for one in read(config_file, RULE).rules] == [""]


def test_paths_are_relative_to_the_file(config_file: Path) -> None:
    config = read(config_file, RULE)
    assert config.path == config_file
    assert config.store.files == config_file.parent / "data/files"
    assert config.store.database == f"sqlite:///{config_file.parent}/data/fourview.db"
    assert config.model.card == config_file.parent / "weights/resnet50.toml"
    config = read(config_file, '[store]\nfiles = "/srv/files"\ndatabase = "sqlite:////srv/f.db"\n[model]\ncard = "/srv/card.toml"' + RULE)
    assert (str(config.store.files), config.store.database, str(config.model.card)) == (
        "/srv/files",
        "sqlite:////srv/f.db",
        "/srv/card.toml",
    )


def test_a_relative_file_gives_absolute_paths(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_file.write_text(RULE, encoding="utf-8")
    monkeypatch.chdir(config_file.parent)
    assert load(None, {}).store.files == config_file.parent / "data/files"
    assert load(Path("config.toml"), {}).path == config_file


def test_the_environment_names_the_file_and_the_argument_beats_it(config_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[dicom]\nport = 104" + RULE, encoding="utf-8")
    config_file.write_text(RULE, encoding="utf-8")
    assert load(None, {"FOURVIEW_CONFIG": str(other)}).dicom.port == 104
    assert load(config_file, {"FOURVIEW_CONFIG": str(other)}).dicom.port == 11112


def test_the_environment_overrides_the_file(config_file: Path) -> None:
    environ = {
        "FOURVIEW_DICOM__PORT": "11113",
        "FOURVIEW_DICOM__ACCEPT_FROM": "MAMMO1, MAMMO2",
        "FOURVIEW_DICOM__STRICT": "true",
        "FOURVIEW_STUDY__WAIT_FOR_RETAKE_SECONDS": "0.5",
        "FOURVIEW_STORE__DATABASE": "postgresql+psycopg://u:hidden@h/n",
        "FOURVIEW_STORE__FILES": "elsewhere",
        "HOME": "/root",
    }
    config = read(config_file, '[dicom]\nport = 104\nae_title = " MINE "' + RULE, environ)
    assert (config.dicom.port, config.dicom.ae_title, config.dicom.strict) == (11113, "MINE", True)
    assert config.dicom.accept_from == ("MAMMO1", "MAMMO2")
    assert config.study.wait_for_retake_seconds == 0.5
    assert config.store.database == "postgresql+psycopg://u:hidden@h/n"
    assert config.store.files == config_file.parent / "elsewhere"
    assert "hidden" not in repr(config)


def test_every_key_of_a_single_table_has_its_variable(config_file: Path) -> None:
    spelt = {"url": "http://h", "cors_origins": "http://h,https://i:8443", "trusted_proxies": "10.0.0.1,10.1.0.0/16"}
    for name, table in SINGLE_TABLES.items():
        for key, default in keys(table).items():
            said = {tuple: "", dict: "D=R"}.get(type(default), str(plain(default)))
            environ = {f"FOURVIEW_{name}__{key}".upper(): said or spelt.get(key, "A")}
            if key in ("certificate", "key") or key.startswith("tls_"):  # neither is right alone, and both must be there
                (config_file.parent / "A").touch()
                both = ("HTTP__CERTIFICATE", "HTTP__KEY", "DICOM__TLS_CERTIFICATE", "DICOM__TLS_KEY")
                environ |= {f"FOURVIEW_{one}": "A" for one in both}
            config = read(config_file, PACS.replace("archive", "orthanc") + 'url = "http://h"' + RULE, environ)
            assert getattr(getattr(config, name), key) is not None


def test_passwords_come_from_files(config_file: Path) -> None:
    (config_file.parent / "pw").write_text("s3cret word\r\n", encoding="utf-8")
    config = read(config_file, PACS + 'url = "http://h:8042/"\nuser = "u"\npassword_file = "pw"\nby_hand = true' + RULE)
    [pacs] = config.pacs
    assert (pacs.user, pacs.password, pacs.url) == ("u", "s3cret word", "http://h:8042")
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("study", "pacs", "fetch_from"),
    [
        ("", "", ""),
        ("", PACS, ""),
        ("", PACS.replace("archive", "orthanc"), ""),
        ("", PACS.replace("archive", "orthanc") + 'url = "http://h"', "orthanc"),
        ('fetch_from = "archive"', PACS + 'url = "http://h"', "archive"),
        ('fetch_from = ""', PACS + 'url = "http://h"', ""),
    ],
)
def test_where_images_are_fetched_from(config_file: Path, study: str, pacs: str, fetch_from: str) -> None:
    by_hand = "\nby_hand = true" if pacs else ""
    assert read(config_file, f"[study]\n{study}\n{pacs}{by_hand}{RULE}").study.fetch_from == fetch_from


def test_users_come_with_hashes_that_nothing_shows(config_file: Path) -> None:
    token, other = "a" * 64, "b" * 64
    (config_file.parent / "tokens").write_text(f"# of the scanner\nsha256:{token}\n\nsha256:{other}  # of the old one\n", encoding="utf-8")
    robot = '[[user]]\nname = "robot@여기"\nrole = "admin"\ntoken_file = "tokens"\n'
    config = read(config_file, f'[http]\nhost = "0.0.0.0"\n{USER}{robot}{RULE}')
    assert [(user.name, user.role, user.password_hash) for user in config.users] == [("kim", "viewer", HASH), ("robot@여기", "admin", "")]
    assert config.users[1].token_hashes == (bytes.fromhex(token), bytes.fromhex(other))
    assert "argon2" not in repr(config) and "token_hashes" not in repr(config)
    assert read(config_file, RULE).users == ()


def test_addresses_of_http_are_written_as_browsers_write_them(config_file: Path) -> None:
    (config_file.parent / "c.pem").touch()
    origins = 'cors_origins = ["https://OHIF.example.org:443/", "http://[::1]:3000", "http://h:80"]'
    names = 'host_names = ["Fourview.Example.org", "10.0.0.5"]\ntrusted_proxies = ["10.0.0.5", "10.1.0.0/16"]'
    http = read(config_file, f'[http]\ncertificate = "c.pem"\nkey = "c.pem"\n{origins}\n{names}\n{RULE}').http
    assert http.cors_origins == ("https://ohif.example.org", "http://[::1]:3000", "http://h")
    assert http.host_names == ("fourview.example.org", "10.0.0.5")
    assert http.trusted_proxies == ("10.0.0.5/32", "10.1.0.0/16")
    assert http.certificate == http.key == str(config_file.parent / "c.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_no_password(config_file: Path, host: str) -> None:
    assert read(config_file, f'[http]\nhost = "{host}"{RULE}').http.host == host


@pytest.mark.parametrize("yes", ["true", "1", "yes", "on", "TRUE"])
def test_another_address_must_be_allowed(config_file: Path, yes: str) -> None:
    config = read(config_file, '[http]\nhost = "0.0.0.0"' + RULE, {"FOURVIEW_HTTP__ALLOW_UNAUTHENTICATED": yes})
    assert config.http.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("written", "slots", "when_incomplete"),
    [
        ("", "standard", None),
        ('slots = "standard"\nwhen_incomplete = ""', "standard", None),
        ('slots = "left"', "left", None),
        ('slots = "right"\nwhen_incomplete = "analyse"', "right", WhenIncomplete.ANALYSE),
        ('when_incomplete = "hold"', "standard", WhenIncomplete.HOLD),
        ('when_incomplete = "ignore"', "standard", WhenIncomplete.IGNORE),
    ],
)
@pytest.mark.parametrize("action", [Action.ANALYSE, Action.HOLD])
def test_a_rule_says_which_views_to_wait_for_and_where_results_go(
    config_file: Path, action: Action, written: str, slots: str, when_incomplete: WhenIncomplete | None
) -> None:
    """Also a rule that holds: a person may release the study."""
    [rule] = read(config_file, f'{PACS}{RULE.replace("hold", action)}send_to = ["archive"]\n{written}').rules
    assert rule == Rule("all", "true", action, ("archive",), slots, when_incomplete)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", {}),
        ("side_words = {}", {}),
        ('side_words = { D = "R", E = "L" }', {"D": "R", "E": "L"}),
        ('side_words = { dx = "R", Sx = "L" }', {"DX": "R", "SX": "L"}),
        ('side_words = { droite = "R", gauche = "L" }', {"DROITE": "R", "GAUCHE": "L"}),
        ('side_words = { "우" = "R", "좌" = "L" }', {"우": "R", "좌": "L"}),
        ('side_words = { "sağ" = "R", " sol " = "L" }', {"SAĞ": "R", "SOL": "L"}),
        ('side_words = { LEFT = "L", R = "R", I = "L" }', {"LEFT": "L", "R": "R", "I": "L"}),
        ('side_words.D = "R"\nside_words.E = "L"', {"D": "R", "E": "L"}),
        ('[study.side_words]\nD = "R"', {"D": "R"}),
    ],
)
def test_the_site_has_words_for_its_sides(config_file: Path, written: str, words: dict[str, str]) -> None:
    dialect = read(config_file, f"[study]\n{written}\n{RULE}").dialect
    assert (dialect.side_words, dialect.devices) == (words, ())


def test_without_words_and_devices_headers_are_read_as_the_standard_says(config_file: Path) -> None:
    assert read(config_file, RULE).dialect == STANDARD


@pytest.mark.parametrize(
    ("said", "words"),
    [("D=R,E=L", {"D": "R", "E": "L"}), (" d = R , 좌=L,", {"D": "R", "좌": "L"}), ("", {})],
)
def test_side_words_from_the_environment_replace_those_of_the_file(config_file: Path, said: str, words: dict[str, str]) -> None:
    config = read(config_file, '[study]\nside_words = { DX = "R" }' + RULE, {"FOURVIEW_STUDY__SIDE_WORDS": said})
    assert config.dialect.side_words == config.study.side_words == words


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("D", "write words with their sides, with commas between them, as in D=R,E=L (got 'D')"),
        ("D=X", "D: should be 'L' or 'R' (got 'X')"),
        ("CC=R", "CC: CC is a view of CID 4014"),
        ("LEFT=R", "LEFT: LEFT always says left; leave it out"),
    ],
)
def test_side_words_from_the_environment_are_checked(config_file: Path, said: str, complaint: str) -> None:
    [found] = complaints(config_file, RULE, {"FOURVIEW_STUDY__SIDE_WORDS": said})
    assert found.startswith("environment FOURVIEW_STUDY__SIDE_WORDS: study.side_words") and complaint in found


def test_devices_become_the_dialect(config_file: Path) -> None:
    text = """
[study]
side_words = { D = "R" }
[[device]]
manufacturer = " Example Medical "
model = "MAMMO 1000"
side_words = { "좌" = "L", d = "L" }
view_words = { obl = "mlo", "상하" = "CC", TAIL = "AT" }
synthetic_words = ["sum  image", "S2D"]
distrust = ["Laterality"]
[[device]]
manufacturer = "Example Medical"
model = "Other"
[device.side_words]
SX = "L"
[[device]]
manufacturer = "Third"
"""
    dialect = read(config_file, text.replace(', TAIL = "AT"', "") + RULE).dialect
    assert dialect == Dialect(
        side_words={"D": "R"},
        devices=(
            Device(
                manufacturer="Example Medical",
                model="MAMMO 1000",
                side_words={"좌": "L", "D": "L"},
                view_words={"OBL": "MLO", "상하": "CC"},
                synthetic_words=("SUM IMAGE", "S2D"),
                distrust=("Laterality",),
            ),
            Device(manufacturer="Example Medical", model="Other", side_words={"SX": "L"}),
            Device(manufacturer="Third"),
        ),
    )
    [found] = complaints(config_file, text + RULE)
    assert found.startswith("config.toml:8: device.view_words.TAIL: no view of CID 4014; write one of CC, MLO")


PORTUGUESE = '[study]\nside_words = { D = "R", E = "L" }\n'
ONE = """[[device]]
manufacturer = "Example"
side_words = { "좌" = "L", E = "R" }
view_words = { OBL = "MLO" }
synthetic_words = ["sum image"]
distrust = ["ImageLaterality"]
"""
NO_SIDE = {"ImageLaterality": None, "Laterality": None, "PatientOrientation": None, "AnatomicRegionSequence": None}
NOTHING = NO_SIDE | {"ViewCodeSequence": None, "ViewPosition": None}


@pytest.mark.parametrize(
    ("text", "attributes", "side", "label", "kind"),
    [
        ("", NOTHING | {"SeriesDescription": "D CC"}, None, "CC", ImageKind.FFDM),
        (PORTUGUESE, NOTHING | {"SeriesDescription": "D CC"}, "R", "CC", ImageKind.FFDM),
        (PORTUGUESE, NOTHING | {"SeriesDescription": "Mama e - mlo"}, "L", "MLO", ImageKind.FFDM),
        (PORTUGUESE, {"SeriesDescription": "D CC"}, "L", "CC", ImageKind.FFDM),  # the attribute counts
        (PORTUGUESE, NOTHING | {"SeriesDescription": "E CC", "Manufacturer": "EXAMPLE "}, "L", "CC", ImageKind.FFDM),
        (PORTUGUESE + ONE, NOTHING | {"SeriesDescription": "E CC", "Manufacturer": "EXAMPLE "}, "R", "CC", ImageKind.FFDM),
        (PORTUGUESE + ONE, NOTHING | {"SeriesDescription": "D OBL", "Manufacturer": "Example"}, "R", "MLO", ImageKind.FFDM),
        (PORTUGUESE + ONE, NOTHING | {"SeriesDescription": "좌 OBL", "Manufacturer": "Example"}, "L", "MLO", ImageKind.FFDM),
        (PORTUGUESE + ONE, NOTHING | {"SeriesDescription": "좌 OBL", "Manufacturer": "Example 2"}, None, None, ImageKind.FFDM),
        (ONE, {"SeriesDescription": "SUM-IMAGE", "Manufacturer": "Other"}, "L", "CC", ImageKind.FFDM),
        (
            ONE,
            NO_SIDE | {"ImageLaterality": "R", "SeriesDescription": "Sum_Image", "Manufacturer": "Example"},
            None,
            "CC",
            ImageKind.SYNTHETIC_2D,
        ),
    ],
)
def test_configured_words_are_what_headers_are_read_with(
    config_file: Path, text: str, attributes: dict[str, Any], side: str | None, label: str | None, kind: ImageKind
) -> None:
    evidence = resolve_view(mammogram(View.L_CC, **attributes), read(config_file, text + RULE).dialect)
    assert (evidence.laterality, evidence.view_position, evidence.kind) == (side, label, kind)


@pytest.mark.parametrize("label", CID_4014)
def test_a_word_may_mean_any_view_of_the_standard(config_file: Path, label: str) -> None:
    config = read(config_file, f'[[device]]\nmodel = "M"\nview_words = {{ WORD = "{label}" }}{RULE}')
    assert config.dialect.devices[0].view_words == {"WORD": label}


@pytest.mark.parametrize("keyword", TRUSTED)
def test_every_attribute_that_is_trusted_can_be_distrusted(config_file: Path, keyword: str) -> None:
    config = read(config_file, f'[[device]]\nmodel = "M"\ndistrust = ["{keyword}"]{RULE}')
    assert config.dialect.devices[0].distrust == (keyword,)
    assert f"`{keyword}`" in DOCUMENT


def device(**written: str) -> str:
    return "\n[[device]]\n" + "".join(f'{key} = "{value}"\n' for key, value in written.items())


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({"manufacturer": "GE", "model": "A"}, {"manufacturer": "GE", "model": "A"}, "model"),
        ({"manufacturer": "GE", "model": "A"}, {"manufacturer": " ge ", "model": "a"}, "model"),
        ({"manufacturer": "GE"}, {"manufacturer": "GE", "model": "A"}, "model"),
        ({"manufacturer": "GE", "model": "A"}, {"manufacturer": "GE"}, "manufacturer"),
        ({"manufacturer": "GE"}, {"model": "A"}, "model"),
        ({"model": "A"}, {"manufacturer": "GE", "model": "A"}, "model"),
        ({"manufacturer": "GE"}, {"manufacturer": "GE"}, "manufacturer"),
        ({"manufacturer": "GE", "model": "A"}, {"manufacturer": "GE", "model": "B"}, ""),
        ({"manufacturer": "GE", "model": "A"}, {"manufacturer": "Other", "model": "A"}, ""),
        ({"manufacturer": "GE"}, {"manufacturer": "Other", "model": "A"}, ""),
        ({"model": "A"}, {"model": "B"}, ""),
    ],
)
def test_two_devices_never_match_the_same(config_file: Path, first: dict[str, str], second: dict[str, str], key: str) -> None:
    text = device(**first) + device(**second) + RULE
    if not key:
        assert len(read(config_file, text).dialect.devices) == 2
        return
    line = 1 + text.splitlines().index("[[device]]", 2) + 1 + list(second).index(key)
    [found] = complaints(config_file, text)
    assert found.startswith(f"config.toml:{line}: device.{key}: [[device]] number 1 matches the same devices; write manufacturer and")


def test_a_byte_order_mark_does_no_harm(config_file: Path) -> None:
    config_file.write_text(RULE, encoding="utf-8-sig")
    assert load(config_file, {}).rules[0].name == "all"


# What is complained of


MISTAKES = [
    ("[dicom]\nprot = 3", "config.toml:2: dicom.prot: unknown key; did you mean port?"),
    ("[dicm]\nport = 3", "config.toml:1: dicm: unknown key; did you mean dicom?"),
    ("[dicom]\nxyzzy = 3", "config.toml:2: dicom.xyzzy: unknown key; the keys here are ae_title, host, port"),
    ("dicom = 5", "config.toml:1: dicom: must be a table; write [dicom]"),
    ("[dicom]\n\nport = 70000", "config.toml:3: dicom.port: should be less than or equal to 65535 (got 70000)"),
    ("[dicom]\nport = 0", "config.toml:2: dicom.port: should be greater than or equal to 1 (got 0)"),
    ('[dicom]\nport = "x"', "config.toml:2: dicom.port: should be a valid integer"),
    ('[dicom]\nae_title = "FOURVIEW_AI_ROUTER"', "config.toml:2: dicom.ae_title: an AE title has 1 to 16 printable"),
    ('[dicom]\nae_title = "A\\\\B"', "config.toml:2: dicom.ae_title: an AE title has"),
    ('[dicom]\nae_title = "  "', "config.toml:2: dicom.ae_title: an AE title has"),
    ('[dicom]\nae_title = "유방"', "config.toml:2: dicom.ae_title: an AE title has"),
    ('[dicom]\naccept_from = ["A", "B\\\\"]', "config.toml:2: dicom.accept_from: an AE title has"),
    ('[dicom]\nhost = "a b"', "config.toml:2: dicom.host: write a host name"),
    ('[dicom]\nstrict = "maybe"', "config.toml:2: dicom.strict: should be a valid boolean"),
    ("[dicom]\nreceivers = 0", "config.toml:2: dicom.receivers: should be greater"),
    ('[site]\ntimezone = "Europe/Londn"', "config.toml:2: site.timezone: no such time zone; did you mean Europe/London?"),
    ('[site]\ntimezone = "../x"', "config.toml:2: site.timezone: no such time zone; write an IANA name"),
    ('[http]\nhost = "0.0.0.0"', "config.toml:2: http.host: '0.0.0.0' lets other machines read patient data"),
    ('[http]\nhost = "example.org"', "config.toml:2: http.host: 'example.org' lets other machines"),
    ('[http]\nhost = "example.org"', "config.toml:2: http.host: 'example.org' lets other machines"),
    ("[http]\nallow_unauthenticated = true\n" + USER, "config.toml:2: http.allow_unauthenticated: there are [[user]] tables, so everybody"),
    ('[http]\ncertificate = "config.toml"', "config.toml:2: http.certificate: needs key as well"),
    ('[http]\nkey = "config.toml"', "config.toml:2: http.key: needs certificate as well"),
    ('[http]\ncertificate = "config.toml"\nkey = "none"', "config.toml:3: http.key: none cannot be read (No such file or directory)"),
    ('[dicom]\ntls_certificate = "config.toml"', "config.toml:2: dicom.tls_certificate: needs tls_key as well"),
    ('[dicom]\ntls_client_authority = "config.toml"', "config.toml:2: dicom.tls_client_authority: needs tls_certificate and tls_key"),
    ('[dicom]\ntls_certificate = "config.toml"\ntls_key = "none"', "config.toml:3: dicom.tls_key: none cannot be read (No such file"),
    (PACS + 'tls_authority = "config.toml"', "config.toml:7: pacs.tls_authority: is of no use without tls = true"),
    (PACS + 'tls = true\ntls_key = "config.toml"', "config.toml:8: pacs.tls_key: needs tls_certificate as well"),
    (PACS + 'tls = true\ntls_authority = "none"', "config.toml:8: pacs.tls_authority: none cannot be read"),
    ('[http]\ncors_origins = ["*"]', "config.toml:2: http.cors_origins: write origins, scheme and host and nothing behind"),
    ('[http]\ncors_origins = ["null"]', "config.toml:2: http.cors_origins: write origins"),
    ('[http]\ncors_origins = ["https://a/b"]', "config.toml:2: http.cors_origins: write origins"),
    ('[http]\ncors_origins = ["https://u:p@a"]', "config.toml:2: http.cors_origins: write origins"),
    ('[http]\nhost_names = ["a:8080"]', "config.toml:2: http.host_names: write host names as clients use them, without port"),
    ('[http]\nhost_names = ["*"]', "config.toml:2: http.host_names: write host names"),
    ('[http]\ntrusted_proxies = ["*"]', "config.toml:2: http.trusted_proxies: write addresses or networks"),
    ('[http]\ntrusted_proxies = ["10.0.0.5/24"]', "config.toml:2: http.trusted_proxies: write addresses or networks"),
    ("[http]\nrequests_per_minute = -1", "config.toml:2: http.requests_per_minute: should be greater than or equal to 0"),
    (USER + USER, "config.toml:6: user.name: there is already a [[user]] of this name"),
    (USER + "rolle = 'x'", "config.toml:5: user.rolle: unknown key; did you mean role?"),
    (USER.replace("viewer", "viewr"), "config.toml:3: user.role: should be 'viewer', 'operator' or 'admin'"),
    (USER.replace("kim", "kim:x"), "config.toml:2: user.name: a name has 1 to 64 letters, digits and . _ @ -"),
    (USER.replace(HASH, "sesame"), "config.toml:4: user.password_hash: is not as `fourview user hash` prints it"),
    (USER.replace("argon2id", "argon2i"), "config.toml:4: user.password_hash: is not as `fourview user hash` prints it"),
    (USER + 'password = "x"', "config.toml:5: user.password: unknown key; did you mean password_hash?"),
    (USER.replace(HASH, ""), "config.toml:1: user: nobody can log in so; write password_hash (`fourview user hash`) or token_file"),
    (
        USER + 'token_file = "none"',
        "config.toml:5: user.token_file: none cannot be read (No such file or directory); `fourview user token none`",
    ),
    (USER + 'token_file = "config.toml"', "config.toml:5: user.token_file: config.toml: line 1 is not as `fourview user token` writes it"),
    ('[store]\nfiles = ""', "config.toml:2: store.files: write a text"),
    ("[store]\nfiles = 3", "config.toml:2: store.files: write a text"),
    ("[store]\nmin_free_gib = -1", "config.toml:2: store.min_free_gib: should be greater than or equal to 0"),
    ("[store]\nkeep_images_days = nan", "config.toml:2: store.keep_images_days: should be"),
    ('[store]\ndatabase = "sqlite://"', "config.toml:2: store.database: write sqlite:///PATH"),
    ('[store]\ndatabase = "sqlite:///:memory:"', "config.toml:2: store.database: write sqlite:///PATH"),
    ('[store]\ndatabase = "postgresql://h/n"', "config.toml:2: store.database: write sqlite:///PATH or postgresql+psycopg://"),
    ("[study]\nwait_for_retake_seconds = -1", "config.toml:2: study.wait_for_retake_seconds: should be greater"),
    ("[study]\ngive_up_after_seconds = 14401", "config.toml:2: study.give_up_after_seconds: should be less than or equal to 14400"),
    ('[study]\nwhen_incomplete = "hode"', "config.toml:2: study.when_incomplete: should be 'hold', 'analyse' or 'ignore' (got 'hode')"),
    ('[study]\nfetch_from = "orthank"', "config.toml:2: study.fetch_from: no [[pacs]] is named 'orthank'"),
    ('[study]\nfetch_from = "archive"' + PACS, "config.toml:2: study.fetch_from: the [[pacs]] 'archive' has no url"),
    ('[model]\nengine = "onnx"', "config.toml:2: model.engine: should be 'auto', 'torch' or 'openvino'"),
    ("pacs = 3", "config.toml:1: pacs: must be a list of tables; write [[pacs]]"),
    ("pacs = [3]", "config.toml:1: pacs: must be a table; write [[pacs]]"),
    ("[pacs]\nname = 3", "config.toml:1: pacs: must be a list of tables; write [[pacs]]"),
    (PACS.replace("port = 104", ""), "config.toml:2: pacs.port: missing; write port = ..."),
    (PACS + PACS, "config.toml:9: pacs.name: there is already a [[pacs]] named 'archive'"),
    (PACS + 'url = "h:8042"', "config.toml:7: pacs.url: write an address"),
    (PACS + 'url = "http://[::1"', "config.toml:7: pacs.url: write an address"),
    (PACS + 'confirm = "dicomweb"', "config.toml:7: pacs.confirm: needs url"),
    (PACS + 'results = ["sr", "pge"]', "config.toml:7: pacs.results: should be 'sr' or 'page' (got 'pge')"),
    (PACS + 'dicomweb = "rs"', "config.toml:7: pacs.dicomweb: write a path as in /dicom-web, which begins with a slash (got 'rs')"),
    (PACS + 'password_file = "none"', "config.toml:7: pacs.password_file: none cannot be read (No such file or directory)"),
    (PACS + 'name2 = "x"', "config.toml:7: pacs.name2: unknown key; did you mean name?"),
    (RULE + RULE, "config.toml:8: rule.name: there is already a [[rule]] named 'all'"),
    (RULE.replace('"all"', '""'), "config.toml:3: rule.name: write a text that is not empty"),
    (RULE.replace('"true"', "'Modlity == \"MG\"'"), "config.toml:4: rule.when: unknown name Modlity; did you mean Modality?"),
    (RULE.replace('"true"', "'''\nModality == \"MG\"\nand StudyAge = 3'''"), "config.toml:4: rule.when: syntax error at column"),
    (RULE.replace("hold", "analise"), "config.toml:5: rule.action: should be 'analyse', 'hold' or 'ignore' (got 'analise')"),
    (RULE + 'send_to = ["orthanc"]', "config.toml:6: rule.send_to: no [[pacs]] is named 'orthanc'"),
    (PACS + RULE + 'send_to = ["archiv"]', "config.toml:12: rule.send_to: no [[pacs]] is named 'archiv'; did you mean archive?"),
    (PACS + RULE.replace("hold", "ignore") + 'send_to = ["archive"]', "config.toml:12: rule.send_to: an ignored study has no results"),
    (RULE + 'forward_to = ["orthanc"]', "config.toml:6: rule.forward_to: no [[pacs]] is named 'orthanc'"),
    (PACS + RULE + 'forward_to = ["archiv"]', "config.toml:12: rule.forward_to: no [[pacs]] is named 'archiv'; did you mean archive?"),
    (
        '[dicom]\naccept_from = ["archive"]\n' + PACS + RULE + 'forward_to = ["archive"]',
        "config.toml:14: rule.forward_to: circular: ARCHIVE alone may send here",
    ),
    (RULE + 'slots = "lefd"', "config.toml:6: rule.slots: should be 'standard', 'left' or 'right' (got 'lefd')"),
    (RULE + 'slot = "left"', "config.toml:6: rule.slot: unknown key; did you mean slots?"),
    (RULE + 'when_incomplete = "wait"', "config.toml:6: rule.when_incomplete: should be '', 'hold', 'analyse' or 'ignore' (got 'wait')"),
    (
        RULE.replace("hold", "ignore") + 'slots = "left"',
        "config.toml:6: rule.slots: nothing is awaited of an ignored study; leave slots out",
    ),
    (RULE.replace("hold", "ignore") + 'when_incomplete = "hold"', "config.toml:6: rule.when_incomplete: nothing is awaited of an ignored"),
    ("[device]\nmodel = 'A'", "config.toml:1: device: must be a list of tables; write [[device]]"),
    ("device = [3]", "config.toml:1: device: must be a table; write [[device]]"),
    ("[[device]]", "config.toml:1: device: would match every device; write manufacturer, model, or both"),
    ("[[device]]\nmanufacturer = ''\nmodel = ''", "config.toml:1: device: would match every device"),
    (DEVICE + 'modell = "A"', "config.toml:4: device.modell: unknown key; did you mean model?"),
    (DEVICE + 'side_word = { D = "R" }', "config.toml:4: device.side_word: unknown key; did you mean side_words?"),
    (DEVICE + "\n[device.side_word]\nD = 'R'", "config.toml:5: device.side_word: unknown key; did you mean side_words?"),
    (DEVICE + "synthetic_words = 'S2D'", "config.toml:4: device.synthetic_words: should be a valid tuple"),
    ('[[device]]\nmodel = "A\\u0007B"', "config.toml:2: device.model: write what the header says, without control characters"),
    ('[[device]]\nmanufacturer = "GE"\nmodel = "  "', "config.toml:3: device.model: write what the header says"),
    (f'[[device]]\nmodel = "{"A" * 65}"', "config.toml:2: device.model: String should have at most 64 characters"),
    (DEVICE + 'synthetic_words = [" - "]', "config.toml:4: device.synthetic_words: write a word or several, with at least one letter"),
    (DEVICE + 'synthetic_words = ["S2D", "cc"]', "config.toml:4: device.synthetic_words: CC names a side or a view, as acquired images do"),
    (DEVICE + 'synthetic_words = ["R-CC"]', "config.toml:4: device.synthetic_words: R-CC names a side or a view"),
    (DEVICE + 'synthetic_words = ["Left"]', "config.toml:4: device.synthetic_words: LEFT names a side or a view"),
    (DEVICE + 'distrust = ["ImageLateralty"]', "config.toml:4: device.distrust: did you mean ImageLaterality? (got 'ImageLateralty')"),
    (DEVICE + 'distrust = ["PixelData"]', f"config.toml:4: device.distrust: write one of {', '.join(TRUSTED)}"),
    (DEVICE + "distrust = 'Laterality'", "config.toml:4: device.distrust: should be a valid tuple"),
    (DEVICE + 'view_words = "OBL"', "config.toml:4: device.view_words: must be a table of words; write view_words = {"),
    (DEVICE + 'view_words = { OBL = "MLOO" }', "config.toml:4: device.view_words.OBL: no view of CID 4014; did you mean MLO?"),
    (DEVICE + 'view_words = { OBL = "?" }', "config.toml:4: device.view_words.OBL: no view of CID 4014; write one of CC, MLO, ML,"),
    (DEVICE + "view_words = { OBL = 3 }", "config.toml:4: device.view_words.OBL: should be a valid string (got 3)"),
    (DEVICE + "[device.view_words]\nA = 'CC'\nOBL = '?'", "config.toml:6: device.view_words.OBL: no view of CID 4014"),
    (DEVICE + 'view_words = { CC = "MLO" }', "config.toml:4: device.view_words.CC: CC is a view of CID 4014 itself and never another one"),
    (DEVICE + 'view_words = { LT = "CC" }', "config.toml:4: device.view_words.LT: LT says left and is never a view; leave it out"),
    (DEVICE + 'view_words = { M = "ML" }', "config.toml:4: device.view_words.M: M stands for magnification (CID 4015)"),
    (
        DEVICE + 'view_words = { MO = "MLO" }',
        "config.toml:4: device.view_words.MO: LMO means something else already; write a longer word",
    ),
    (DEVICE + 'view_words = { T = "CC" }', "config.toml:4: device.view_words.T: LT means something else already; write a longer word"),
    (DEVICE + 'view_words = { SCC = "CC" }', "config.toml:4: device.view_words.SCC: SCC means something else already"),
    (DEVICE + 'view_words = { RCC = "CC" }', "config.toml:4: device.view_words.RCC: RCC means something else already"),
    (DEVICE + 'view_words = { CCID = "CC" }', "config.toml:4: device.view_words.CCID: CCID means something else already"),
    (DEVICE + 'view_words = { "A B" = "CC" }', "config.toml:4: device.view_words.A B: write one word of letters and digits"),
    (DEVICE + 'view_words = { OBL = "MLO", obl = "MLO" }', "config.toml:4: device.view_words.obl: OBL is here twice"),
    (DEVICE + 'side_words = { D = "R" }\nview_words = { d = "CC" }', "config.toml:5: device.view_words.d: D is a side word as well"),
    (
        '[study]\nside_words = { D = "R" }\n' + DEVICE + 'view_words = { D = "CC" }',
        "config.toml:6: device.view_words.D: D is a side word as",
    ),
    (DEVICE + 'side_words = { RIGHT = "L" }', "config.toml:4: device.side_words.RIGHT: RIGHT always says right; leave it out"),
    ('[study]\nside_words = ["D"]', "config.toml:2: study.side_words: must be a table of words; write side_words = {"),
    ('[study]\nside_words = { D = "r" }', "config.toml:2: study.side_words.D: should be 'L' or 'R' (got 'r')"),
    ('[study]\nside_words.D = "B"', "config.toml:2: study.side_words.D: should be 'L' or 'R' (got 'B')"),
    ("[study]\nside_words = { D = true }", "config.toml:2: study.side_words.D: should be 'L' or 'R' (got True)"),
    ("[study.side_words]\nE = 'L'\n\"D E\" = 'R'", "config.toml:3: study.side_words.D E: write one word of letters and digits"),
    ("[study]\nside_words = { 'D.' = 'R' }", "config.toml:2: study.side_words.D.: write one word of letters and digits"),
    ("[study]\nside_words = { A_B = 'R' }", "config.toml:2: study.side_words.A_B: write one word of letters and digits"),
    ("[study]\nside_words = { '' = 'R' }", "config.toml:2: study.side_words.: write one word of letters and digits"),
    (
        "[study]\nside_words = { 1 = 'R' }",
        "config.toml:2: study.side_words.1: write one word of letters and digits with at least one letter",
    ),
    (
        "[study]\nside_words = { D = 'R', d = 'L' }",
        "config.toml:2: study.side_words.d: D is here twice; upper and lower case do not differ",
    ),
    ("[study]\nside_words = { L = 'R' }", "config.toml:2: study.side_words.L: L always says left; leave it out"),
    ("[study]\nside_words = { rt = 'L' }", "config.toml:2: study.side_words.rt: RT always says right; leave it out"),
    ("[study]\nside_words = { CC = 'R' }", "config.toml:2: study.side_words.CC: CC is a view of CID 4014 and is never a side"),
    ("[study]\nside_words = { ml = 'L' }", "config.toml:2: study.side_words.ml: ML is a view of CID 4014 and is never a side"),
    ("[study]\nside_words = { S = 'L' }", "config.toml:2: study.side_words.S: S stands for spot compression (CID 4015) in names of views"),
    ("[study]\nside_words = { M = 'L' }", "config.toml:2: study.side_words.M: M stands for magnification (CID 4015) in names of views"),
    ("[study]\nside_words = { X = 'L' }", "config.toml:2: study.side_words.X: XCC means something else already; write a longer word"),
    ("[study]\nside_words = { LS = 'R' }", "config.toml:2: study.side_words.LS: LSCC means something else already"),
    ("[study]\nside_words = { SPOT = 'R' }", "config.toml:2: study.side_words.SPOT: SPOT CC means something else already"),
    ("[study]\nside_words = { MAG = 'R' }", "config.toml:2: study.side_words.MAG: MAG CC means something else already"),
]


@pytest.mark.parametrize(("text", "complaint"), MISTAKES, ids=[text.strip()[:40] for text, _ in MISTAKES])
def test_a_mistake_is_named_with_its_line(config_file: Path, text: str, complaint: str) -> None:
    found = complaints(config_file, text + "\n" + RULE.replace("all", "last"))
    assert [line for line in found if line.startswith(complaint)], found
    assert len(found) == 1, found


def test_all_mistakes_are_named_at_once_in_the_files_order(config_file: Path) -> None:
    text = '[dicom]\nport = 0\nprot = 1\n[study]\nfetch_from = "x"\n[[pacs]]\nname = "a"\n[[rule]]\nname = "r"\nwhen = "x"\naction = "y"'
    found = complaints(config_file, text, {"FOURVIEW_HTTP__PORT": "no", "FOURVIEW_DICOM__PROT": "1"})
    assert [line.split(": ")[0] for line in found] == [
        "environment FOURVIEW_DICOM__PROT",
        "environment FOURVIEW_HTTP__PORT",
        "config.toml:2",
        "config.toml:3",
        "config.toml:5",
        "config.toml:6",
        "config.toml:6",
        "config.toml:6",
        "config.toml:10",
        "config.toml:11",
    ]


def test_a_rule_is_needed(config_file: Path) -> None:
    assert complaints(config_file, "[dicom]") == ["config.toml:1: rule: there is no [[rule]], so nothing would be analysed; write one"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[dicom]\nport = ", "config.toml:2: Invalid value; write key = value, with texts in quotes"),
        ("[dicom]\nport", "config.toml:2: Expected '=' after a key in a key/value pair; write key = value"),
        ("[dicom]\nport = 1\nport = 2\n", "config.toml:3: Cannot overwrite a value at column 9"),
    ],
)
def test_broken_toml_is_named_with_its_line(config_file: Path, text: str, complaint: str) -> None:
    [found] = complaints(config_file, text)
    assert found.startswith(complaint)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FOURVIEW_DICOM__PROT", "did you mean FOURVIEW_DICOM__PORT?"),
        ("FOURVIEW_DICOM_PORT", "did you mean FOURVIEW_DICOM__PORT?"),
        ("FOURVIEW_DICOM", "unknown variable"),
        ("FOURVIEW_CONFG", "did you mean FOURVIEW_CONFIG?"),
        ("FOURVIEW_TYPO", "named as in FOURVIEW_DICOM__PORT"),
        ("FOURVIEW_", "named as in FOURVIEW_DICOM__PORT"),
        ("FOURVIEW_RULE", "can only be written in the configuration file"),
        ("FOURVIEW_PACS__0__PORT", "can only be written in the configuration file"),
        ("FOURVIEW_DEVICE__MODEL", "[[pacs]], [[rule]], [[device]], [[sender]], [[user]] can only be written in the configuration file"),
        ("FOURVIEW_STUDY__SIDE_WORD", "did you mean FOURVIEW_STUDY__SIDE_WORDS?"),
    ],
)
def test_an_unknown_variable_is_named(config_file: Path, name: str, words: str) -> None:
    [found] = complaints(config_file, RULE, {name: "s3cret"})
    assert found.startswith(f"environment {name}: unknown variable") and words in found and "s3cret" not in found


def test_a_complaint_about_a_variable_names_it_and_not_a_line(config_file: Path) -> None:
    found = complaints(config_file, "[study]\nfetch_from = ''\n" + RULE, {"FOURVIEW_STUDY__FETCH_FROM": "x", "FOURVIEW_DICOM__PORT": "0"})
    assert found == [
        "environment FOURVIEW_DICOM__PORT: dicom.port: should be greater than or equal to 1 (got '0')",
        "environment FOURVIEW_STUDY__FETCH_FROM: study.fetch_from: no [[pacs]] is named 'x'",
    ]


def test_complaints_never_show_secrets(config_file: Path) -> None:
    (config_file.parent / "two").write_text("s3cret\ns3cret\n", encoding="utf-8")
    (config_file.parent / "binary").write_bytes(b"\xffs3cret")
    (config_file.parent / "empty").write_text("\n", encoding="utf-8")
    tables = [
        'password = "s3cret"\nurl = "http://u:s3cret@h"\nuser = ["s3cret"]',
        'password_file = "two"',
        'password_file = "binary"',
        'password_file = "empty"',
    ]
    text = '[store]\ndatabase = "mysql://u:s3cret@h/n"\n' + "".join(
        PACS.replace("archive", str(number)) + table for number, table in enumerate(tables)
    )
    users = [
        'name = "s3cret:x"\nrole = "s3cret"\npassword_hash = "s3cret"',
        'name = "s3cret"\nrole = "viewer"\npassword = "s3cret"\ntoken_file = "two"',
    ]
    text += "".join(f"\n[[user]]\n{user}" for user in users)
    found = complaints(config_file, text + RULE + 'password = "s3cret"')
    assert len(found) == 14
    assert "s3cret" not in "".join(found)


def test_a_password_in_the_database_url_belongs_into_the_environment(config_file: Path) -> None:
    url = "postgresql+psycopg://u:s3cret@h/n"
    [found] = complaints(config_file, f'[store]\ndatabase = "{url}"' + RULE)
    assert found.startswith("config.toml:2: store.database: a password does not belong in this file; set FOURVIEW_STORE__DATABASE")
    assert read(config_file, RULE, {"FOURVIEW_STORE__DATABASE": url}).store.database == url


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    for path, environ in [(tmp_path / "none.toml", {}), (None, {"FOURVIEW_CONFIG": str(tmp_path / "none.toml")})]:
        with pytest.raises(ConfigErrors, match=r"none\.toml: no such file; name yours with --config or FOURVIEW_CONFIG, or copy"):
            load(path, environ)


def test_a_file_that_is_no_text_says_so(config_file: Path, tmp_path: Path) -> None:
    config_file.write_bytes(b"\xff\xfe[")
    with pytest.raises(ConfigErrors, match="not UTF-8"):
        load(config_file, {})
    with pytest.raises(ConfigErrors, match="Is a directory"):
        load(tmp_path, {})


# What is documented


def documented(heading: str) -> dict[str, str]:
    """First and second cell of the rows of a section's tables."""
    section = re.search(rf"(?ms)^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", DOCUMENT)
    assert section is not None, heading
    return {key: cell.strip() for key, cell in re.findall(r"(?m)^\| `(\w+)` \|(.*?)\|", section[1])}


def test_every_key_is_documented_with_its_default_and_no_other() -> None:
    headings = {f"[{name}]": table for name, table in SINGLE_TABLES.items()} | {
        f"[[{name}]]": table for name, table in LISTED_TABLES.items()
    }
    assert set(re.findall(r"(?m)^## (\[.*\])$", DOCUMENT)) == set(headings)
    for heading, table in headings.items():
        defaults = {
            key: "" if default in (dataclasses.MISSING, None) else f"`{json.dumps(plain(default))}`" for key, default in keys(table).items()
        }
        assert documented(heading) == defaults


def test_every_symbol_is_documented_and_no_other() -> None:
    assert documented("Symbols") == {symbol.name: symbol.type for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        values = f": {', '.join(symbol.values)}" if symbol.values else ""
        assert f"| `{symbol.name}` | {symbol.type} | {symbol.meaning}{values} |" in DOCUMENT


def test_the_documents_examples_are_valid(config_file: Path) -> None:
    pacs = "".join(PACS.replace("archive", name) + "by_hand = true\n" for name in ("archive", "orthanc"))
    blocks = re.findall(r"(?ms)^```toml\n(.*?)^```", DOCUMENT)
    assert blocks
    for block in blocks:
        assert read(config_file, pacs + block + ("" if "[[rule]]" in block else RULE)).rules
