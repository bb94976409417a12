"""What surrounds the program: Makefile, container, service unit, licence. Run where that can be, with a pretended Python for `make`."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from sqlalchemy.pool import QueuePool

from listener.cli import app
from listener.metrics import METRICS
from listener.serve import GRACE_SECONDS
from store.database import read_engine, write_engine

PROJECT = Path(__file__).parent.parent
UNREACHABLE = "http://127.0.0.1:9/whl"

#: Answers as Python does to what the Makefile asks of it, installs nothing, and writes down each call of pip.
FAKE_PYTHON = """\
#!/bin/bash
case "$*" in
  *ensurepip*) exit {ensurepip} ;;
  *version_info*) exit {version} ;;
  *importlib.metadata*) exit {torch} ;;
  *urllib.request*) exec python3 "$@" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "$*" >> {log} ;;
esac
"""


INSTALL = "-m pip install -e .[inference,openvino,demo,dev]"


class Checkout:
    """A copy of the Makefile in a folder of its own, where `make environment` can be tried."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder / "checkout"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(PROJECT / name, self.folder / name)
        self.stamp = self.folder / ".venv" / "fourview-installed"
        self._program = program
        self._log = folder / "pip.log"
        self._python = folder / "python"

    def make(
        self, *variables: str, ensurepip: int = 0, version: int = 0, torch: int = 1
    ) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """What make printed, and its calls of pip. The numbers are the exit codes of Python's three questions."""
        self._log.write_text("")
        self._python.write_text(FAKE_PYTHON.format(ensurepip=ensurepip, version=version, torch=torch, log=self._log))
        self._python.chmod(0o755)
        # Nothing of an outer make, whose variables would win over ours.
        answer = subprocess.run(
            [self._program, "environment", f"PYTHON={self._python}", *variables],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return answer, self._log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path, needs_program: Callable[[str], str]) -> Checkout:
    return Checkout(tmp_path, needs_program("make"))


@pytest.fixture
def torch_index(tmp_path: Path) -> Iterator[str]:
    """An index that answers for torch."""
    (tmp_path / "index" / "torch").mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "index")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_unreachable_torch_index_falls_back_and_says_so(checkout: Checkout) -> None:
    answer, pip = checkout.make(f"TORCH_INDEX={UNREACHABLE}")
    assert answer.returncode == 0, answer.stderr
    assert f"{UNREACHABLE} cannot be reached" in answer.stdout
    assert pip == ["-m pip install torch>=2.13 torchvision>=0.28", INSTALL]


def test_torch_comes_from_its_index_first(checkout: Checkout, torch_index: str) -> None:
    _, pip = checkout.make(f"TORCH_INDEX={torch_index}", "TORCH=torch==2.14.1")
    assert pip == [f"-m pip install --index-url {torch_index} torch==2.14.1", INSTALL]


def test_usual_index_when_none_is_named(checkout: Checkout) -> None:
    answer, pip = checkout.make("TORCH_INDEX=")
    assert "cannot be reached" not in answer.stdout
    assert pip == ["-m pip install torch>=2.13 torchvision>=0.28", INSTALL]


def test_torch_that_is_there_is_left_alone(checkout: Checkout) -> None:
    assert checkout.make(torch=0)[1] == [INSTALL]


def test_second_make_installs_nothing_until_pyproject_changes(checkout: Checkout) -> None:
    assert checkout.make(torch=0)[1] == [INSTALL]
    assert checkout.make(torch=0)[1] == []
    later = checkout.stamp.stat().st_mtime + 5
    os.utime(checkout.folder / "pyproject.toml", (later, later))
    assert checkout.make(torch=0)[1] == [INSTALL]


def test_environment_of_another_checkout_is_installed_anew(checkout: Checkout) -> None:
    checkout.make(torch=0)
    checkout.stamp.write_text("/another/checkout\n")
    assert checkout.make(torch=0)[1] == [INSTALL]
    assert checkout.make(torch=0)[1] == []


