"use strict";
// A table is sorted by a click on a header: by numbers where the column has numbers, what has none comes last.
const number = (text) => {
  const found = text.replaceAll("\u2212", "-").replaceAll(",", "").match(/^[<+]?\s*(-?\d+(\.\d+)?)/);
  return found ? Number(found[1]) : NaN;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => {
        const text = row.cells[column].textContent.trim();
        return { row, text, value: number(text) };
      });
      const numeric = rows.some((r) => !Number.isNaN(r.value));
      rows.sort((a, b) => {
        if (!numeric) return up * a.text.localeCompare(b.text);
        if (Number.isNaN(a.value) || Number.isNaN(b.value)) return Number.isNaN(a.value) - Number.isNaN(b.value);
        return up * (a.value - b.value);
      });
      body.append(...rows.map((r) => r.row));
    });
  });
}
// Whatever of the contents is folded is opened before it is gone to.
for (const link of document.querySelectorAll(".contents a")) {
  link.addEventListener("click", () => {
    const place = document.querySelector(link.getAttribute("href"));
    for (let fold = place; fold; fold = fold.parentElement) if (fold.tagName === "DETAILS") fold.open = true;
  });
}
// What is pointed at in a figure is said beside the pointer; the tables and alternative texts say it, too.
const NEAR = 14; // pixels
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
for (const picture of document.querySelectorAll("[data-spots]")) {
  const image = picture.querySelector("img");
  const spots = JSON.parse(picture.dataset.spots);
  picture.addEventListener("pointermove", (event) => {
    const place = image.getBoundingClientRect();
    const away = ([left, top]) =>
      Math.hypot(place.left + left * place.width - event.clientX, place.top + top * place.height - event.clientY);
    const near = spots.filter((spot) => away(spot) < NEAR).sort((a, b) => away(a) - away(b));
    tip.hidden = near.length === 0;
    if (tip.hidden) return;
    tip.textContent = near[0][2];
    const room = document.documentElement.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, room))}px`;
    tip.style.top = `${event.clientY + 18}px`;
  });
  picture.addEventListener("pointerleave", () => (tip.hidden = true));
}
// A figure is shown as large as the window by a click; Escape or a click closes it.
const dialog = document.querySelector("dialog");
if (dialog) {
  const shown = dialog.querySelector("img");
  for (const image of document.querySelectorAll(".picture img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "zoom";
    button.setAttribute("aria-label", "Enlarge: " + image.alt);
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => {
      shown.src = image.src;
      shown.alt = image.alt;
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", () => dialog.close());
}
