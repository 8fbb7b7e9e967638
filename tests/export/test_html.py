"""The page of a network: nothing from outside, the plan's answers bit for bit, pictures as Pillow reads them."""

import base64
import io
import json
import re
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from sepnet.anatomy import trace
from sepnet.data.pictures import read_picture
from sepnet.errors import SepnetError
from sepnet.export.html import programs
from sepnet.export.html.page import write_page
from sepnet.export.html.programs import CHROMIUM, NODE, Browser, find, run_in_node, run_page
from sepnet.export.int8 import reference
from sepnet.export.int8.plan import Multiplier, Plan
from tests.anatomy.random_networks import CHANNELS, residual_classifiers
from tests.export.int8_support import CLASSES, SHAPE, everything, pixels, plan_of, randomized

in_node = pytest.mark.skipif(find(*NODE) is None, reason="Node.js is not installed")
in_chromium = pytest.mark.skipif(find(*CHROMIUM) is None, reason="Chromium is not installed")
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def page_of(model: nn.Module, plan: Plan) -> bytes:
    height, width, channels = plan.image
    return write_page(plan, trace(model, (channels, height, width), name=plan.network)).content


def node(script: str, given: Any) -> Any:
    """Return what a function of a page's scripts gives: ``script`` is an expression of ``given``."""
    sources = [(programs.HERE / name).read_text() for name in ("network.js", "resize.js")]
    program = "\n".join([*sources, f"const given = {json.dumps(given)};", f"console.log(JSON.stringify({script}));"])
    done = subprocess.run([find(*NODE) or "node", "-"], input=program.encode(), capture_output=True, check=True)
    return json.loads(done.stdout)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a picture with smooth and with random parts."""
    rng = np.random.default_rng(width)
    y, x = (axis[..., None] for axis in np.mgrid[:height, :width])
    smooth = 127 + 120 * np.sin(x * [3, 5, 7] / width + y * [2, 4, 1] / height)
    noise = rng.integers(0, 256, (height, width, 3))
    return Image.fromarray(np.where(x > width // 3, smooth, noise).astype(np.uint8)).convert(mode)


def png(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def test_the_page_asks_for_nothing_from_outside_and_holds_names_as_text() -> None:
    page = page_of(*everything()).decode()
    assert page.partition("\n")[0] == "<!doctype html><!-- an int8 network, written by sepnet -->"
    assert len(page) < 200_000
    assert not re.search(
        r"https?://|//\w|@import|url\(|<link(?! rel=\"icon\" href=\"data:,\")|\b(src|srcset)=", _code(page)
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]
    assert "connect-src" not in policy[1]
    description = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert tuple(description["classes"]) == CLASSES
    model, plan = everything()
    plan = Plan(**{**vars(plan), "network": "<script>&", "classes": ("</script>", *CLASSES[1:])})
    page = page_of(model, plan).decode()
    assert page.count("</script>") == 5
    assert "<title>&lt;script&gt;&amp;</title>" in page


def _code(page: str) -> str:
    """Return a page without its comments and its constants in base64."""
    page = re.sub(r'"constants": "[^"]*"|(?<=\s)// .*', "", page)
    return re.sub(r"/\*.*?\*/", "", page, flags=re.DOTALL)


def test_only_pictures_of_one_or_three_channels_have_a_page() -> None:
    model = nn.Sequential(nn.Conv2d(2, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plan = plan_of(model, (2, 4, 4), mean=(0.5, 0.5), std=(1, 1))
    with pytest.raises(SepnetError, match="takes images of 2 channels: a page shows pictures of 1 or 3"):
        page_of(model, plan)


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda *_: None)
    with pytest.raises(SepnetError, match=r"in Chromium or Node\.js, and neither is on the path: install one"):
        run_page(b"", pixels(1))


@in_node
def test_every_operator_answers_as_the_reference() -> None:
    model, plan = everything()
    images = pixels(20, seed=2)
    assert torch.equal(run_in_node(page_of(model, plan), images).scores, reference.run(plan, images))


@pytest.mark.slow
@in_node
@settings(max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(residual_classifiers(), st.tuples(st.sampled_from([1, 3]), st.integers(8, 16), st.integers(8, 16)))
def test_random_residual_networks_answer_as_the_reference(blocks: nn.Module, shape: tuple[int, int, int]) -> None:
    model = nn.Sequential(nn.Conv2d(shape[0], CHANNELS, 1), blocks)
    with torch.no_grad():
        classes = model.eval()(torch.zeros(2, *shape)).shape[1]
    plan = plan_of(randomized(model), shape, mean=(0.4,) * shape[0], std=(0.2,) * shape[0], classes=CLASSES[:classes])
    images = pixels(10, shape, seed=5)
    assert torch.equal(run_in_node(page_of(model, plan), images).scores, reference.run(plan, images))


@in_node
def test_products_of_62_bits_are_rounded_exactly() -> None:
    """To the nearest, a half up, by rational numbers: extremes, halves and random totals, at every shift."""
    rng = np.random.default_rng(0)
    totals, factors, expected = [], [], []
    for shift in range(1, 62):
        for mantissa in (1 << 30, (1 << 31) - 1, int(rng.integers(1 << 30, 1 << 31))):
            halves = [
                round(Fraction((2 * step + 1) << shift, 2 * mantissa)) for step in (-129, -128, -41, -1, 0, 87, 126)
            ]
            near = [total + more for total in halves for more in (-1, 0, 1)]
            for total in (0, 1, -1, (1 << 31) - 1, -(1 << 31), *near):
                if -(1 << 31) <= total < 1 << 31:
                    totals.append(total)
                    factors.append(Multiplier(mantissa=mantissa, shift=shift))
                    nearest = floor(total * Fraction(mantissa, 1 << shift) + Fraction(1, 2))
                    expected.append(max(-128, min(127, nearest + 3)))
    given = {
        "totals": totals,
        "mantissas": [one.mantissa for one in factors],
        "shifts": [one.shift for one in factors],
    }
    found = node(
        """(() => {
          const values = new Int8Array(given.totals.length);
          scale(given.totals, multipliers(given.mantissas, given.shifts), { values, zero: 3 }, 0);
          return [...values];
        })()""",
        given,
    )
    assert len(set(expected)) > 20
    assert found == expected


@in_node
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_resized_as_pillow_does(channels: int) -> None:
    for width, height in [(40, 30), (9, 11), (31, 90), (7, 5), (9, 300), (120, 131)]:
        image = picture(width, height)
        rgba = base64.b64encode(image.convert("RGBA").tobytes()).decode()
        found = node(
            """(() => {
              const bytes = Uint8ClampedArray.from(atob(given.rgba), (letter) => letter.charCodeAt(0));
              const readRows = (left, top, width, height) => Uint8ClampedArray.from(
                { length: 4 * width * height },
                (_, i) => bytes[4 * ((top + Math.floor(i / 4 / width)) * given.width + left) + i % (4 * width)]);
              return [...fitPicture(given, readRows, given.shape)];
            })()""",
            {"rgba": rgba, "width": width, "height": height, "shape": [11, 9, channels]},
        )
        expected, _ = read_picture(image, (channels, 11, 9), "picture")
        steps = np.abs(expected.transpose(1, 2, 0).ravel().astype(int) - found)
        assert steps.max() <= ((width, height) != (9, 11)), (width, height)
        assert steps.mean() < 0.3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(*FAKE_CAMERA) as browser:
        yield browser


def opened(browser: Browser, page: bytes, folder: Path) -> None:
    file = folder / "page.html"
    file.write_bytes(page)
    browser.open(file.as_uri())


def read(browser: Browser, image: Image.Image) -> list[int]:
    """Return what the page makes of a picture."""
    bytes_of = f"Uint8Array.from(atob({json.dumps(png(image))}), (letter) => letter.charCodeAt(0))"
    found: list[int] = browser.evaluate(f"sepnet.read(new Blob([{bytes_of}])).then((pixels) => [...pixels])")
    return found


def text_of(browser: Browser, place: str) -> str:
    return str(browser.evaluate(f"document.getElementById('{place}').textContent"))


def wait_for(browser: Browser, condition: str) -> None:
    """Wait until a condition of the page's is met, at most ten seconds."""
    browser.evaluate(
        f"""new Promise((resolve, reject) => {{
          const end = performance.now() + 10000;
          const look = () => {{
            if ({condition}) resolve();
            else if (performance.now() > end) reject(Error({json.dumps(condition)}));
            else setTimeout(look, 20);
          }};
          look();
        }})"""
    )


