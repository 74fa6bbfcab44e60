"""The page in a real browser. Needs Chromium: `apt install chromium`, then `pytest -m slow tests/report`."""

import html
import json
import re
import shutil
import subprocess

import pytest

from mi_jax import report

PROBE = """<script>
window.addEventListener("load", () => {
    const links = [...document.querySelectorAll("a[href^='#']")];
    const images = [...document.images];
    document.title = "seen " + JSON.stringify({
        width: document.documentElement.scrollWidth,
        inner: window.innerWidth,
        images: images.length,
        broken: images.filter(image => image.naturalWidth === 0).length,
        lost: links.map(link => link.hash.slice(1)).filter(id => !document.getElementById(id)),
    });
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_shows_every_image_and_anchor_without_overflow_or_errors(run_dir, tmp_path, width, scheme):
    """A window of Chromium is at least 500 pixels wide."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed")
    page = tmp_path / "page.html"
    page.write_text(report.build(run_dir).read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
        *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []),
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>seen (.*?)</title>", done.stdout)
    assert found, done.stderr[-1000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["images"] > 5
    assert seen["broken"] == 0
    assert seen["lost"] == []
    assert seen["width"] <= seen["inner"], "the page is wider than its window"
    assert "CONSOLE" not in done.stderr
