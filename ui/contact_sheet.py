"""A contact sheet: many small images to look over and click, as real buttons."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from engine.images.pictures import JPEG_FROM_PIXELS, data_url

# Images are sent with so many pixels for each of a tile's, for tiles that are wider and screens that are finer.
SHARPEST = 3

CSS = """
.sheet { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(var(--tile), 1fr)); }
button { all: unset; box-sizing: border-box; cursor: pointer; padding: 3px; border: 3px solid var(--st-border-color);
  border-radius: 4px; background: var(--st-secondary-background-color); min-width: 0; }
button.right { border: 3px solid #009E73; }
button.wrong { border: 3px dashed #D55E00; }
button:hover, button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
img { display: block; width: 100%; aspect-ratio: var(--shape); object-fit: contain; background: #000; }
img.small { image-rendering: pixelated; }
span { display: block; padding: 3px 1px 0; color: var(--st-text-color); font: 12px/1.35 var(--st-font);
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: center; }
"""

JS = """
export default function(component) {
  const { data, parentElement, setTriggerValue } = component;
  let sheet = parentElement.querySelector(".sheet");
  if (!sheet) {
    sheet = document.createElement("div");
    sheet.className = "sheet";
    sheet.setAttribute("role", "group");
    parentElement.appendChild(sheet);
    sheet.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0 }[event.key];
      if (step === undefined) return;
      const tiles = Array.from(sheet.children);
      const columns = getComputedStyle(sheet).gridTemplateColumns.split(" ").length;
      const move = step || (event.key === "ArrowDown" ? columns : -columns);
      const next = tiles[tiles.indexOf(event.target) + move];
      // Elsewhere on the page the same keys may step through images.
      event.stopPropagation();
      if (next) { next.focus(); event.preventDefault(); }
    });
  }
  sheet.onclick = (event) => {
    const tile = event.target.closest("button");
    if (tile) setTriggerValue("picked", Number(tile.dataset.index));
  };
  if (sheet.dataset.version === data.version) return;
  sheet.dataset.version = data.version;
  sheet.style.setProperty("--tile", data.width + "px");
  sheet.style.setProperty("--shape", data.shape);
  sheet.setAttribute("aria-label", data.name);
  sheet.replaceChildren(...data.tiles.map((tile) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = tile.mark;
    button.dataset.index = tile.index;
    button.title = tile.title;
    button.setAttribute("aria-label", tile.title);
    const image = document.createElement("img");
    image.src = tile.image;
    image.alt = "";
    if (data.small) image.className = "small";
    button.appendChild(image);
    for (const line of tile.lines) {
      const text = document.createElement("span");
      text.textContent = line;
      button.appendChild(text);
    }
    return button;
  }));
}
"""

_component = st.components.v2.component("loupe_contact_sheet", css=CSS, js=JS)


@dataclass(frozen=True)
class Tile:
    """One image: its index, what a click reports; title, for screen readers and on hovering; lines of text below.

    mark: ``right`` for a solid green frame, ``wrong`` for a dashed red one, or nothing.
    """

    index: int
    image: np.ndarray
    title: str
    lines: tuple[str, ...] = ()
    mark: str = ""


def contact_sheet(tiles: Sequence[Tile], *, name: str, key: str, width: int = 84) -> int | None:
    """Show images in a grid; returns the index of the one that was just clicked.

    width: the least width of a tile in pixels.
    """
    encoded = [
        {
            "index": tile.index,
            "image": data_url(tile.image, SHARPEST * width),
            "title": tile.title,
            "lines": list(tile.lines),
            "mark": tile.mark,
        }
        for tile in tiles
    ]
    height, columns = tiles[0].image.shape[:2] if tiles else (1, 1)
    data = {
        "tiles": encoded,
        "name": name,
        "width": width,
        "shape": f"{columns} / {height}",
        "small": max(height, columns) < JPEG_FROM_PIXELS,
    }
    data["version"] = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    picked = _component(data=data, key=key, on_picked_change=lambda: None).picked
    return None if picked is None else int(picked)


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a small image by whole pixels, without blur, to about ``side``; a larger one is left as it is."""
    factor = max(1, side // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
