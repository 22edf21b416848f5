"""Looks at report pages in a real browser: `python browse.py PAGE... [--browser chromium]`.

Not a test of the suite, because a machine that runs it may have no browser; here a missing one is an error.
Fails if a page scrolls sideways at a width from a phone to a desktop, if one of its tables does from 500 pixels on, or
if its smallest text is too small to read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (320, 360, 500, 768, 1280)  # pixels
SMALLEST_TEXT = 8.0  # pixels, of the labels in a chart

FRAMES = """<pre id="found"></pre>{frames}<script>
onload = () => found.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
  const page = frame.contentDocument;
  page.querySelectorAll("details").forEach(part => part.open = true);
  const heights = [...page.querySelectorAll("svg text")].map(text =>
    parseFloat(frame.contentWindow.getComputedStyle(text).fontSize) * text.getScreenCTM().a);
  const cut = [...page.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth);
  const needed = page.documentElement.scrollWidth, text = Math.min(99, ...heights);
  return {{width: frame.width, cut: cut.map(box => box.ariaLabel), needed, text}};
}}));
</script>"""


def look(page: Path, browser: str) -> list[str]:
    """What is wrong with the page. Raises CalledProcessError or FileNotFoundError if the browser does not work."""
    frames = "".join(
        f'<iframe src="{page.resolve().as_uri()}" width="{width}" height="800"></iframe>' for width in WIDTHS
    )
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder, "outer.html")
        outer.write_text(FRAMES.format(frames=frames))
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom")
        shown = subprocess.run([browser, *options, outer.as_uri()], check=True, capture_output=True, text=True).stdout
    found = json.loads(shown.split('<pre id="found">')[1].split("</pre>")[0])
    faults = [f"{f['width']} px wide: needs {f['needed']} px" for f in found if f["needed"] > int(f["width"])]
    faults += [
        f"{f['width']} px wide: cuts {', '.join(f['cut'])}" for f in found if f["cut"] and int(f["width"]) >= 500
    ]
    faults += [f"{f['width']} px wide: text of {f['text']:.1f} px" for f in found if f["text"] < SMALLEST_TEXT]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--browser", default="chromium")
    arguments = parser.parse_args()
    failed = False
    for page in arguments.pages:
        faults = look(page, arguments.browser)
        failed |= bool(faults)
        print(f"{page}: {'; '.join(faults) or 'fits'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
