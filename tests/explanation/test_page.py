"""The page holds the right numbers, survives hostile names, needs no network, and works in a real browser."""

import html
import json
import re

import numpy as np
import pytest

from imlenet_jax.explanation.explain import Sets
from imlenet_jax.explanation.page import json_for_script, write_page
from tests.browser import CHROMIUM, Browser

HOSTILE = "</script><b>x</b><!--<script>alert(1)</script> {{title}} {{data}} & \"'\u2028"


def payload(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_numbers_of_the_page_are_those_of_the_explanation(explain, tmp_path):
    explanation = explain()
    write_page(explanation, tmp_path / "record" / "page.html")
    data = payload((tmp_path / "record" / "page.html").read_text("utf-8"))
    np.testing.assert_allclose(data["signal"], explanation.signal_mv.T, rtol=1e-5)
    weights, attention = data["attention"], explanation.attention
    for level in ("beat", "rhythm", "channel"):
        np.testing.assert_allclose(weights[level], getattr(attention, level), rtol=1e-5)
    samples = np.array(weights["samples"]).reshape(12, 20, 50)
    together = samples * np.array(weights["rhythm"])[..., None] * np.array(weights["channel"])[:, None, None]
    np.testing.assert_allclose(together.reshape(12, 1000), attention.combined, rtol=1e-4)
    assert data["classes"][2] == {"name": "MI", "probability": 0.625, "threshold": 0.4, "predicted": True}


def test_names_of_any_kind_stay_text(explain, tmp_path):
    write_page(
        explain(name=HOSTILE, classes=("</script>", "b", "c", "d", "e"), notes=(HOSTILE,)), tmp_path / "page.html"
    )
    text = (tmp_path / "page.html").read_text("utf-8")
    data = payload(text)
    assert data["name"] == HOSTILE and data["notes"] == [HOSTILE]
    assert text.count("</script>") == 2 and "<b>x" not in text
    assert html.unescape(re.search("<title>(.*)</title>", text)[1]).startswith(HOSTILE)


def test_the_page_has_the_classes_that_cannot_be_ruled_out(explain, tmp_path):
    write_page(explain(sets=Sets(0.9, (0.1, 0.3, None, 0.5, 0.5))), tmp_path / "page.html")
    data = payload((tmp_path / "page.html").read_text("utf-8"))
    assert data["sets"] == {"coverage": 0.9, "possible": "CD, NORM (not judged: MI)"}


def test_the_page_has_the_gradients_of_each_class(explain, tmp_path):
    gradients = {"MI": np.linspace(-1, 1, 12000).reshape(12, 1000), "NORM": np.zeros((12, 1000))}
    write_page(explain(gradients=gradients), tmp_path / "page.html")
    found = payload((tmp_path / "page.html").read_text("utf-8"))["gradients"]
    assert list(found["classes"]) == ["MI", "NORM"] and "neither was found to follow an infarction" in found["limits"]
    np.testing.assert_allclose(found["classes"]["MI"], gradients["MI"], rtol=6e-3)
    write_page(explain(), tmp_path / "page.html")
    assert payload((tmp_path / "page.html").read_text("utf-8"))["gradients"] is None


def test_json_for_script_is_json():
    value = {"a": ["<!--", "</SCRIPT>", "&", 1.5, None]}
    assert json.loads(json_for_script(value)) == value
    with pytest.raises(ValueError, match="JSON compliant"):
        json_for_script(float("nan"))


def test_nothing_is_fetched(explain, tmp_path):
    write_page(explain(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "default-src 'none'" in text and not re.search(r"https?://|\bsrc=|@import|url\(", text)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium to try the page in (Debian: apt-get install chromium)")
    try:
        browser = Browser()
    except (OSError, RuntimeError) as error:
        pytest.skip(f"{CHROMIUM} does not start: {error}")
    with browser:
        yield browser


def read(browser: Browser) -> dict[str, str]:
    """What the line of the reading says, by name."""
    spans = "[...document.querySelectorAll('#readout span')].map(span => [span.dataset.is, span.textContent])"
    return dict(browser.evaluate(spans))


def place(browser: Browser, lead: int, sample: int) -> tuple[float, float]:
    """Where on the screen a sample of a lead is drawn."""
    x, y, left, top = browser.evaluate(
        f"(() => {{ const row = view.rows.find(r => r.lead === {lead}), box = canvas.getBoundingClientRect(); return ["
        f"toX({sample} / data.rate), row.y - data.signal[{lead}][{sample}] * view.mv, box.left, box.top]; }})()"
    )
    return left + x, top + y


def test_hovering_shows_the_right_numbers(browser, explain, tmp_path):
    explanation = explain(signal_mv=np.random.default_rng(0).normal(scale=0.05, size=(1000, 12)))
    attention = explanation.attention
    write_page(explanation, tmp_path / "page.html")
    browser.problems.clear()
    browser.requests.clear()
    browser.resize(1280, 1400)
    browser.open(tmp_path / "page.html")
    for lead, sample in ((0, 0), (3, 437), (8, 549), (11, 999)):
        browser.mouse("mouseMoved", *place(browser, lead, sample))
        shown, window, inside = read(browser), sample // 50, sample % 50
        position = min(12, max(0, round((inside - 1.5) / 4 + 1e-9)))
        assert shown["lead"] == explanation.leads[lead] and shown["time"] == f"{sample / 100:.3f} s"
        assert float(shown["mv"].split()[0]) == pytest.approx(explanation.signal_mv[sample, lead], abs=6e-4)
        assert f"(position {position + 1} of 13" in shown["beat"] and f"(window {window + 1} of 20" in shown["rhythm"]
        for name, weight in (
            ("beat", attention.beat[lead, window, position]),
            ("rhythm", attention.rhythm[lead, window]),
            ("channel", attention.channel[lead]),
            ("together", 12000 * attention.combined[lead, sample]),
        ):
            text = shown["combined" if name == "together" else name]
            assert float(text.split()[1]) == pytest.approx(weight, rel=6e-3), (name, text)
    assert browser.problems == []
    assert browser.requests == [(tmp_path / "page.html").as_uri()]


def test_controls(browser, explain, tmp_path):
    explanation = explain(name=HOSTILE)
    write_page(explanation, tmp_path / "page.html")
    browser.problems.clear()
    browser.resize(1280, 1400)
    browser.open(tmp_path / "page.html")
    assert browser.evaluate("document.querySelector('h1').textContent") == HOSTILE
    assert browser.evaluate("document.querySelectorAll('b:not(.bar b)').length") == 0

    def press(text: str) -> None:
        browser.evaluate(f"[...document.querySelectorAll('button')].find(b => b.textContent === '{text}').click()")

    def ticks() -> list[float]:
        return browser.evaluate("[...document.querySelectorAll('.ticks span')].map(s => Number(s.textContent))")

    channel = 12 * explanation.attention.channel
    press("channel")
    assert ticks()[0] == pytest.approx(channel.min(), rel=6e-3) and ticks()[-1] == pytest.approx(
        channel.max(), rel=6e-3
    )
    press("combined")
    combined = 12000 * explanation.attention.combined
    assert ticks()[-1] == pytest.approx(combined.max(), rel=6e-3)

    press("V3")
    assert browser.evaluate("view.rows.map(row => row.lead)") == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    press("none")
    assert browser.evaluate("view.rows.length") == 0
    press("all")

    press("+")
    assert browser.evaluate("[state.start, state.end]") == pytest.approx([1.875, 8.125])
    x, y = place(browser, 0, 500)
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x - 100, y, button="left")
    browser.mouse("mouseReleased", x - 100, y, button="left")
    start, moved = browser.evaluate("[state.start, 100 / view.second]")
    assert start == pytest.approx(1.875 + moved)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100, modifiers=2)
    assert browser.evaluate("state.end - state.start") < 6.25
    press("All")
    assert browser.evaluate("[state.start, state.end]") == [0, 10]

    browser.evaluate("canvas.focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowDown")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert read(browser)["lead"] == "II"
    assert browser.problems == []


def test_gradients_of_the_class_picked_are_read_and_drawn(browser, explain, tmp_path):
    draw = np.random.default_rng(1)
    gradients = {name: draw.normal(scale=0.01, size=(12, 1000)) for name in ("MI", "NORM")}
    write_page(explain(gradients=gradients), tmp_path / "page.html")
    browser.problems.clear()
    browser.resize(1280, 1400)
    browser.open(tmp_path / "page.html")

    def shown() -> float:
        browser.mouse("mouseMoved", *place(browser, 6, 321))
        name, value, _ = read(browser)["gradient"].split()
        return name, float(value.replace("\u2212", "-"))

    assert shown() == ("MI", pytest.approx(gradients["MI"][6, 321], rel=6e-3))
    total = browser.evaluate("document.querySelector('#bars span').textContent")
    written = float(re.search(r"all together (\S+) logits", total)[1].replace("\u2212", "-"))
    assert written == pytest.approx(gradients["MI"].sum(), rel=2e-2)
    press = "[...document.querySelectorAll('#gradients button')].find(b => b.textContent === '{}').click()"
    browser.evaluate(press.format("NORM"))
    assert shown() == ("NORM", pytest.approx(gradients["NORM"][6, 321], rel=6e-3))
    browser.evaluate(press.format("NORM"))  # off
    browser.mouse("mouseMoved", *place(browser, 6, 321))
    assert "gradient" not in read(browser) and browser.evaluate("document.getElementById('bars').hidden")
    assert browser.problems == []


def test_networks_without_attention_show_the_signal(browser, explain, tmp_path):
    write_page(explain(attention=None), tmp_path / "page.html")
    browser.problems.clear()
    browser.open(tmp_path / "page.html")
    browser.mouse("mouseMoved", *place(browser, 5, 100))
    assert set(read(browser)) == {"lead", "time", "mv"}
    assert "no attention" in browser.evaluate("document.getElementById('limits').textContent")
    assert browser.problems == []
