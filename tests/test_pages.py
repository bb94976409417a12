"""The pages for people: what they say in both languages and escape, who may press what, and that forms post without JavaScript."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from string import Formatter
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
import test_on_demand as on_demand
from fourview_process import SIMULATED_CARD
from mammograms_made import uid
from PIL import Image
from serving import serving
from stepped_store import FixedRuling, SteppedStore, exam, image

from listener import catalogue, dashboard
from listener.cards import Card, CardState, cards_of_images, cards_of_views
from listener.catalogue import SENTENCES, preferred
from listener.config import load
from listener.desk import Desk
from listener.door import Access
from listener.pages import Pages, shortened
from listener.pictures import Pictures
from listener.users import Role, User, Users
from listener.web import create_app
from pipeline.heat_colours import heat_map_picture
from pipeline.wording import ENGLISH, KOREAN
from store import tables
from store.database import write_engine
from store.study import HANGING_ORDER, View

TEMPLATES = Path(dashboard.__file__).parent / "templates"
STATIC = Path(dashboard.__file__).parent / "static"
USERS = Users([User(name=f"the {role}", role=role, token_hashes=(hashlib.sha256(role.encode()).digest(),)) for role in Role])

FORM = "application/x-www-form-urlencoded"

Open = Callable[..., httpx.Client]


@contextmanager
def opened(stepped: SteppedStore, folder: Path) -> Iterator[str]:
    """The address of the pages of what `stepped` holds."""
    card = folder / "simulated.toml"
    card.write_text(SIMULATED_CARD)
    config = folder / "config.toml"
    config.write_text(f"""
[store]
database = "{stepped.engine.url.render_as_string(hide_password=False)}"
files = "{stepped.files.root}"
min_free_gib = 0.1
[model]
card = "{card}"
allow_untrained = true
[[pacs]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[rule]]
name = "screening"
when = 'Modality == "MG"'
action = "analyse"
send_to = ["pacs"]
""")
    pages = Pages(zone=ZoneInfo("Asia/Seoul"), language="en", version="test")
    router = dashboard.create_router(Desk(load(config, {})), Pictures(stepped.search, stepped.files), pages)
    app = create_app(results=stepped.search, file_path=stepped.files.path, ready=list, routers=[router], access=Access(users=USERS))
    with serving(app) as url:
        yield url


@pytest.fixture
def door(stepped: SteppedStore, tmp_path: Path) -> Iterator[Open]:
    """Opens the pages as a person of a role, with a language."""
    made: list[httpx.Client] = []
    with opened(stepped, tmp_path) as url:

        def client(role: Role = Role.ADMIN, language: str = "en", **headers: str) -> httpx.Client:
            known = {"Authorization": f"Bearer {role}", "Accept": "text/html", "Accept-Language": language}
            known |= {"Content-Type": FORM, **headers}  # a browser says so also of a form without fields
            made.append(httpx.Client(base_url=url, headers=known, trust_env=False, timeout=60))
            return made[-1]

        yield client
        for one in made:
            one.close()


class Page(HTMLParser):
    """A page as a person gets it: its words, its elements, its links."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self._hidden = 0
        self.feed(response.text)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        names = {name.rstrip("_"): value for name, value in wanted.items()}
        return [found for kind, found in self.elements if kind == tag and names.items() <= found.items()]

    def actions(self) -> set[str]:
        """Where its forms post to."""
        return {found["action"] for found in self.all("form", method="post")}


# ------------------------------------------------------------------------------------------------------------------- the list


def test_the_list_says_who_where_and_what(stepped: SteppedStore, door: Open) -> None:
    stepped.classes = {str(ds.SOPInstanceUID): "Mass" for ds in exam()[:1]}
    stepped.receive(*exam(PatientName="Kim^Ji-woo=金^智友", PatientID="P7"))
    stepped.settle()
    stepped.receive(*exam(study="open", PatientName="Open^Olga")[:3])
    stepped.work()
    response = door().get("/")
    page = Page(response)
    assert response.status_code == 200
    assert page.words.index("Open, Olga") < page.words.index("Kim, Ji-woo"), "the one that received an image last comes first"
    assert "waiting for L-MLO until " in page.words
    chips = re.findall(r"(R-CC|L-CC|R-MLO|L-MLO) (Mass|Normal) +([0-9.]+) %", page.words)
    assert [view for view, _, _ in chips] == [str(view) for view in HANGING_ORDER]
    classes = stepped.listing.studies(dashboard.Wanted()).studies[1]["classes"]
    assert chips == [(view, name, f"{100 * number:.1f}") for view, (name, number) in classes.items()]
    assert [found["class"] for found in page.all("li") if "chip" in found.get("class", "")] == ["chip red", *["chip green"] * 3]
    assert "UNTRAINED" in page.words
    assert ENGLISH.banner in page.words
    about = f"{ENGLISH.highest_class_label}. {ENGLISH.uncalibrated} Normal: {ENGLISH.nothing_excluded}"
    assert about in page.words and page.words.index(about) < page.words.index("Open, Olga"), "Normal never without what is meant by it"
    assert ENGLISH.uncalibrated not in Page(door().get("/?state=collecting")).words, "where no score stands nothing is said of scores"

    korean = Page(door(language="ko-KR,ko;q=0.9,en;q=0.5").get("/"))
    assert f"{KOREAN.highest_class_label}. {KOREAN.uncalibrated} 정상: {KOREAN.nothing_excluded}" in korean.words
    assert KOREAN.banner in korean.words and "종괴" in korean.words and "수집 중" in korean.words
    assert korean.all("html", lang="ko")


