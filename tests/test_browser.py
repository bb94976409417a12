"""The pages in a real browser against a real `fourview serve`: what people see, press, type and drop, and that they need no mouse."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest
from fourview_process import FourviewProcess
from mammograms_made import mammogram, uid
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright
from pydicom.dataset import Dataset

from listener.users import hashed
from pipeline.wording import ENGLISH, KOREAN
from store.study import HANGING_ORDER, View

PASSWORDS = {"viewer": "only looking here", "admin": "may do everything"}
#: How long a page may take to show what has happened, in milliseconds.
SOON = 90_000


def exam(study: str, **overrides: Any) -> list[Dataset]:
    return [mammogram(view, study=study, **overrides) for view in HANGING_ORDER]


def part10(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def fourview(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[FourviewProcess]:
    """One installation for the whole file, with the demonstration's weights, which give heat maps, and two people."""
    people = "".join(
        f'[[user]]\nname = "{name}"\nrole = "{name}"\npassword_hash = "{hashed(password)}"\n' for name, password in PASSWORDS.items()
    )
    made = FourviewProcess(
        tmp_path_factory.mktemp("browser") / "fourview",
        dicom_port=free_port(),
        http_port=free_port(),
        pacs_port=free_port(),
        pacs_url="http://127.0.0.1:9",
        demo_weights=True,
        tables=people,
    )
    try:
        yield made.start(seconds=240)
    finally:
        made.stop()


