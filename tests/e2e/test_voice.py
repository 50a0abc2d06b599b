"""Labels by voice in the browser: the microphone plays a clip of espeak-ng; a key is held, and let go."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests import speech
from tests.e2e.conftest import Pages
from tests.e2e.hand import Hand
from tests.e2e.serving import ARGUMENTS, Server, chromium

BEFORE = 1.5  # seconds of quiet before the word: the microphone may be open so long before the key is down
SECONDS = 2.7  # that the key is held


@pytest.fixture(scope="module", autouse=True)
def _speech() -> None:
    speech.available()


@pytest.fixture(scope="module")
def microphone(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Callable[..., None]]]:
    """A browser whose microphone plays a file from its opening on, and what writes that file."""
    path = tmp_path_factory.mktemp("microphone") / "clip.wav"

    def play(samples: np.ndarray) -> None:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(speech.RATE)
            file.writeframes(speech.clip(samples))

    play(np.zeros(speech.RATE))
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = [*ARGUMENTS, *fake, f"--use-file-for-fake-audio-capture={path}"]
    opened = browser.browser_type.launch(executable_path=chromium(), args=arguments)
    yield opened, play
    opened.close()


@pytest.fixture
def talk(microphone: tuple[Any, Callable[..., None]], server: Server) -> Iterator[Talk]:
    pages = Pages(microphone[0])
    page = pages(server, width=1000, height=700)
    page.wait_for_selector(".tile img")
    talk = Talk(page, microphone[1])
    yield talk
    pages.close()
    pages.check()


class Talk:
    """A person who marks by voice, on an image that nobody has marked.

    Args:
        page: Of Playwright.
        play: Sets what the microphone hears from the next opening on.
    """

    def __init__(self, page: Any, play: Callable[..., None]) -> None:
        self.page, self._play = page, play
        self.hand = Hand(page)
        self.image = self.hand.show(next(i["name"] for i in self.hand.items("&state=unmarked&search=drawn")))

    def hears(self, word: str) -> None:
        """What the microphone hears after its next opening."""
        self._play(speech.say(word, before=BEFORE, after=9) if word else np.zeros(speech.RATE))

    def hold(self, seconds: float = SECONDS) -> None:
        """Hold the key from when the microphone is open."""
        self.page.keyboard.down("t")
        self.page.wait_for_selector(".heard:has-text('Listening')")
        self.page.wait_for_timeout(seconds * 1000)
        self.page.keyboard.up("t")

    def label(self) -> str | None:
        """The label of the image, as the server has it."""
        found = self.page.evaluate(f"fetch('/api/images/{self.image['id']}/frames/0/marks').then(r => r.json())")
        return found["label"]


def test_a_word_is_shown_accepted_with_a_tap_and_undone(talk: Talk) -> None:
    page = talk.page
    talk.hears("malignant")
    talk.hold()
    page.wait_for_selector(".heard strong:text-is('malignant?')")
    assert "label of the whole image" in page.inner_text(".heard")
    assert "malignant? label of the whole image" in talk.hand.told()
    assert talk.label() is None, "a word that is only shown counts for nothing"
    page.keyboard.press("t")
    page.wait_for_selector(".heard", state="detached")
    page.wait_for_selector(".status:has-text('image is malignant')")
    talk.hand.saved()
    assert talk.label() == "malignant"
    page.keyboard.press("z")
    page.wait_for_selector(".status:has-text('Undone: label malignant')")
    talk.hand.saved()
    assert talk.label() is None


def test_the_button_is_held_and_another_image_drops_the_word(talk: Talk) -> None:
    page = talk.page
    talk.hears("normal")
    page.hover("[aria-label='Hold and say a word']")
    page.mouse.down()
    page.wait_for_selector(".heard:has-text('Listening')")
    page.wait_for_timeout(SECONDS * 1000)
    page.mouse.up()
    page.wait_for_selector(".heard strong:text-is('normal?')")
    page.keyboard.press("d")
    page.wait_for_selector(".heard", state="detached")
    assert talk.label() is None


def test_silence_a_tap_and_a_key_held_too_long_are_told(talk: Talk) -> None:
    page = talk.page
    talk.hears("")
    page.keyboard.press("t")
    page.wait_for_selector(".status:has-text('Hold the key while you speak')")
    talk.hold(0.6)
    page.wait_for_selector(".status:has-text('Silence; is the microphone the right one')")
    page.keyboard.down("t")
    page.wait_for_selector(".status:has-text('Held for more than 4 seconds')")
    page.keyboard.up("t")
    assert talk.label() is None


def answer(talk: Talk, name: str | None, kind: str) -> None:
    """Whatever is said, this is heard: what recognition does is tested elsewhere."""
    word = name and {"name": name, "kind": kind}
    talk.page.route("**/api/voice", lambda r: r.fulfill(json={"word": word, "text": name or "not understood"}))


def test_what_a_word_does_is_what_the_key_does(talk: Talk) -> None:
    page = talk.page
    talk.hears("")
    answer(talk, "benign", "class")
    talk.hold(0.4)
    page.wait_for_selector(".heard strong:text-is('benign?')")
    page.keyboard.press("Escape")
    page.wait_for_selector(".heard", state="detached")
    assert talk.label() is None
    talk.hand.mouse([(60, 60), (90, 80)])
    (mark,) = talk.hand.expect(1)
    assert "benign" in mark or "malignant" in mark
    page.locator("#marks .row-main").first.click()
    other = "malignant" if "benign" in mark else "benign"
    answer(talk, other, "class")
    talk.hold(0.4)
    page.wait_for_selector(".heard:has-text('class of lesion 1')")
    page.keyboard.press("t")
    page.wait_for_selector(f"#marks :text('{other}')")
    answer(talk, "undo", "command")
    talk.hold(0.4)
    page.wait_for_selector(f".heard:has-text('take back: class {other}')")
    page.click(".heard .primary")
    page.wait_for_selector(f"#marks :text('{other}')", state="detached")
    answer(talk, None, "command")
    talk.hold(0.4)
    page.wait_for_selector(".status:has-text('Not understood')")
    page.keyboard.press("z")
    talk.hand.expect(0)


def test_a_microphone_that_is_refused_is_told(page: Any, hand: Hand) -> None:
    page.evaluate(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError')); 0"
    )
    page.keyboard.press("t")
    page.wait_for_selector(".status:has-text('The browser may not use the microphone: allow it')")
    page.evaluate(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotFoundError')); 0"
    )
    page.keyboard.press("t")
    page.wait_for_selector(".status:has-text('No microphone was found')")


def test_without_pocketsphinx_the_page_says_what_to_install(page: Any, hand: Hand) -> None:
    project = page.evaluate("fetch('/api/project').then(r => r.json())")
    page.route("**/api/project", lambda r: r.fulfill(json={**project, "voice": False}))
    message = "labels by voice need PocketSphinx; install it with: pip install 'ultraad[voice]'"
    nothing = {
        "installed": False,
        "message": message,
        "longest": 4,
        "rate": 16000,
        "words": [],
        "silent": [],
        "said": {},
    }
    page.route("**/api/voice", lambda r: r.fulfill(json=nothing))
    page.reload()
    page.wait_for_selector("#stage")
    assert page.locator("[aria-label='Hold and say a word']").count() == 0
    page.keyboard.press("t")
    page.wait_for_selector(".status:has-text(\"pip install 'ultraad[voice]'\")")
    page.click(".who")
    page.wait_for_selector("dialog :text(\"pip install 'ultraad[voice]'\")")
    page.keyboard.press("Escape")


def test_settings_say_how_a_class_is_said(page: Any) -> None:
    page.click(".who")
    page.wait_for_selector("text=How each class is said")
    assert "accept, next, skip, undo" in page.inner_text("dialog")
    field = page.locator("dialog fieldset:has-text('How each class is said') input").nth(1)
    field.fill("xqzt")
    field.press("Tab")
    page.wait_for_selector("dialog :text(\"Cannot be said: 'xqzt' is in no dictionary here\")")
    field.fill("")
    field.press("Tab")
    page.wait_for_selector("dialog :text('Cannot be said')", state="detached")
    page.keyboard.press("Escape")