def test_a_language_that_was_chosen_stays(door: Open) -> None:
    client = door(language="fr,en;q=0.3")
    assert client.get("/").headers["Content-Language"] == "en"
    assert client.get("/?lang=ko").headers["Content-Language"] == "ko"
    assert client.get("/").headers["Content-Language"] == "ko"
    assert client.get("/?lang=xx").headers["Content-Language"] == "ko"


@pytest.mark.parametrize(
    "header, found",
    [
        ("", "en"),
        ("ko", "ko"),
        ("en-GB,ko;q=0.9", "en"),
        ("en;q=0.1, KO-kr;q=0.2", "ko"),
        ("fr", "en"),
        ("ko;q=0", "en"),
        ("ko;q=x,", "en"),
    ],
)
def test_the_language_that_a_browser_prefers(header: str, found: str) -> None:
    assert preferred(header, "en") == found


def test_the_list_is_filtered_and_paged_by_its_address(stepped: SteppedStore, door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "STUDIES_ON_PAGE", 2)
    for number in range(5):
        stepped.receive(*exam(study=f"s{number}", PatientID=f"P{number}", StudyDate=f"2026112{number}", StationName=f"ROOM{number}"))
        stepped.step(1)
    stepped.settle()
    client = door()

    def rows(address: str) -> list[str]:
        response = client.get(address)
        assert response.status_code == 200, response.text
        return re.findall(r'<th scope="row"><a href="/studies/([0-9.]+)"', response.text)

    def link(address: str, words: str) -> str:
        found = re.search(rf'href="([^"]+)">{words}<', client.get(address).text)
        return found[1].replace("&amp;", "&") if found else ""

    seen, address = rows("/"), "/"
    while address := link(address, "Next"):
        seen += rows(address)
        assert link(address, "First page") == "/"
    assert seen == [uid(f"s{number}") for number in (4, 3, 2, 1, 0)]
    assert rows("/?date_from=2026-11-22&date_to=2026-11-23") == [uid("s3"), uid("s2")]
    assert rows("/?patient_id=P3") == rows("/?device=ROOM3") == [uid("s3")]
    assert rows("/?patient_id=P*&date_to=20261120") == [uid("s0")]
    assert rows("/?state=held") == rows("/?calling_ae_title=NOBODY") == rows("/?predicted_class=Mass") == []
    assert "No study meets these conditions" in client.get("/?state=held").text
    assert link("/?state=analysed", "Next").startswith("/?state=analysed&after=")

    filtered = Page(client.get("/?state=analysed&patient_id=P3"))
    assert filtered.all("option", value="analysed", selected="") and filtered.all("input", name="patient_id", value="P3")
    part = client.get("/?state=analysed", headers={"HX-Request": "true"})
    assert part.text.lstrip().startswith('<div id="studies"') and "<html" not in part.text
    assert 'hx-get="/?state=analysed"' in part.text

    refused = client.get("/?date_from=yesterday")
    assert refused.status_code == 400 and "A date is written as" in refused.text and not rows_of(refused)
    lost = client.get("/?after=nonsense")
    assert lost.status_code == 200 and "does not exist any more" in lost.text and len(rows_of(lost)) == 2