@pytest.fixture(scope="module")
def chromium(needs_program: Callable[[str], str]) -> Iterator[Browser]:
    program = needs_program("chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=SOON)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Visit:
    """A person's browser. `complaints`: what it had to say of our pages, which must be nothing."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.complaints: list[str] = []
        context.set_default_timeout(SOON)
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective}`))"
        )
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def polled(self) -> None:
        """Wait until the page has renewed itself once more."""
        with self.page.expect_response(lambda response: response.request.headers.get("hx-request") == "true"):
            pass


@pytest.fixture
def visit(chromium: Browser, fourview: FourviewProcess) -> Iterator[Callable[..., Visit]]:
    """Opens a browser as one of the people; at the end it must not have complained."""
    made: list[Visit] = []

    def open_as(name: str = "admin", *, width: int = 1280, locale: str = "en-GB", **options: Any) -> Visit:
        context = chromium.new_context(
            base_url=fourview.url,
            locale=locale,
            viewport={"width": width, "height": 900},
            http_credentials={"username": name, "password": PASSWORDS.get(name, "")},
            **options,
        )
        made.append(Visit(context))
        return made[-1]

    yield open_as
    for one in made:
        one.context.close()
        assert one.complaints == []


@pytest.fixture(scope="module")
def analysed(fourview: FourviewProcess) -> dict[str, Any]:
    """An exam that was read."""
    fourview.send(exam("read", PatientName="Kim^Ji-woo", PatientID="P7"))
    return fourview.wait_for_state(uid("read"), "analysed", version=1, seconds=120)


@pytest.fixture(scope="module")
def doubtful(fourview: FourviewProcess) -> str:
    """A study with images of two patients; its UID."""
    images = exam("doubt", PatientName="Doubt^Dina")[2:]
    images[1].PatientID = "ANOTHER"
    fourview.send(images)
    fourview.wait_for_state(uid("doubt"), "held")
    return uid("doubt")


def test_nobody_comes_in_without_a_password(chromium: Browser, fourview: FourviewProcess, visit: Callable[..., Visit]) -> None:
    context = chromium.new_context(http_credentials={"username": "viewer", "password": "a wrong password"})
    response = context.new_page().goto(f"{fourview.url}/")
    assert response is not None and response.status == 401
    context.close()
    page = visit("viewer").page
    page.goto("/")
    expect(page.get_by_text("Signed in as viewer (viewer)")).to_be_visible()
    expect(page.locator("#drop")).to_have_count(0)


TONES = {"Mass": "red", "Calcification": "orange", "Architectural/Asymmetry": "yellow", "Normal": "green"}


def test_four_cards_say_what_was_computed(analysed: dict[str, Any], visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto(f"/studies/{uid('read')}")
    cards = page.locator(".card")
    assert [cards.nth(place).get_attribute("data-view") for place in range(4)] == [str(view) for view in HANGING_ORDER]
    expect(page.get_by_text(ENGLISH.untrained)).to_be_visible()
    for view, read in analysed["runs"][0]["selection"].items():
        card = page.locator(f'.card[data-view="{view}"]')
        numbers = dict(zip(read["scores"]["classes"], read["scores"]["probabilities"], strict=True))
        best = max(numbers, key=lambda name: numbers[name])
        expect(card.locator(".class")).to_have_text(ENGLISH.qualified(best))
        expect(card.locator(".score-line")).to_have_text(f"score {100 * numbers[best]:.1f} %")
        colour = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--fill-{TONES[best]}')")
        fill = card.locator(".card-body > .bar .fill")
        assert fill.evaluate("element => getComputedStyle(element).fill") == rgb(colour)
        assert card.evaluate("element => getComputedStyle(element).borderTopColor") == rgb(colour)
        bar, filled = card.locator(".card-body > .bar").bounding_box(), fill.bounding_box()
        assert bar and filled and abs(filled["width"] / bar["width"] - numbers[best]) < 0.01
        expect(card.locator(".scores")).to_be_hidden()
        card.locator("summary").click()
        told = card.locator(".scores tbody tr").all_inner_texts()
        assert [line.split("\t")[:2] for line in told] == [[name, f"{100 * number:.1f} %"] for name, number in numbers.items()]
        picture = card.locator("img.plain")
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalHeight") == 256


def rgb(colour: str) -> str:
    channels = [int(colour.strip()[place : place + 2], 16) for place in (1, 3, 5)]
    return f"rgb({channels[0]}, {channels[1]}, {channels[2]})"


def test_heat_maps_are_switched_by_keyboard_and_stay_as_they_are(analysed: dict[str, Any], visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    page.goto(f"/studies/{uid('read')}")
    shown = page.locator(".card", has=page.locator("img.heat")).first
    switch = page.get_by_role("switch", name="Show heat maps")
    expect(shown.locator("img.plain")).to_be_visible()
    expect(shown.locator("img.heat")).to_be_hidden()
    switch.focus()
    page.keyboard.press("Space")
    expect(shown.locator("img.heat")).to_be_visible()
    expect(shown.get_by_text("Shows what influenced the score. Not a lesion location.")).to_be_visible()
    page.wait_for_function("image => image.complete && image.naturalHeight === 256", arg=shown.locator("img.heat").element_handle())
    one.polled()
    expect(switch).to_be_checked()
    expect(shown.locator("img.heat")).to_be_visible()
    page.keyboard.press("Space")
    expect(shown.locator("img.heat")).to_be_hidden()


def test_analyse_again_and_nothing_typed_is_lost_meanwhile(
    analysed: dict[str, Any], fourview: FourviewProcess, visit: Callable[..., Visit]
) -> None:
    one = visit()
    page = one.page
    page.goto(f"/studies/{uid('read')}")
    act = page.locator("form", has=page.get_by_role("button", name="Analyse again"))
    act.get_by_label("Reason").fill("a second look")
    page.locator(".card summary").first.click()
    one.polled()
    one.polled()
    expect(act.get_by_label("Reason")).to_have_value("a second look")
    expect(page.locator(".card details").first).to_have_attribute("open", "")
    act.get_by_role("button").click()
    expect(page.locator("#answer .toast.good")).to_contain_text("Accepted: Analyse again. analysed: nothing changed")
    decision = fourview.show(uid("read"))["decisions"][-1]
    assert (decision["kind"], decision["person"], decision["why"]) == ("reprocess", "admin", "a second look")


def test_what_cannot_be_done_is_told_in_a_toast(doubtful: str, visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto(f"/studies/{doubtful}")
    page.get_by_role("button", name="Release with this choice").click()
    refused = page.get_by_role("alert")
    expect(refused).to_contain_text("Not done: Release.")
    expect(refused).to_be_in_viewport()
    page.get_by_label(re.compile(r"Drop image L-MLO")).check()
    page.get_by_role("button", name="Release with this choice").click()
    expect(page.locator("#answer .toast.good")).to_contain_text("Accepted: Release.")


def test_a_study_comes_and_goes_without_a_reload(fourview: FourviewProcess, visit: Callable[..., Visit]) -> None:
    one = visit()
    listed, opened = one.page, one.context.new_page()
    listed.goto("/")
    listed.evaluate("window.notReloaded = true")
    fourview.send(exam("gone", PatientName="Gone^Gina")[:1])
    row = listed.locator("tbody tr", has_text="Gone, Gina")
    expect(row.locator(".pill")).to_have_text("Collecting")
    expect(row).to_contain_text("waiting for L-CC, R-MLO, L-MLO until ")
    opened.goto(f"/studies/{uid('gone')}")
    fourview.run("forget", uid("gone"), "--yes")
    opened.get_by_role("button", name="Analyse again").click()
    toasts = opened.get_by_role("alert").filter(has_text="was forgotten")
    expect(toasts.first).to_be_in_viewport()
    opened.wait_for_load_state("networkidle")
    while toasts.count():
        toasts.first.get_by_role("button", name="Close").click()
    expect(row).to_have_count(0)
    assert listed.evaluate("window.notReloaded")


def test_a_server_that_is_away_is_told_and_comes_back(analysed: dict[str, Any], visit: Callable[..., Visit]) -> None:
    one = visit()
    page = one.page
    page.goto("/")
    one.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    one.context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0)
    one.complaints[:] = [said for said in one.complaints if "ERR_INTERNET_DISCONNECTED" not in said and "Failed to fetch" not in said]


DROP = """async ([files]) => {
  const dropped = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    dropped.items.add(new File([bytes], name));
  }
  return dropped;
}"""


def test_four_dropped_files_become_a_finished_result(fourview: FourviewProcess, visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto("/")
    files = [[f"{ds.ViewPosition}.dcm", base64.b64encode(part10(ds)).decode()] for ds in exam("dropped", PatientName="Dropped^Dora")]
    dropped = page.evaluate_handle(DROP, [files])
    page.dispatch_event("#drop", "dragenter", {"dataTransfer": dropped})
    expect(page.locator("#drop")).to_have_class(re.compile("over"))
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.wait_for_url(f"**/studies/{uid('dropped')}")
    expect(page.locator(".card.scored")).to_have_count(4)
    expect(page.get_by_role("heading", name="Read on demand")).to_be_visible()
    study = fourview.show(uid("dropped"))
    scored = {image["view"]: image["scores"][0]["probability"] for image in study["images"]}
    for view in HANGING_ORDER:
        line = page.locator(f'.card[data-view="{view}"] .score-line')
        expect(line).to_have_text(f"score {100 * scored[view]:.1f} %")
    assert study["deliveries"] == [] and study["runs"] == []

    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#answer .toast.good")).to_contain_text("Accepted: Send.")
    expect(page.locator(".study-state .pill")).to_have_text("Analysed")
    expect(page.get_by_role("heading", name="Read on demand")).to_have_count(0)
    assert {one["destination"] for one in fourview.show(uid("dropped"))["deliveries"]} == {"orthanc"}


def test_a_file_that_is_no_image_is_told_with_its_name(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto("/")
    page.set_input_files("#files", [{"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear colleague"}])
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("letter.txt: ")


def test_what_could_be_read_beside_it_is_one_study(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto("/")
    image = part10(mammogram(View.R_CC, study="beside", PatientName="Beside^Bea"))
    letter = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear colleague"}
    page.set_input_files("#files", [letter, {"name": "one.dcm", "mimeType": "application/dicom", "buffer": image}])
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("letter.txt: ")
    expect(page.locator("#drop-state")).to_have_text(f"The other files belong to this study: {uid('beside')}")


def test_without_javascript_everything_is_read_and_posted(analysed: dict[str, Any], visit: Callable[..., Visit]) -> None:
    page = visit(java_script_enabled=False).page
    page.goto("/")
    content = part10(mammogram(View.L_CC, study="plain", PatientName="Plain^Paula"))
    page.set_input_files("#files", [{"name": "one.dcm", "mimeType": "application/dicom", "buffer": content}])
    page.get_by_role("button", name="Analyse", exact=True).click()
    page.wait_for_url(f"**/studies/{uid('plain')}")
    page.goto(f"/studies/{uid('read')}")
    page.get_by_role("switch").check()
    expect(page.locator("img.heat").first).to_be_visible()
    page.get_by_role("button", name="Analyse again").click()
    page.wait_for_url(f"**/studies/{uid('read')}?asked=*")
    expect(page.locator("#answer .toast")).to_contain_text("Analyse again")


def test_korean_by_browser_and_by_choice(analysed: dict[str, Any], visit: Callable[..., Visit]) -> None:
    page = visit(locale="ko-KR").page
    page.goto("/")
    expect(page.get_by_role("heading", name="검사", exact=True)).to_be_visible()
    page.goto(f"/studies/{uid('read')}")
    expect(page.get_by_text(KOREAN.banner)).to_be_visible()
    expect(page.locator(".card").first).to_contain_text(KOREAN.highest_class_label)
    page.get_by_role("link", name="English").click()
    expect(page.get_by_text(ENGLISH.banner)).to_be_visible()
    page.get_by_role("link", name="Status").click()
    expect(page.get_by_role("heading", name="Status", exact=True)).to_be_visible()


def test_no_mouse_is_needed(analysed: dict[str, Any], visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto("/?patient_id=P7")

    def focused(property_: str) -> str:
        return str(page.evaluate(f"getComputedStyle(document.activeElement).{property_}"))

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            assert focused("outlineStyle") != "none" and focused("outlineWidth") != "0px", "where the keyboard is can be seen"
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"the keyboard does not come to {selector}")

    tab_to("a.skip")
    expect(page.locator("a.skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    tab_to(f'a[href="/studies/{uid("read")}"]')
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{uid('read')}")
    tab_to("#heat-maps")
    page.keyboard.press("Space")
    expect(page.locator("img.heat").first).to_be_visible()
    tab_to("#why-reprocess")
    page.keyboard.type("by keyboard")
    tab_to("form[action$='/reprocess'] button")
    page.keyboard.press("Enter")
    expect(page.locator("#answer .toast.good")).to_contain_text("nothing changed")


AUDIT = """() => {
  const told = [];
  const named = (element) => element.labels?.length || element.getAttribute('aria-label') || element.getAttribute('aria-labelledby');
  for (const image of document.images) if (!image.hasAttribute('alt')) told.push('no alt: ' + image.src);
  for (const field of document.querySelectorAll('input:not([type=hidden]), select')) if (!named(field)) told.push('no label: ' + field.id);
  for (const one of document.querySelectorAll('a, button')) if (!one.textContent.trim() && !named(one)) told.push('no name: ' + one.id);
  for (const cell of document.querySelectorAll('th')) if (!cell.scope) told.push('no scope: ' + cell.textContent);
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  for (const id of new Set(ids)) if (ids.indexOf(id) !== ids.lastIndexOf(id)) told.push('id twice: ' + id);
  for (const one of document.querySelectorAll('[aria-labelledby], [for]')) {
    const id = one.getAttribute('aria-labelledby') ?? one.getAttribute('for');
    if (!document.getElementById(id)) told.push('points nowhere: ' + id);
  }
  const levels = [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]));
  if (levels.filter((one) => one === 1).length !== 1) told.push('not one h1');
  levels.reduce((before, one) => { if (one > before + 1) told.push(`heading ${one} after ${before}`); return one; }, 0);
  if (!document.documentElement.lang || !document.title) told.push('no language or title');
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) told.push(`wider than the screen: ${root.scrollWidth} > ${root.clientWidth}`);
  return told;
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen_and_every_element_has_its_name(
    width: int, analysed: dict[str, Any], doubtful: str, visit: Callable[..., Visit]
) -> None:
    page = visit(width=width).page
    for address in ("/", "/?state=held", f"/studies/{uid('read')}", f"/studies/{doubtful}", "/deliveries", "/status"):
        response = page.goto(address)
        assert response is not None and response.status == 200, address
        assert page.evaluate(AUDIT) == [], address


# ------------------------------------------------------------------------------------------- a study that means harm

SCRIPT = "<script>window.owned=1</script>"
IMAGE = "\"'><img src=x onerror=window.owned=1>"
#: Every text that a device or a person may have written, within the lengths of PS3.5 where there are any.
HARM: dict[str, Any] = {
    "PatientName": f"{SCRIPT}^{IMAGE}={IMAGE}",
    "PatientID": f"{SCRIPT}{IMAGE}"[:64],
    "AccessionNumber": "<svg onload=x>",
    "StudyID": "<b onclick=x>",
    "ReferringPhysicianName": f"{IMAGE}^{SCRIPT}",
    "OperatorsName": SCRIPT,
    **dict.fromkeys(("StudyDescription", "SeriesDescription", "InstitutionName", "Manufacturer", "ManufacturerModelName"), IMAGE),
    **dict.fromkeys(("DeviceSerialNumber", "SoftwareVersions", "ProtocolName", "PatientComments", "ImageComments"), SCRIPT),
    **dict.fromkeys(("StationName", "DetectorID"), "<img src=x>"),
}
COMMON_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pytest.fixture(scope="module")
def harmful(fourview: FourviewProcess) -> str:
    """The UID of a study whose every text is hostile, read and sent."""
    fourview.send(exam("harm", **HARM))
    fourview.wait_for_state(uid("harm"), "analysed", version=1, seconds=120)
    return uid("harm")