def test_existing_environment_is_used(checkout: Checkout, tmp_path: Path) -> None:
    checkout.make(torch=0)
    mine = checkout.stamp.parent.rename(tmp_path / "mine")
    (mine / "fourview-installed").unlink()
    answer, pip = checkout.make(f"VENV={mine}", "PYTHON=/no/such/python", torch=0)
    assert answer.returncode == 0, answer.stderr
    assert pip == [INSTALL]
    assert not checkout.stamp.parent.exists()


def test_old_python_and_missing_venv_module_are_told(checkout: Checkout) -> None:
    for failing, words in (({"version": 1}, "Python 3.11 or later"), ({"ensurepip": 1}, "apt install python3-venv")):
        answer, pip = checkout.make(**failing)
        assert answer.returncode != 0
        assert words in answer.stderr
        assert pip == []


def test_bare_make_explains(needs_program: Callable[[str], str]) -> None:
    told = subprocess.run([needs_program("make")], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60).stdout
    for target in ("demo", "test", "lint", "format", "image-check", "clean"):
        assert f"make {target} " in told


@pytest.mark.parametrize("script", [".ci/run", "deploy/image_check.sh"])
def test_shell_scripts_are_executable_and_parse(script: str) -> None:
    path = PROJECT / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True, timeout=60)


def test_container_copies_only_what_is_there_and_not_ignored() -> None:
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    kept = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in [word for word in line.split()[1:-1] if not word.startswith("--")]:
                assert (PROJECT / source).exists(), source
                assert source in kept, source


