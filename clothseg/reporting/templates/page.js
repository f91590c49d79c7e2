"use strict";

const lookup = JSON.parse(document.getElementById("lookup").textContent);
const between = (low, value, high) => Math.min(Math.max(value, low), high);

// Classes, sorted by the column whose heading is clicked: numbers from the highest, then the other way round.
for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const body = header.closest("table").tBodies[0];
    const text = button.dataset.kind === "text";
    const usual = text ? "ascending" : "descending";
    const order = header.ariaSort === usual ? (text ? "descending" : "ascending") : usual;
    for (const other of header.parentElement.cells) other.ariaSort = "none";
    header.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[header.cellIndex].dataset.value;
    const compare = (a, b) => (text ? a.localeCompare(b) : a - b);
    const absent = (a, b) => (a === "") - (b === "");
    const sorted = [...body.rows].sort((a, b) => absent(value(a), value(b)) || sign * compare(value(a), value(b)));
    body.append(...sorted);
  });
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function paint(canvas, labels) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  labels.forEach((label, pixel) => {
    const colour = lookup.colours[label];
    // The photo's own background shows through: what matters are clothes.
    if (colour) picture.data.set([...colour, label === 0 ? 90 : 255], 4 * pixel);
  });
  context.putImageData(picture, 0, 0);
}

async function show(example) {
  const stage = example.querySelector(".stage");
  const layers = [...stage.querySelectorAll("canvas")];
  const slider = example.querySelector(".wipe");
  const [left, right, edge, tip] = [".left", ".right", ".edge", ".tip"].map((name) => stage.querySelector(name));
  const names = ["photo", ...layers.map((layer) => layer.dataset.name)];

  // At 0 there is the photo, at 100 the first layer, at 200 the second; between them the next one comes from the left.
  const update = () => {
    const at = slider.value / 100;
    const whole = Math.floor(at);
    const part = at - whole;
    layers.forEach((layer, number) => {
      const covered = between(0, at - number, 1);
      const hidden = between(0, at - number - 1, 1);
      layer.style.clipPath = `inset(0 ${100 * (1 - covered)}% 0 ${100 * hidden}%)`;
    });
    edge.hidden = part === 0;
    edge.style.left = `${100 * part}%`;
    left.textContent = part ? names[whole + 1] : names[whole];
    right.textContent = part ? names[whole] : "";
    slider.ariaValueText = part ? `${Math.round(100 * part)} % ${names[whole + 1]}, the rest ${names[whole]}` : names[whole];
  };
  slider.addEventListener("input", update);
  for (const button of example.querySelectorAll("[data-stop]")) {
    button.addEventListener("click", () => {
      slider.value = button.dataset.stop;
      update();
    });
  }
  update();

  const maps = await Promise.all(layers.map((layer) => unpacked(layer.dataset.labels)));
  layers.forEach((layer, number) => paint(layer, maps[number]));
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { width, height } = layers[0];
    const column = between(0, Math.floor((x / box.width) * width), width - 1);
    const row = between(0, Math.floor((y / box.height) * height), height - 1);
    const told = maps.map((labels, number) => `${names[number + 1]}: ${lookup.names[labels[row * width + column]]}`);
    tip.textContent = told.join("\n");
    tip.hidden = false;
    tip.style.left = `${between(0, x + 14, box.width - tip.offsetWidth)}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > box.height ? y - tip.offsetHeight - 10 : y + 18}px`;
  });
  stage.addEventListener("pointerleave", () => { tip.hidden = true; });
  example.dataset.ready = "";
}

document.querySelectorAll(".example").forEach(show);

const opacity = document.getElementById("opacity");
opacity?.addEventListener("input", () => document.body.style.setProperty("--opacity", opacity.value / 100));