def results_of(client: httpx.Client, study: str) -> list[dict[str, str]]:
    """The results of a study, by the words of a path."""
    found = client.get(f"/dicom-web/studies/{study}/instances", headers={"Accept": "application/dicom+json"}).json()
    tags = {"series": "0020000E", "instance": "00080018", "modality": "00080060"}
    return [{"study": study, **{name: str(one[tag]["Value"][0]) for name, tag in tags.items()}} for one in found]


def walked(client: httpx.Client, study: str) -> dict[str, httpx.Response]:
    """What every route answers to a GET about that study; those that only change something say 405."""
    addresses = ["/", "/?patient_id=%3Cscript%3E*", "/status", "/deliveries", f"/studies/{study}", "/metrics", "/openapi.json", "/nowhere"]
    addresses += [f"{below}/{SCRIPT}" for below in ("/studies", "/dicom-web/studies", "/api/v1/studies", "/nowhere", "/static")]
    addresses += [f"/?{name}={IMAGE}" for name in ("sender", "device", "state", "patient_id", "lang", "before")]
    for result in results_of(client, study):
        for path in client.get("/openapi.json").json()["paths"]:
            for name, value in result.items():
                path = re.sub(rf"\{{[^}}]*{name}[^}}]*\}}", value, path)
            addresses.append(re.sub(r"\{[^}]*\}", "1", path))
    kinds = ("text/html", "*/*")
    wanted = [(address, kind) for address in dict.fromkeys(addresses) for kind in kinds]
    return {f"{address} {kind}": client.get(address, headers={"Accept": kind}) for address, kind in wanted}


