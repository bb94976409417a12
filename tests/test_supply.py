"""What we ship and how it is kept in: the lock, its licences, its bill of materials, the walls of container and units, and what no code of
ours may do."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from shipped import HEAD, PROJECT, ROOT, licences, locked, shipped, table

LOCK = ROOT / "deploy" / "requirements.lock"
SOURCES = sorted(path for folder in ("listener", "pipeline", "store", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_every_line_of_a_lock_is_one_version_with_its_hashes(name: str) -> None:
    found = locked(ROOT / "deploy" / name)
    assert found
    for lines in found.values():
        for requirement, hashes in lines:
            assert [one.operator for one in requirement.specifier] == ["=="], requirement
            assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), requirement


def test_the_locks_are_of_what_pyproject_asks_for() -> None:
    wanted = {"requirements.lock": PROJECT["dependencies"]}
    wanted["build.lock"] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for name, requirements in wanted.items():
        found = locked(ROOT / "deploy" / name)
        for text in requirements:
            requirement = Requirement(text)
            for line, _ in found[canonicalize_name(requirement.name)]:
                [version] = [one.version for one in line.specifier]
                assert requirement.specifier.contains(version, prereleases=True), f"{text}, but {line}: make lock"


def test_the_lock_has_all_that_is_needed_here_and_nothing_of_the_tools() -> None:
    found = locked(LOCK)
    assert shipped() - set(found) == set()
    tools = {canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["dev"]}
    runtime = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert set(found) & (tools - runtime) == set()


def test_nothing_that_is_shipped_is_under_the_gpl() -> None:
    """psycopg's LGPL lets it be used as the library that it is."""
    found = licences(shipped())
    assert set(found) == shipped() and "UNKNOWN" not in found.values()
    assert [name for name, licence in found.items() if re.search(r"(?<!L)GPL|Affero|General Public(?! License v3 \(LGPL)", licence)] == []
    assert {name for name, licence in found.items() if "LGPL" in licence} == {"psycopg", "psycopg-binary", "psycopg-pool"}
    written = (ROOT / "deploy" / "licences.md").read_text()
    assert written.startswith(HEAD)
    assert {line.split("|")[1].strip() for line in table(found) if line.startswith("| ")} == {
        line.split("|")[1].strip() for line in written.splitlines() if line.startswith("| ")
    }, "make lock writes it anew"


def test_the_bill_of_materials_has_every_package_of_the_lock(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    [line] = [line for line in makefile.splitlines() if "cyclonedx-py requirements" in line]
    made = tmp_path / "fourview.cdx.json"
    command = line.strip().replace("$(BIN)", str(Path(sys.executable).parent)).replace("dist/fourview.cdx.json", str(made)).split()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=250)
    bill = json.loads(made.read_text())
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == "fourview"
    assert {canonicalize_name(one["name"]) for one in bill["components"]} == set(locked(LOCK))


def test_the_image_installs_by_hashes_and_runs_as_nobody_in_particular() -> None:
    image = (ROOT / "Dockerfile").read_text()
    assert "pip install --require-hashes --requirement deploy/requirements.lock" in image
    assert "pip install --require-hashes --requirement deploy/build.lock" in image and "--no-build-isolation" in image
    last = image.rpartition("FROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE) and "pip" not in last


def test_compose_gives_fourview_its_volume_and_nothing_else() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service), name
        assert all("docker.sock" not in volume for volume in service.get("volumes", ())), name
    for name in ("fourview", "network"):
        assert services[name]["read_only"] is True and services[name]["cap_drop"] == ["ALL"], name
    assert services["fourview"]["volumes"] == ["fourview:/data"] and "user" not in services["fourview"]


@pytest.mark.parametrize("unit", sorted((ROOT / "deploy" / "systemd").glob("*.service")), ids=lambda path: path.stem)
def test_a_unit_may_write_into_its_folder_and_has_no_capabilities(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    wanted = {"User": "fourview", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes"}
    wanted |= {
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "UMask": "0077",
        "RestrictSUIDSGID": "yes",
        "ProtectProc": "invisible",
    }
    wanted |= {"RestrictNamespaces": "net user", "SystemCallArchitectures": "native", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX"}
    assert {name: service.get(name) for name in wanted} == wanted
    assert service.get("ReadWritePaths", "/srv/fourview") == "/srv/fourview"


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module with its dotted name, as it is written there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


SHELLS = re.compile(
    r"(os\.(system|popen|spawn\w+|exec\w+|posix_spawn\w*)|subprocess\.get(status)?output|pty\.\w+|commands\.\w+|eval|exec|pickle\.\w+|marshal\.\w+)"
)
#: Who may start a process: always our own program, or one that a person named on the command line.
STARTS = {"listener/demo.py", "listener/serve.py", "pipeline/decode.py", "pipeline/engines.py"}


def test_nothing_is_handed_to_a_shell_or_evaluated() -> None:
    """What a device writes into a header must not become a command line, or code."""
    found, starts = [], set()
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        for called, node in calls(path):
            shell = [one.value for one in node.keywords if one.arg == "shell"]
            if SHELLS.fullmatch(called) or any(not (isinstance(value, ast.Constant) and value.value is False) for value in shell):
                found.append(f"{name}: {called}")
            if called.startswith("subprocess.") and not name.startswith("benchmarks/"):
                starts.add(name)
                first = node.args[0]
                assert isinstance(first, ast.List | ast.Name), f"{name}: a command line is a list"
    assert found == []
    assert starts <= STARTS, starts - STARTS


def test_each_exception_from_the_security_rules_says_why() -> None:
    bare = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for found in re.finditer(r"#\s*(?:noqa:\s*S\d+|nosec\b[ B\d,]*)(.*)", line):
                why = re.sub(r"#\s*noqa:\s*S\d+", "", found[1]).strip(" -#")
                if not why:
                    bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []
