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