def test_no_route_hands_on_what_a_hostile_study_says_as_a_page(fourview: FourviewProcess, harmful: str) -> None:
    login = ("admin", PASSWORDS["admin"])
    with httpx.Client(base_url=fourview.url, auth=login, trust_env=False, timeout=120) as client:
        answers = walked(client, harmful)
        for path in ("/", "/healthz", "/dicom-web/studies", f"/studies/{harmful}"):
            answers[f"{path} nobody"] = httpx.get(f"{fourview.url}{path}", trust_env=False, timeout=120)
            answers[f"{path} elsewhere"] = client.post(path, headers={"Origin": "http://evil.example"})
            answers[f"{path} packed"] = client.post(path, headers={"Content-Encoding": "gzip"}, content=b"x")
    pages = 0
    for where, answer in answers.items():
        assert answer.status_code < 500, (where, answer.text[:300])
        assert {name: answer.headers.get(name) for name in COMMON_HEADERS} == COMMON_HEADERS, where
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy and "unsafe-eval" not in policy and not re.search("script-src[^;]*unsafe", policy), where
        assert answer.headers["Cache-Control"] == "no-store" or where.startswith("/static/"), where
        assert not [name for name in answer.headers if name.lower() == "set-cookie" and "lang" not in answer.headers[name]], where
        if "html" in answer.headers.get("Content-Type", ""):
            pages += 1
            for harm in ("<script>window", "<img src=x", "<svg onload", "<b onclick"):
                assert harm not in answer.text, where
    assert pages >= 10 and any("&lt;script&gt;" in answer.text for answer in answers.values())


def test_in_a_browser_nothing_of_a_hostile_study_runs(fourview: FourviewProcess, harmful: str, visit: Callable[..., Visit]) -> None:
    here = visit()
    dialogs: list[str] = []
    here.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    with httpx.Client(base_url=fourview.url, auth=("admin", PASSWORDS["admin"]), trust_env=False, timeout=120) as client:
        reports = [one for one in results_of(client, harmful) if one["modality"] == "SR"]
    rendered = [f"/dicom-web/studies/{harmful}/series/{one['series']}/instances/{one['instance']}/rendered" for one in reports]
    assert rendered
    odd = "/?device=%3Cimg+src%3Dx+onerror%3Dwindow.owned%3D1%3E"
    for address in ("/", f"/studies/{harmful}", "/deliveries", "/status", odd, *rendered):
        answer = here.page.goto(address)
        assert answer is not None and answer.status == 200, address
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], address
        assert here.page.evaluate("window.owned === undefined") and dialogs == [], address
        assert here.page.locator("img[src=x], svg[onload], b[onclick]").count() == 0, address
    here.page.goto(f"/studies/{harmful}")
    expect(here.page.locator("body")).to_contain_text("<script>window.owned=1</script>")