@pytest.mark.slow
@in_chromium
def test_chromium_answers_as_the_reference() -> None:
    model, plan = everything()
    images = pixels(programs.BATCH + 5, seed=5)
    assert torch.equal(run_page(page_of(model, plan), images).scores, reference.run(plan, images))


@pytest.mark.slow
@in_chromium
def test_the_page_reads_pictures_as_training_did(browser: Browser, tmp_path: Path) -> None:
    opened(browser, page_of(*everything()), tmp_path)
    _, height, width = SHAPE
    blended = picture(width, height)
    blended.putalpha(picture(width, height, "L"))
    same = [picture(width, height), picture(width, height, "L")]
    for image in [*same, picture(80, 60), picture(700, 500), blended]:
        expected, _ = read_picture(image, SHAPE, "picture")
        steps = np.abs(read(browser, image) - expected.transpose(1, 2, 0).ravel().astype(int))
        assert steps.max() <= (0 if image in same else 2 if image is blended else 1)


@pytest.mark.slow
@in_chromium
def test_the_page_works_by_keyboard_and_camera(browser: Browser, tmp_path: Path) -> None:
    model, plan = everything()
    opened(browser, page_of(model, plan), tmp_path)
    image = picture(SHAPE[2], SHAPE[1])
    image.save(tmp_path / "mine.png")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    chooser = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(tmp_path / "mine.png")])
    wait_for(browser, "document.querySelectorAll('#scores li').length")
    logits = reference.logits(plan, torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None])[0]
    share, place = logits.double().softmax(0).max(0)
    assert text_of(browser, "answer") == f"{CLASSES[int(place)]}, {100 * float(share):.1f} %"

    def press(key: str) -> None:
        code = {"Tab": 9, "ArrowLeft": 37, "ArrowDown": 40}[key]
        for kind in ("rawKeyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    stops = []
    for _ in range(5):
        press("Tab")
        stops.append(browser.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert stops == ["file", "camera", "SUMMARY", "view", "INPUT"]
    press("ArrowDown")
    layer = trace(model, SHAPE).layers[0]
    row, column = (units // 2 for units in layer.output[1:])

    def seen(row: int, column: int) -> str:
        low = [start + jump * at for start, jump, at in zip(layer.start, layer.jump, (row, column), strict=True)]
        high = [first + size - 1 for first, size in zip(low, layer.receptive_field, strict=True)]
        return f"rows {low[0]} to {high[0]}, columns {low[1]} to {high[1]}"

    assert seen(row, column) in text_of(browser, "field")
    browser.evaluate("document.getElementById('view').focus()")
    press("ArrowLeft")
    assert seen(row, column - 1) in text_of(browser, "field")

    browser.evaluate("document.getElementById('camera').click()")
    wait_for(browser, "!document.getElementById('live').hidden && document.activeElement.id === 'take'")
    browser.evaluate("window.track = document.getElementById('video').srcObject.getTracks()[0]")
    before = text_of(browser, "scores")
    browser.evaluate("document.getElementById('take').click()")
    wait_for(browser, "document.getElementById('live').hidden")
    assert browser.evaluate("track.readyState") == "ended"
    assert text_of(browser, "scores") != before


@pytest.mark.slow
@in_chromium
def test_the_page_has_no_access_to_the_network(browser: Browser, tmp_path: Path) -> None:
    opened(browser, page_of(*everything()), tmp_path)
    refused = browser.evaluate(
        """new Promise((resolve) => {
          addEventListener("securitypolicyviolation", ({ effectiveDirective }) => resolve(effectiveDirective));
          fetch("http://127.0.0.1:9").catch(() => {});
        })"""
    )
    assert refused == "connect-src"
