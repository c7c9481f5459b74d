export default function(component) {
  const { data, parentElement } = component;
  let pairs = parentElement.querySelector(".pairs");
  if (!pairs) {
    pairs = document.createElement("div");
    pairs.className = "pairs";
    pairs.setAttribute("role", "group");
    pairs.setAttribute("aria-label", "Training images as stored and as changed");
    const width = document.createElement("div");
    width.className = "width";
    width.appendChild(pairs);
    parentElement.appendChild(width);
  }
  if (pairs.dataset.version === data.version) return;
  pairs.dataset.version = data.version;
  pairs.style.setProperty("--shape", data.shape);
  pairs.replaceChildren(...data.columns.map((column) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = caption.title = column.label;
    figure.appendChild(caption);
    column.images.forEach((url, row) => {
      const image = document.createElement("img");
      image.src = url;
      image.alt = column.label + (row ? ", changed" : ", as stored");
      if (data.small) image.classList.add("small");
      if (!row) image.classList.add("stored");
      figure.appendChild(image);
    });
    return figure;
  }));
}
