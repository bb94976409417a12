"""No command, page or error prints a password, not even of a database that does not answer: what is secret is marked, and looked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from command_line import fourview
from marks import found
from results_made import ResultsMade
from serving import serving

from listener import parts, web
from listener.config import load
from listener.users import new_token

SECRETS = ("databaseSecret11", "pacsSecretMark22", "hookSecretMark33")
CONFIG = """
[store]
database = "postgresql+psycopg://fourview@127.0.0.1:{port}/none"
[alert]
url = "http://127.0.0.1:9/hook?key=hookSecretMark33"
[[pacs]]
name = "orthanc"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
url = "http://127.0.0.1:{port}"
user = "fourview"
password_file = "password"
[[user]]
name = "robot"
role = "admin"
token_file = "tokens"
[[rule]]
name = "all"
when = "true"
action = "analyse"
send_to = ["orthanc"]
"""


@pytest.fixture
def config_file(tmp_path: Path, free_port: Callable[[], int]) -> tuple[Path, dict[str, str], str]:
    """A configuration with secrets in all places, its environment, and a token."""
    path = tmp_path / "config.toml"
    port = free_port()
    path.write_text(CONFIG.format(port=port))
    (tmp_path / "password").write_text(SECRETS[1])
    token, line = new_token()
    (tmp_path / "tokens").write_text(line)
    database = f"postgresql+psycopg://fourview:{SECRETS[0]}@127.0.0.1:{port}/none"
    return path, {"FOURVIEW_STORE__DATABASE": database}, token


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ("config", "check")),
        (1, ("check",)),
        (1, ("status",)),
        (1, ("studies",)),
        (1, ("show", "1.2.3")),
        (1, ("db", "upgrade")),
        (1, ("reconcile",)),
        (1, ("orthanc", "connect", "orthanc")),
    ],
)
def test_no_command_prints_a_secret(config_file: tuple[Path, dict[str, str], str], code: int, arguments: tuple[str, ...]) -> None:
    path, environment, token = config_file
    told = fourview("--config", path, *arguments, code=code, environment=environment)
    assert told.strip()
    assert found(told.encode(), (*SECRETS, token)) == set()


def test_a_configuration_hides_what_is_secret_in_it(config_file: tuple[Path, dict[str, str], str]) -> None:
    """As it would stand in an error or in a debugger's lines."""
    path, environment, token = config_file
    config = load(path, environment)
    assert config.pacs[0].password == SECRETS[1] and SECRETS[0] in config.store.database
    assert found(repr(config).encode(), (*SECRETS, token)) == set()


def test_no_answer_over_http_prints_a_secret(config_file: tuple[Path, dict[str, str], str], tmp_path: Path) -> None:
    path, environment, token = config_file
    config = load(path, environment)
    results = ResultsMade(tmp_path)
    app = web.create_app(results=results.search, file_path=results.files.path, ready=list, access=parts.access(config))
    with serving(app) as base_url, httpx.Client(base_url=base_url, trust_env=False, timeout=60) as client:
        asked = [
            client.get("/dicom-web/studies", headers={"Authorization": f"Bearer {token}"}),
            client.get("/dicom-web/studies", headers={"Authorization": f"Bearer {token}x"}),
            client.get("/openapi.json", headers={"Authorization": f"Bearer {token}"}),
            client.get("/nowhere", headers={"Authorization": f"Bearer {token}"}),
        ]
    assert [answer.status_code for answer in asked] == [204, 401, 200, 404]
    for answer in asked:
        assert found(str(answer.headers).encode() + answer.content, (*SECRETS, token)) == set()
