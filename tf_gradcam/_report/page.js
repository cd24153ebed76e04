"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const gallery = byId("gallery");
  const cards = [...gallery.children];
  const canvases = [...document.querySelectorAll("canvas[data-map]")];
  const inputs = ["opacity", "threshold", "own", "class", "state", "probability", "from", "to", "order"].map(byId);
  const full = Number(document.documentElement.dataset.full);
  const view = {};

  // The colours of "plasma", which are even to the eye, from the darkest that is seen on a photograph.
  const STOPS = [[84, 2, 163], [139, 10, 165], [185, 50, 137], [219, 92, 104], [244, 136, 73], [254, 188, 42], [240, 249, 33]];
  const COLORS = Array.from({length: 256}, (_, value) => {
    const place = value / 255 * (STOPS.length - 1);
    const left = Math.min(STOPS.length - 2, Math.floor(place));
    return STOPS[left].map((low, channel) => low + (STOPS[left + 1][channel] - low) * (place - left));
  });
  const ORANGE = [240, 120, 20], BLUE = [40, 110, 230];

  // Maps

  function decode(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  // The four cells around each pixel of a length, and their weights: Catmull-Rom, with half-pixel centres.
  function places(cells, pixels) {
    return Array.from({length: pixels}, (_, pixel) => {
      const place = (pixel + 0.5) * cells / pixels - 0.5;
      const left = Math.floor(place), t = place - left;
      const weights = [
        ((2 - t) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2, (t - 1) * t * t / 2,
      ];
      return weights.map((weight, step) => [Math.min(cells - 1, Math.max(0, left - 1 + step)), weight]);
    });
  }

  // Smooth, through the value of each cell, and never beyond 0 and the maximum.
  function resize(cells, [rows, columns], height, width, factor) {
    const field = new Float32Array(height * width);
    const across = places(columns, width), down = places(rows, height);
    const wide = new Float32Array(rows * width);
    for (let row = 0; row < rows; row++) {
      across.forEach((near, x) => {
        for (const [column, weight] of near) wide[row * width + x] += cells[row * columns + column] * weight;
      });
    }
    down.forEach((near, y) => {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (const [row, weight] of near) sum += wide[row * width + x] * weight;
        field[y * width + x] = Math.min(255, Math.max(0, sum)) * factor;
      }
    });
    return field;
  }

  function fieldOf(canvas, height, width) {
    const data = canvas.dataset;
    const grid = data.grid.split(",").map(Number);
    const peak = Number(data.peak), second = Number(data.peakMinus || 0);
    const scale = view.own ? Math.max(peak, second) : full;
    const factor = scale > 0 ? 1 / scale / 255 : 0;
    const field = resize(decode(data.map), grid, height, width, peak * factor);
    if (data.mapMinus) {
      resize(decode(data.mapMinus), grid, height, width, second * factor).forEach((value, place) => {
        field[place] -= value;
      });
    }
    return field;
  }

  const small = document.createElement("canvas");

  function paint(context, field, height, width) {
    const image = new ImageData(width, height);
    const isDifference = Boolean(context.canvas.dataset.mapMinus);
    field.forEach((signed, place) => {
      const value = Math.min(1, Math.abs(signed));
      const color = isDifference ? (signed > 0 ? ORANGE : BLUE) : COLORS[Math.round(value * 255)];
      image.data.set(color, place * 4);
      // Little evidence is transparent, so that an image without any is the photograph itself.
      image.data[place * 4 + 3] = 255 * view.opacity * Math.min(1, value * 2);
    });
    small.width = width;
    small.height = height;
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
  }

  // Marching squares: the line between the pixels below and above a level.
  function contour(field, height, width, level) {
    const path = new Path2D();
    const cut = (low, high) => (level - low) / (high - low);
    for (let y = 0; y + 1 < height; y++) {
      for (let x = 0; x + 1 < width; x++) {
        const place = y * width + x;
        const corners = [field[place], field[place + 1], field[place + width + 1], field[place + width]];
        const [a, b, c, d] = corners;
        if (Math.max(a, b, c, d) < level || Math.min(a, b, c, d) >= level) continue;
        const points = [];
        if ((a < level) !== (b < level)) points.push([x + cut(a, b), y]);
        if ((b < level) !== (c < level)) points.push([x + 1, y + cut(b, c)]);
        if ((d < level) !== (c < level)) points.push([x + cut(d, c), y + 1]);
        if ((a < level) !== (d < level)) points.push([x, y + cut(a, d)]);
        for (let pair = 0; pair + 1 < points.length; pair += 2) {
          path.moveTo(points[pair][0] + 0.5, points[pair][1] + 0.5);
          path.lineTo(points[pair + 1][0] + 0.5, points[pair + 1][1] + 0.5);
        }
      }
    }
    return path;
  }

  function draw(canvas) {
    const ratio = canvas.shape || (canvas.shape = [canvas.height, canvas.width]);
    const [height, width] = ratio.map((side) => Math.max(2, Math.round(side / 2)));
    const dense = Math.min(2, devicePixelRatio || 1) * 2;
    canvas.height = height * dense;
    canvas.width = width * dense;
    const context = canvas.getContext("2d");
    const field = fieldOf(canvas, height, width);
    paint(context, field, height, width);
    if (view.threshold > 0 && !canvas.dataset.mapMinus) {
      context.scale(dense, dense);
      context.lineCap = "round";
      const line = contour(field, height, width, view.threshold);
      for (const [color, thickness] of [["#000a", 1.6], ["#fff", 0.8]]) {  // It is seen on every colour.
        context.strokeStyle = color;
        context.lineWidth = thickness;
        context.stroke(line);
      }
    }
    canvas.isDrawn = true;
  }

  // The photograph below a map is the one in its card, so that the file holds each once.
  function putPhotograph(frame) {
    const photograph = document.querySelector(`#${frame.dataset.photo} .frame img`);
    const copy = new Image(photograph.width, photograph.height);
    copy.alt = "";
    copy.src = photograph.src;
    frame.prepend(copy);
    delete frame.dataset.photo;
  }

  function show(canvas) {
    if (canvas.parentElement.dataset.photo) putPhotograph(canvas.parentElement);
    if (!canvas.isDrawn) draw(canvas);
  }

  const near = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      if (isIntersecting) {
        near.add(target);
        show(target);
      } else if (near.delete(target)) {  // A thousand canvases would take the memory.
        target.isDrawn = false;
        target.width = target.height = 1;
      }
    }
  }, {rootMargin: "400px"});

  // The controls

  let request = 0;
  function redraw() {
    for (const canvas of canvases) canvas.isDrawn = false;
    cancelAnimationFrame(request);
    request = requestAnimationFrame(() => near.forEach(show));
  }

  function readView() {
    view.opacity = byId("opacity").value / 100;
    view.threshold = byId("threshold").value / 100;
    view.own = byId("own").checked;
    byId("full").textContent = view.own ? "its maximum" : byId("full").dataset.value;
    for (const output of document.querySelectorAll("output")) {
      const value = byId(output.htmlFor.value).value;
      output.value = output.htmlFor.value === "threshold" && value === "0" ? "off" : `${value} %`;
      byId(output.htmlFor.value).setAttribute("aria-valuetext", output.value);
    }
  }

  // A card without the number that is asked for is left out.
  function isWithin(text, low, high) {
    if (low === "" && high === "") return true;
    return text !== "" && (low === "" || Number(text) >= Number(low)) && (high === "" || Number(text) <= Number(high));
  }

  function filter() {
    const wanted = Object.fromEntries(inputs.map((input) => [input.id, input.value]));
    const most = wanted.probability === "100" ? "" : wanted.probability / 100;
    let count = 0;
    for (const card of cards) {
      const {state, score, probability} = card.dataset;
      const isState = {"": true, explained: state !== "error"}[wanted.state] ?? state === wanted.state;
      const isClass = wanted.class === "" || card.dataset.class === wanted.class;
      card.hidden = !(isState && isClass && isWithin(score, wanted.from, wanted.to) && isWithin(probability, "", most));
      count += !card.hidden;
    }
    byId("count").textContent = `${count} of ${cards.length} images`;
  }

  let order = "";
  function sort() {
    if (order === byId("order").value) return;
    order = byId("order").value;
    const sorted = [...cards];
    const score = (card) => (card.dataset.score === "" ? NaN : Number(card.dataset.score));
    const missingLast = (one, other, compared) => isNaN(one) - isNaN(other) || compared;
    const sign = order === "score" ? -1 : 1;
    if (order.endsWith("score")) sorted.sort((a, b) => missingLast(score(a), score(b), sign * (score(a) - score(b)) || 0));
    if (order === "name") {
      const names = new Map(cards.map((card) => [card, card.querySelector("h3").textContent]));
      sorted.sort((a, b) => names.get(a).localeCompare(names.get(b), "en", {numeric: true}));
    }
    gallery.append(...sorted);
  }

  function reset() {
    for (const input of inputs) {
      input.value = input.type === "number" ? "" : input.defaultValue ?? "";
      input.checked = false;
    }
    update();
  }

  function update() {
    readView();
    filter();
    sort();
    redraw();
  }

  for (const input of inputs) {
    input.addEventListener("input", () => {
      readView();
      if (["opacity", "threshold", "own"].includes(input.id)) redraw();
      else if (input.id === "order") sort();
      else filter();
    });
  }
  byId("reset").addEventListener("click", reset);
  addEventListener("beforeprint", () => canvases.forEach(show));
  document.querySelector(".controls").hidden = false;
  byId("plain").hidden = true;
  update();
  canvases.forEach((canvas) => observer.observe(canvas));
})();