def test_torch_ranges_are_the_packages_own() -> None:
    """The Makefile and the Dockerfile install torch before pip reads pyproject.toml: the ranges are written three times."""
    extra = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["inference"]
    expected = [requirement for requirement in extra if requirement.startswith("torch")]
    makefile = re.search(r"^TORCH \?= (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert makefile is not None
    assert makefile[1].split() == expected
    assert " ".join(f"'{requirement}'" for requirement in expected) in (PROJECT / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("name", "role"),
    [("fourview", "serve"), ("fourview-receive", "receive"), ("fourview-work", "work"), ("fourview-web", "web")],
)
def test_each_service_starts_the_installed_program(name: str, role: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(PROJECT / "deploy" / "systemd" / f"{name}.service")
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert (program, arguments) == ("/opt/fourview/bin/fourview", [role])
    assert role in {command.name or command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    assert unit["Service"]["User"] == "fourview"
    assert unit["Service"]["KillMode"] == "mixed"
    assert float(unit["Service"]["TimeoutStopSec"]) > GRACE_SECONDS


def test_the_command_enters_the_services_folder_as_the_services_user(tmp_path: Path) -> None:
    """Whoever calls it may not enter that folder: the change of folder is made behind sudo, or relative paths would mean another place."""
    (tmp_path / "sudo").write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    (tmp_path / "sudo").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FOURVIEW_FOLDER": "/srv/four view"}
    command = ["sh", PROJECT / "deploy" / "fourview", "model", "check", "weights/my card.toml"]
    said = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    person = said.pop(5)
    assert said == [
        *(str(tmp_path), "-u", "fourview", "env", "--chdir=/srv/four view", "FOURVIEW_CONFIG=/srv/four view/config.toml"),
        *("/opt/fourview/bin/fourview", "model", "check", "weights/my card.toml"),
    ]
    assert person.startswith("LOGNAME=") and person != "LOGNAME="


def test_compose_starts_what_is_here_and_opens_dicom_only() -> None:
    compose = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"network", "orthanc", "database", "fourview"}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(published) == ["11112:11112", "4242:4242"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (PROJECT / "deploy" / source).is_dir(), source
    settings = {name for service in services.values() for name in service.get("environment", {})}
    orthanc = (PROJECT / "deploy" / "orthanc" / "orthanc.json").read_text()
    for name in settings:
        if name.startswith("ORTHANC_"):
            assert f"${{{name}:-" in orthanc, name
    variables = set(re.findall(r"\$\{(\w+):\?", (PROJECT / "deploy" / "compose.yaml").read_text()))
    assert variables == set(re.findall(r"^(\w+)=", (PROJECT / "deploy" / "compose.env.example").read_text(), re.MULTILINE))


def test_several_hosts_share_files_and_connections_as_operations_says() -> None:
    operations = (PROJECT / "docs" / "operations.md").read_text().partition("### Several hosts")[2].partition("\n## ")[0]
    assert all("\nUMask=0077\n" in unit.read_text() for unit in (PROJECT / "deploy" / "systemd").glob("*.service"))
    assert "the same uid and gid on every host" in operations
    limits = []
    for engine in (write_engine("postgresql+psycopg://127.0.0.1:9/none"), read_engine("postgresql+psycopg://127.0.0.1:9/none")):
        pool = engine.pool
        assert isinstance(pool, QueuePool)
        limits.append(pool.size() + pool._max_overflow)
    assert f"one for each of `max_associations`, up to {limits[0]}, and" in operations
    assert f"two pools, up to {limits[0]} and {limits[1]}, and" in operations and f"two pools, up to {limits[1]} each, and" in operations
    assert "`max_connections`" in operations


def test_any_service_of_compose_may_be_restarted_without_cutting_off_the_others() -> None:
    """A namespace goes with the container that has it: that one does nothing, so nobody has a reason to restart it."""
    services = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())["services"]
    network = services.pop("network")
    assert set(network) == {"image", "restart", "ports", "read_only", "cap_drop", "security_opt"}
    assert "/pause:" in network["image"]
    assert {service["network_mode"] for service in services.values()} == {"service:network"}


def test_compose_says_how_the_weights_come_into_the_volume_before_anything_starts() -> None:
    head = (PROJECT / "deploy" / "compose.yaml").read_text().partition("\nname:")[0]
    config = tomllib.loads((PROJECT / "config.toml").read_text())
    card = PROJECT / config["model"]["card"]
    weights = f"/data/{Path(config['model']['card']).parent / tomllib.loads(card.read_text())['weights']}"
    assert "WORKDIR /data\n" in (PROJECT / "Dockerfile").read_text()
    steps = ("up --no-start --build", "chmod a+r checkpoint.pt", f"cp checkpoint.pt fourview:{weights}", "up --detach", "exec fourview")
    places = [head.index(step) for step in steps]
    assert places == sorted(places)
    user = re.search(r"useradd --uid (\d+)", (PROJECT / "Dockerfile").read_text())
    assert user is not None
    assert f"user {user[1]}" in head


def test_licence_is_the_one_that_the_package_names() -> None:
    text = (PROJECT / "LICENSE").read_text()
    assert text.split() and " ".join(text.split()[:6]) == "Apache License Version 2.0, January 2004"
    assert "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


def test_alert_rules_ask_for_metrics_that_there_are() -> None:
    rules = yaml.safe_load((PROJECT / "deploy" / "prometheus" / "fourview.rules.yaml").read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"fourview_\w+", rule["expr"])}
    assert asked
    assert asked <= METRICS, asked - METRICS
    operations = (PROJECT / "docs" / "operations.md").read_text()
    for rule in rules:
        assert {"summary", "action"} == set(rule["annotations"])
        assert rule["alert"] in operations, rule["alert"]


def test_what_has_no_sample_is_not_taken_for_well() -> None:
    """What was counted before a restart, and the free bytes of a disk that is away: an empty result raises nothing."""
    rules = yaml.safe_load((PROJECT / "deploy" / "prometheus" / "fourview.rules.yaml").read_text())["groups"][0]["rules"]
    asked = {rule["alert"]: rule["expr"] for rule in rules}
    for expression in asked.values():
        for counted in re.findall(r"\(sum\(increase\(.*?\)\).*?\) == 0|sum\(increase\(.*?\)\) == 0", expression):
            assert "or vector(0)) == 0" in counted, expression
    assert "or (fourview_disk_floor_bytes unless fourview_disk_free_bytes)" in asked["FourviewDiskFull"]