def rows_of(response: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/studies/', response.text)


def test_an_empty_list_says_so(door: Open) -> None:
    assert "No study has come yet." in door().get("/").text


# ------------------------------------------------------------------------------------------------------------------ one study


def test_a_study_has_its_four_cards_in_hanging_order(stepped: SteppedStore, door: Open) -> None:
    stepped.classes = {str(ds.SOPInstanceUID): "Mass" for ds in exam()[1:2]}
    stepped.receive(*exam())
    stepped.settle()
    response = door().get(f"/studies/{uid('study')}")
    page = Page(response)
    assert [found["data-view"] for found in page.all("article")] == ["R-CC", "L-CC", "R-MLO", "L-MLO"]
    assert [found["class"].split() for found in page.all("article")] == [
        ["card", "scored", "green"],
        ["card", "scored", "red"],
        ["card", "scored", "green"],
        ["card", "scored", "green"],
    ]
    selection = stepped.study()["runs"][0]["selection"]
    for view in HANGING_ORDER:
        words = page.words.split(f" {view} {ENGLISH.highest_class_label}")[1].split(ENGLISH.highest_class_label)[0]
        numbers = dict(zip(selection[view]["scores"]["classes"], selection[view]["scores"]["probabilities"], strict=True))
        assert f"score {100 * max(numbers.values()):.1f} %" in words
        assert all(f"{name} {100 * number:.1f} %" in words for name, number in numbers.items()), "all scores, folded"
    assert page.words.count(ENGLISH.nothing_excluded) == 3, "Normal never without the sentence that it excludes nothing"
    for sentence in (ENGLISH.banner, ENGLISH.simulated, ENGLISH.uncalibrated, "COMPLETE: all four views", "analysed: version 1"):
        assert sentence in page.words
    title = response.text.split("<title>")[1].split("</title>")[0]
    assert title == f"Study …{uid('study')[-6:]} · Fourview", "what browsers remember names no patient"
    assert page.all("div", id="study")[0]["hx-get"] == f"/studies/{uid('study')}"
    korean = Page(door(language="ko").get(f"/studies/{uid('study')}"))
    assert KOREAN.highest_class_label in korean.words and KOREAN.simulated in korean.words and KOREAN.nothing_excluded in korean.words


def test_what_is_missing_doubtful_or_failed_is_said(stepped: SteppedStore, door: Open) -> None:
    failing = exam()
    stepped.broken[str(failing[3].SOPInstanceUID)] = True
    stepped.receive(*failing)
    stepped.settle()
    words = Page(door().get(f"/studies/{uid('study')}")).words
    assert "L-MLO Not analysed its pixels are broken" in words and "PARTIAL: not all views" in words

    stepped.receive(*exam(study="three")[:3])
    stepped.settle()
    page = Page(door().get(f"/studies/{uid('three')}"))
    assert "L-MLO No usable image of this view." in page.words and "No version yet" in page.words
    assert [found["class"] for found in page.all("article")][3] == "card empty "
    assert "Views are missing: scores are shown here, nothing is sent." in page.words

    doubtful = image(View.L_CC, study="held", PatientOrientation=["P", "L"])
    stepped.edges[str(doubtful.SOPInstanceUID)] = "right"
    stepped.receive(*exam(study="held")[:1], doubtful, *exam(study="held")[2:])
    stepped.settle()
    page = Page(door().get(f"/studies/{uid('held')}"))
    assert "Held" in page.words and "A person must decide" in page.words
    choices = {found["value"] for found in page.all("input", type="radio")}
    assert choices == {f"--view {doubtful.SOPInstanceUID}=VIEW", f"--exclude {doubtful.SOPInstanceUID}"}


def test_an_image_of_another_patient_says_so_on_its_card(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    on_demand.ask(stepped, image(View.R_CC, "other", PatientID="P2"), image(View.L_CC, "nobody", PatientID=""), image(View.L_MLO, "own"))
    stepped.work()
    here = f"/studies/{uid('study')}"
    sentence = SENTENCES["card_other_patient"]
    response = door().get(here)
    cards = dict(re.findall(r'<p class="warn other-patient">([^<]+)</p>.*?<p class="uid">([0-9.]+)</p>', response.text, re.DOTALL))
    assert cards == {
        sentence.en.format(patient_id="P2"): str(image(View.R_CC, "other").SOPInstanceUID),
        sentence.en.format(patient_id="–"): str(image(View.L_CC, "nobody").SOPInstanceUID),
    }
    assert len(Page(response).all("article")) == 7
    assert sentence.ko.format(patient_id="P2") in Page(door(language="ko").get(here)).words


def test_a_corrected_patient_is_no_other_one(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    stepped.receive(*exam(PatientID="P9"))
    stepped.settle()
    assert stepped.ask("release", accept_patient=True) == "accepted"
    stepped.settle()
    page = Page(door().get(f"/studies/{uid('study')}"))
    assert len(page.all("article")) == 4 and "Patient ID P9 " in page.words and not page.all("p", class_="warn other-patient")


def test_a_withdrawn_study_shows_no_cards(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    assert stepped.ask("withdraw") == "accepted"
    stepped.settle()
    page = Page(door().get(f"/studies/{uid('study')}"))
    assert not page.all("article") and ENGLISH.withdrawal in page.words
    assert f"/studies/{uid('study')}/reprocess" in page.actions() and f"/studies/{uid('study')}/withdraw" not in page.actions()


KNOWN_ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        """html head meta title link script body a p header svg rect nav div span section main h1 h2 h3 form label input button details
        summary select option table caption thead tbody tr th td time ul ol li b strong footer fieldset legend abbr figure figcaption
        article dl dt dd""",
    )
)
HOSTILE = "<script>alert(1)</script>^\"'&<b>"


def test_everything_that_comes_from_dicom_is_escaped(stepped: SteppedStore, door: Open) -> None:
    odd = {"PatientName": HOSTILE, "PatientID": "<b>7</b>", "StationName": "<img src=x>", "StudyDate": "<u>"}
    stepped.receive(*exam(**odd), sender="<i>AE</i>")
    stepped.receive(*exam(study="held", **odd)[:3], *exam(study="held", **{**odd, "PatientID": "<b>8</b>"})[3:])
    stepped.settle()
    for address in ("/", "/?device=%3Cimg+src%3Dx%3E&patient_id=%22%3E%3Cb%3E*", f"/studies/{uid('study')}", f"/studies/{uid('held')}"):
        response = door().get(address)
        assert response.status_code == 200
        page = Page(response)
        assert not page.all("b") or all(found == {} for found in page.all("b"))
        for forbidden in ("<script>", "<img src=x", "<i>", "<u>", "<b>7", "<b>8"):
            assert forbidden not in response.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in response.text


def test_uids_in_sentences_are_short_and_escaped() -> None:
    long = "2.25." + "1234567890" * 3
    assert shortened(f"L-CC {long} came", {long: "L-CC"}) == f'L-CC <abbr title="{long}">…567890</abbr> came'
    assert shortened(f"image {long} <b> of study {long}, at 127.0.0.1", {long: "R-CC"}) == (
        f'image <abbr title="{long}">R-CC …567890</abbr> &lt;b&gt; of study <a href="/studies/{long}" title="{long}">R-CC …567890</a>, '
        "at 127.0.0.1"
    )


def test_no_page_needs_what_its_policy_forbids(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    for address in ("/", f"/studies/{uid('study')}", "/deliveries", "/status", "/studies/1.2.3"):
        response = door().get(address)
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        for tag, attributes in Page(response).elements:
            assert tag != "style" and "style" not in attributes
            assert not [name for name in attributes if name.startswith(("on", "hx-on"))]
            assert tag != "script" or attributes["src"].startswith("/static/")
            for name in ("src", "href", "action", "hx-get", "hx-post"):
                assert attributes.get(name, "/").startswith(("/", "#")), "nothing comes from elsewhere"
            assert not attributes.get("hx-vals", "").startswith("js")
        assert response.headers["Cache-Control"] == "no-store"


# -------------------------------------------------------------------------------------------------------------------- pictures


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_heat_map_lies_over_the_crop_and_nowhere_else(stepped: SteppedStore, door: Open) -> None:
    stepped.classes = {str(ds.SOPInstanceUID): "Mass" for ds in exam()[:1]}
    stepped.receive(*exam())
    stepped.settle()
    picture = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12)
    heat = np.full((4, 4), 255, np.uint8)
    files = {"preview_file": stepped.files.write(png(picture)), "heat_map_file": stepped.files.write(png(heat))}
    score = tables.score
    box = (2, 4, 10, 16)
    with stepped.engine.begin() as connection:
        rows = connection.execute(sa.select(score.c.id, score.c.scores).order_by(score.c.id)).all()
        for row in rows:
            connection.execute(sa.update(score).where(score.c.id == row.id).values(**files, scores={**row.scores, "box": box}))
    client = door()
    for kind in ("on demand", "candidate"):
        which = sa.update(tables.instance).where(tables.instance.c.sop_instance_uid == exam()[0].SOPInstanceUID)
        with stepped.engine.begin() as connection:
            connection.execute(which.values(disposition=kind))
        page = Page(client.get(f"/studies/{uid('study')}"))
        assert len(page.all("input", id="heat-maps", role="switch")) == 1
    heats = [found["src"] for found in page.all("img") if "heat" in found.get("class", "")]
    assert len(heats) == 1, "where Normal scored highest none is shown"
    assert ENGLISH.no_heat_map in page.words and "Shows what influenced the score. Not a lesion location." in page.words
    response = client.get(heats[0])
    assert (response.headers["Content-Type"], response.headers["Cache-Control"]) == ("image/png", "no-store")
    shown = np.asarray(Image.open(BytesIO(response.content)))
    assert np.array_equal(shown, heat_map_picture(picture, np.ones((4, 4), np.float32), box, 16, 12))
    outside = np.ones((16, 12), bool)
    outside[4:16, 2:10] = False
    assert np.array_equal(shown[outside], np.repeat(picture[outside][:, None], 3, axis=1))
    assert not np.array_equal(shown[~outside], np.repeat(picture[~outside][:, None], 3, axis=1))
    plain = client.get(heats[0].replace("heat-map", "preview"))
    assert np.array_equal(np.asarray(Image.open(BytesIO(plain.content))), picture)
    normal = next(row.id for row in rows if max(row.scores["probabilities"]) == row.scores["probabilities"][0])
    for address in (
        f"/studies/{uid('study')}/scores/{normal}/heat-map.png",
        f"/studies/{uid('other')}/scores/{rows[0].id}/preview.png",
        f"/studies/{uid('study')}/scores/999999/preview.png",
        f"/studies/{uid('study')}/scores/{10**30}/preview.png",
        f"/studies/{uid('study')}/scores/{rows[0].id}/passwd.png",
    ):
        assert client.get(address).status_code == 404, address
    stepped.files.remove(files["preview_file"])
    assert client.get(heats[0]).status_code == 404


# -------------------------------------------------------------------------------------------------------------------- deciding


def test_a_form_posts_without_javascript_and_the_answer_is_shown(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    client = door(Role.OPERATOR)
    here = f"/studies/{uid('study')}"
    asked = client.post(f"{here}/reprocess", data={"why": "  a  better\nlook "})
    assert asked.status_code == 303 and asked.headers["Location"].startswith(f"{here}?asked=")
    assert stepped.study()["decisions"][0] | {"person": "the operator", "why": "a better look"} == stepped.study()["decisions"][0]
    words = Page(client.get(asked.headers["Location"])).words
    assert "Asked for: Analyse again" in words and "no worker is running" in words
    stepped.work()
    stepped.settle()
    words = Page(client.get(asked.headers["Location"])).words
    assert "Accepted: Analyse again. analysed: nothing changed" in words

    released = client.post(f"{here}/release", data={})
    stepped.work()
    page = Page(client.get(released.headers["Location"]))
    assert "Not done: Release." in page.words and page.all("div", class_="toast bad", role="alert")
    other = client.get(f"{here}?asked=00")
    assert other.status_code == 200 and not Page(other).all("div", id="answer")

    by_htmx = client.post(f"{here}/reprocess", headers={"HX-Request": "true"})
    assert by_htmx.status_code == 204 and by_htmx.headers["HX-Redirect"].startswith(f"{here}?asked=")


BODIES = {
    "no type": ("", b"why=x", 415),
    "two types": (f"{FORM}, {FORM}", b"why=x", 415),
    "a form with files": ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="why"\r\n\r\nx\r\n--b--', 415),
    "a codec of quadratic time": ("multipart/form-data; boundary=b; charset=punycode", b"", 415),
    "a codec of surrogates": (f"{FORM}; charset=unicode_escape", b"why=\\ud800", 415),
    "JSON": ("application/json", b"{}", 415),
    "text": ("text/plain", b"why=x", 415),
    "other bytes": (FORM, b"why=\xec\x84\x9c", 400),
    "no UTF-8": (FORM, b"why=%FF", 400),
    "a surrogate": (FORM, b"why=%ED%A0%80", 400),
    "too many fields": (FORM, b"why=x&" * 101, 400),
}


def test_a_form_is_taken_as_browsers_and_htmx_send_it_and_in_no_other_way(door: Open) -> None:
    client = door()
    for case, (content_type, content, status) in BODIES.items():
        refused = client.post("/status/pause/sending", content=content, headers={"Content-Type": content_type})
        assert refused.status_code == status and "This form cannot be read" in Page(refused).words, case
    assert "Nothing is paused." in Page(client.get("/status")).words
    for content_type in (FORM, f"{FORM};charset=UTF-8", f'{FORM.upper()}; Charset="utf-8"'):
        form = {"content": b"other=&why=%EC%84%9C%EB%B2%84+moves&x", "headers": {"Content-Type": content_type}}
        assert client.post("/status/pause/sending", **form).status_code == 303
        assert "서버 moves" in Page(client.get("/status")).words
        assert client.post("/status/resume/sending", headers={"Content-Type": content_type}).status_code == 303


def test_a_release_is_what_the_form_says(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam()[:3], image(View.L_MLO, PatientID="P2"))
    stepped.settle()
    client = door(Role.OPERATOR)
    here = f"/studies/{uid('study')}"
    page = Page(client.get(here))
    radios = page.all("input", type="radio")
    first = next(found for found in radios if "--patient-of" in found["value"])
    done = client.post(f"{here}/release", data={first["name"]: first["value"], "why": "same person"})
    assert done.status_code == 303
    stepped.settle()
    decision = stepped.study()["decisions"][0]
    assert (decision["answer"], decision["parameters"]["accept_patient"]) == ("accepted", True)
    assert decision["parameters"]["patient_of"] == first["value"].split()[-1]
    assert stepped.state() == "analysed"
    for wrong in ({"choice-1": "--exclude x"}, {"choice-1": "--view 1.2.3=VIEW"}, {"choice-1": "--rm -rf"}):
        assert client.post(f"{here}/release", data=wrong).status_code == 400
    assert len(stepped.study()["decisions"]) == 1


def test_a_study_is_sent_whatever_the_rules_say(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam()[:2])
    stepped.settle()
    assert stepped.state() == "incomplete"
    client = door(Role.OPERATOR)
    here = f"/studies/{uid('study')}"
    assert f"{here}/send" in Page(client.get(here)).actions()
    assert client.post(f"{here}/send", data={"to": "nobody"}).status_code == 400
    done = client.post(f"{here}/send", data={"to": "pacs", "why": "asked by phone"})
    stepped.settle()
    assert "Accepted: Send." in Page(client.get(done.headers["Location"])).words
    decision = stepped.study()["decisions"][0]
    assert (decision["kind"], decision["person"], decision["why"]) == ("send", "the operator", "asked by phone")
    assert {one["destination"] for one in stepped.study()["deliveries"]} == {"pacs"}


def test_buttons_are_for_those_who_may_press_them(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    here = f"/studies/{uid('study')}"
    viewer, operator, admin = (door(role) for role in Role)
    for address in ("/", here, "/deliveries", "/status"):
        assert Page(viewer.get(address)).actions() == set()
    assert Page(operator.get("/")).actions() == {"/api/v1/files"}
    assert {f"{here}/reprocess", f"{here}/withdraw"} <= Page(operator.get(here)).actions()
    assert Page(operator.get("/status")).actions() == set()
    assert Page(admin.get("/status")).actions() == {"/status/pause/sending", "/status/pause/analysing"}
    assert "Signed in as the viewer (viewer)" in Page(viewer.get("/")).words

    refused = viewer.post(f"{here}/reprocess")
    assert refused.status_code == 403 and "Your role may not do this" in Page(refused).words
    assert operator.post("/status/pause/sending").status_code == operator.post("/deliveries/retry").status_code == 403
    assert stepped.study()["decisions"] == []


def test_an_image_that_is_forwarded_is_told_apart_from_a_result(stepped: SteppedStore, door: Open) -> None:
    stepped.ruling = FixedRuling(forward_to=("archive",))
    stepped.receive(*exam())
    stepped.settle()
    client, here = door(), f"/studies/{uid('study')}"
    for address in (here, "/deliveries"):
        words = Page(client.get(address)).words
        assert words.count("Image as received") == 4 and "Structured report" in words and "Result page" in words
    assert "수신한 원본 영상" in Page(client.get(here, headers={"Accept-Language": "ko"})).words


def test_a_delivery_that_was_given_up_is_retried_from_its_study_and_in_a_group(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    [claim] = stepped.ledger.claim()
    for one in stepped.begin(claim.workflow_id):
        stepped.ledger.refused(one.delivery_id, 0xA700, "the <disk> is full there")
    client = door()
    here = f"/studies/{uid('study')}"
    page = Page(client.get(here))
    assert "the <disk> is full there" in page.words and "Mend what the reason names" in page.words
    retries = sorted(action for action in page.actions() if action.endswith("/retry"))
    assert len(retries) == 2
    of_another = client.post(retries[0].replace(uid("study"), "1.2.3"))
    assert of_another.status_code == 409 and "no such delivery" in of_another.text, "a delivery is retried from its own study only"
    assert client.post(f"{here}/deliveries/{10**30}/retry").status_code == 400
    done = client.post(retries[0])
    assert done.headers["Location"] == f"{here}?told=retried&count=1"
    assert "1 will be sent again." in Page(client.get(done.headers["Location"])).words
    again = client.post(retries[0])
    assert again.status_code == 409 and 'role="alert"' in again.text
    group = Page(client.get("/deliveries"))
    assert "Retry all 1" in group.words
    for wrong in ({"state": "sent", "destination": "pacs"}, {"state": "refused", "destination": "\x00"}):
        assert client.post("/deliveries/retry", data=wrong).status_code == 400
    done = client.post("/deliveries/retry", data={"state": "refused", "destination": "pacs"})
    assert done.headers["Location"] == "/deliveries?told=retried&count=1"
    assert {one["state"] for one in stepped.study()["deliveries"]} == {"waiting"}
    assert "Nothing was given up." in Page(client.get("/deliveries")).words


def test_the_status_page_pauses_and_resumes(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    client = door()
    words = Page(client.get("/status")).words
    assert "no receiver is running" in words and "GiB free" in words and "things need a person" in words
    done = client.post("/status/pause/sending", data={"why": "the PACS moves"})
    assert done.headers["Location"] == "/status?told=paused"
    page = Page(client.get("/status?told=paused"))
    assert "Sending is paused since" in page.words and "by the admin." in page.words and "the PACS moves" in page.words
    assert "Sending is paused since" in Page(client.get(f"/studies/{uid('study')}")).words
    assert "/status/resume/sending" in page.actions() and "/status/pause/sending" not in page.actions()
    assert client.post("/status/resume/sending").status_code == 303
    assert "Nothing is paused." in Page(client.get("/status")).words
    assert client.post("/status/pause/everything").status_code == client.post("/status/stop/sending").status_code == 404


# ------------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("name", ["patient_id", "state", "device", "calling_ae_title", "predicted_class", "after"])
def test_a_condition_with_control_characters_is_refused(stepped: SteppedStore, door: Open, name: str) -> None:
    assert door().get("/", params={name: "A\x00B"}).status_code == 400


def test_a_reason_keeps_no_control_characters(stepped: SteppedStore, door: Open) -> None:
    stepped.receive(*exam())
    stepped.settle()
    assert door().post(f"/studies/{uid('study')}/reprocess", data={"why": "a\x00b\x1b[31m"}).status_code == 303
    [asked] = stepped.study()["decisions"]
    assert asked["why"] == "a b [31m"


@pytest.mark.parametrize("wrong", ["1.2.x", "1.2.3." + "1" * 60, "..%2f..%2fetc", "1.2.3%0A", "%3Cscript%3E"])
def test_what_is_no_uid_is_not_found(door: Open, wrong: str) -> None:
    response = door().get(f"/studies/{wrong}")
    assert response.status_code == 404
    assert "<script>" not in response.text


def test_an_unknown_study_is_said_in_words(door: Open) -> None:
    response = door(language="ko").get("/studies/1.2.3")
    assert response.status_code == 404
    page = Page(response)
    assert "찾을 수 없습니다" in page.words and "no study 1.2.3 is known here" in page.words and page.all("p", role="alert")
    assert door().post("/studies/1.2.3/reprocess").status_code == 404


def test_a_database_that_is_away_is_said_in_words(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "fourview.db")
    engine = write_engine(f"sqlite:///{tmp_path / 'fourview.db'}")
    stepped = SteppedStore(engine, tmp_path / "files")
    with opened(stepped, tmp_path) as url:
        headers = {"Authorization": "Bearer admin", "Accept-Language": "en"}
        assert httpx.get(f"{url}/", headers=headers, trust_env=False).status_code == 200
        with engine.begin() as connection:
            for name in ("study", "instance", "decision"):
                connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO gone_{name}")
        for address in ("/", "/studies/1.2.3"):
            response = httpx.get(f"{url}{address}", headers=headers, trust_env=False)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
            assert "The database does not answer." in Page(response).words
        status = httpx.get(f"{url}/status", headers=headers, trust_env=False)
        assert status.status_code == 200 and "nothing is received, read or sent" in Page(status).words
    engine.dispose()


def test_static_files_are_ours_alone_and_may_be_kept(door: Open) -> None:
    client = door(Role.VIEWER)
    for name, content_type in dashboard._STATIC.items():
        response = client.get(f"/static/{name}")
        assert response.status_code == 200 and response.headers["Content-Type"] == content_type
        assert "immutable" in response.headers["Cache-Control"]
        assert response.content == (STATIC / name).read_bytes()
    for name in ("htmx.LICENSE", "..%2fweb.py", "%2e%2e/web.py", "nothing.css"):
        assert client.get(f"/static/{name}").status_code == 404


# ---------------------------------------------------------------------------------------------------------------- cards, words


def asked_for(view: str | None, number: int, **score: object) -> dict[str, object]:
    known = {"background": False, "state": "waiting", "id": number, "model_key": "k"}
    return {
        "sop_instance_uid": f"1.2.{number}",
        "disposition": "on demand",
        "patient_id": "P1",
        "view": view,
        "file": number,
        "warnings": [],
        "scores": [{**known, **score}],
    }


def test_images_on_demand_are_cards_too() -> None:
    scored = {
        "state": "scored",
        "predicted_class": "Mass",
        "probability": 0.6,
        "all_probabilities": {"Mass": 0.6, "Normal": 0.4},
        "engine": "torch",
        "trained": True,
        "preview": True,
        "heat_map": True,
        "warnings": [],
    }
    images = [asked_for(None, 1), asked_for("L-CC", 2, **scored), asked_for(None, 3, state="failed", error="broken"), asked_for("R-CC", 4)]
    study = {"state": "ignored", "runs": [], "images": images}
    assert cards_of_views(study) == []
    found = cards_of_images(study)
    assert [(card.title, card.number, card.state) for card in found] == [
        ("R-CC", 0, CardState.WAITING),
        ("L-CC", 0, CardState.SCORED),
        ("", 1, CardState.WAITING),
        ("", 2, CardState.FAILED),
    ]
    assert found[1] == Card(
        title="L-CC",
        state=CardState.SCORED,
        sop_instance_uid="1.2.2",
        patient_id="P1",
        predicted_class="Mass",
        probability=0.6,
        scores=(("Mass", 0.6), ("Normal", 0.4)),
        engine="torch",
        score_id=2,
        heat_map=True,
    )
    assert [card.tone for card in found] == ["grey", "red", "grey", "grey"]


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_both_languages_fill_in_the_same() -> None:
    for key, sentence in SENTENCES.items():
        assert placeholders(sentence.en) == placeholders(sentence.ko), key
        assert sentence.en.strip() and sentence.ko.strip(), key
        assert key == "drop_failed" or not sentence.ko.isascii(), key


def test_every_sentence_is_said_and_every_one_that_is_said_is_known() -> None:
    sources = [*TEMPLATES.iterdir(), *(Path(dashboard.__file__).parent / name for name in _SAYING)]
    text = "\n".join(path.read_text() for path in sources)
    said = set(re.findall(r"\bt\(\s*[\"']([a-z_A-Z]+)[\"'](?!\s*~)", text))
    assert said <= set(SENTENCES), said - set(SENTENCES)
    beginnings = set(re.findall(r"[\"']([a-z]+_)[\"']\s*~", text))
    quoted = set(re.findall(r"[\"']([a-z_A-Z0-9]+)[\"']", text))
    states = {"collecting", "analysing", "analysed", "incomplete", "held", "ignored", "failed", "withdrawn"}
    unsaid = {key for key in set(SENTENCES) - quoted - states if not any(key.startswith(one) for one in (*beginnings, "error_"))}
    assert unsaid == set()


_SAYING = ("dashboard.py", "pages.py", "pictures.py", "choices.py")


# -------------------------------------------------------------------------------------------------------------------- colours

#: Text colour, background: what stands upon what in page.css.
PAIRS = (
    ("ink", "paper"),
    ("ink", "panel"),
    ("ink", "sunk"),
    ("quiet", "paper"),
    ("quiet", "panel"),
    ("accent", "paper"),
    ("accent", "panel"),
    ("on-accent", "accent"),
    *((f"on-{name}", name) for name in ("research", "alarm", "good", "note", "red", "orange", "yellow", "green", "grey")),
)


def palettes() -> dict[str, dict[str, str]]:
    css = (STATIC / "page.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    read = {
        name: dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part))
        for name, part in (("light", light.split("}")[0]), ("dark", dark.split("}")[0]))
    }
    assert read["light"].keys() == read["dark"].keys()
    return read


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    """WCAG 2.2, 1.4.3 (AA): 4.5 to 1; 1.4.11 for what shows the keyboard's place and the fields: 3 to 1."""
    colours = palettes()[scheme]
    weak = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in PAIRS}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}
    for ground in ("paper", "panel"):
        assert contrast(colours["focus"], colours[ground]) >= 3
        assert contrast(colours["fill-grey"], colours[ground]) >= 3


def test_the_style_sheet_names_each_colour_once() -> None:
    css = (STATIC / "page.css").read_text()
    rules = re.sub(r"(?s)/\*.*?\*/", "", css.split("* { box-sizing")[1])
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", rules)) <= {"#000", "#d5dce3", "#b4bfca"}, "on the black ground of pictures"
    assert contrast("#b4bfca", "#000000") >= 4.5
    assert set(re.findall(r"var\(--([a-z-]+)\)", css)) <= set(palettes()["light"]) | {"shadow"}


def test_the_catalogue_has_the_languages_of_results() -> None:
    assert catalogue.LANGUAGES == ("en", "ko") == catalogue.Sentence._fields
