// Below: buttons for frames, a film strip, and a lane an object with given frames, presence as heat, and doubts as red ticks.

import { get } from "./api.js";
import { state, subscribe, colorOf } from "./state.js";
import { button } from "./icons.js";
import { goTo, choose } from "./actions.js";
import { view, idAt } from "./view.js";

const film = document.getElementById("film");
const lanes = document.getElementById("lanes");
const number = document.getElementById("frame-number");
const total = document.getElementById("frame-total");
const under = document.getElementById("under");
const LABEL = 96;

document.getElementById("moves").append(
  button("first", "First frame (Home)", () => goTo(0)),
  button("previous", "Frame before (←)", () => goTo(state.frame - 1)),
  button("next", "Next frame (→)", () => goTo(state.frame + 1)),
  button("last", "Last frame (End)", () => goTo(state.video.frames - 1)),
);

// A number that is being typed stays, whatever the server says meanwhile; Enter goes there, Escape gives it up.
let typing = false;
number.oninput = () => { typing = true; };
number.onchange = goToTyped;
number.onblur = goToTyped;
number.onkeydown = (event) => {
  if (event.key === "Escape") number.value = state.frame;
  if (event.key === "Enter") goToTyped();
  if (["Enter", "Escape"].includes(event.key)) document.getElementById("stage").focus();
};

function goToTyped() {
  if (typing) goTo(number.valueAsNumber);
  typing = false;
  showHead();
}

const head = Object.assign(document.createElement("div"), { className: "head" });
let strength = null; // {edges, lanes}
let asked = 0;
let waiting = false;

export async function loadLanes() {
  if (waiting) return;
  waiting = true;
  await new Promise((done) => setTimeout(done, 120)); // many changes come at once while propagating
  waiting = false;
  const mine = ++asked;
  const bins = Math.max(50, Math.floor((lanes.clientWidth || 800) - LABEL));
  const got = await get(`lanes?bins=${bins}`);
  if (mine === asked) {
    strength = got;
    show();
  }
}

const laneWidth = () => Math.max(10, lanes.clientWidth - LABEL);
const left = (frame) => (frame / state.video.frames) * laneWidth();

function show() {
  if (!state.video) return;
  const rows = (state.objects.length ? state.objects : [null]).map((object) => {
    const row = Object.assign(document.createElement("div"), { className: "lane" });
    const label = Object.assign(document.createElement("div"), { className: "label" });
    if (object) {
      const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
      swatch.style.background = colorOf(object);
      label.append(swatch, object.name);
      label.onclick = () => choose(object.id);
    }
    const canvas = document.createElement("canvas");
    if (object) canvas.dataset.object = object.id;
    row.append(label, canvas);
    return [row, canvas, object];
  });
  lanes.replaceChildren(...rows.map(([row]) => row), head);
  for (const [, canvas, object] of rows) drawLane(canvas, object);
  showHead();
}

function drawLane(canvas, object) {
  const ratio = devicePixelRatio;
  const [width, height] = [laneWidth(), 20];
  [canvas.width, canvas.height] = [Math.round(width * ratio), height * ratio];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const mine = object && strength?.lanes[object.id];
  if (mine) {
    mine.score.forEach((score, at) => {
      const [x, end] = [left(strength.edges[at]), left(strength.edges[at + 1])];
      if (score !== null) {
        // From red (absent or lost) over yellow to green (surely there); height tells it, too.
        context.fillStyle = `hsl(${Math.round(130 * score)} 65% 42%)`;
        const tall = 3 + 11 * score;
        context.fillRect(x, 17 - tall, Math.max(1, end - x + 0.3), tall);
      }
    });
    mine.doubt.forEach((doubt, at) => {
      if (doubt >= 0.5) {
        context.fillStyle = "#ff3b30";
        context.fillRect(left((strength.edges[at] + strength.edges[at + 1] - 1) / 2 + 0.5) - 1, 0, 2, 6);
      }
    });
  }
  if (!object) return;
  for (const [start, stop] of object.absent) {
    context.fillStyle = "#8886";
    context.fillRect(left(start), 8, left(stop ?? state.video.frames) - left(start), 3);
  }
  context.fillStyle = "#fff";
  for (const [frame, given] of Object.entries(state.given)) {
    if (!given.ids.includes(object.id)) continue;
    const x = left(Number(frame) + 0.5);
    context.beginPath();
    context.moveTo(x, 11);
    context.lineTo(x + 4, 15.5);
    context.lineTo(x, 20);
    context.lineTo(x - 4, 15.5);
    context.fill();
  }
}

function showHead() {
  head.style.left = `${LABEL + left(state.frame + 0.5) - 1}px`;
  if (!typing) number.value = state.frame;
  lanes.setAttribute("aria-valuenow", state.frame);
}

let filmed = null; // the pictures that are shown, or come
async function showFilm() {
  const count = Math.max(1, Math.min(state.video.frames, Math.floor(laneWidth() / (54 * Math.min(2.2, state.video.width / state.video.height)))));
  if (filmed?.length === count) return;
  const pictures = Array.from({ length: count }, () => Object.assign(document.createElement("img"), { alt: "", draggable: false, fetchPriority: "low" }));
  filmed = pictures;
  film.replaceChildren(...pictures);
  // One after the other: a browser asks for no more than six things at once, and a frame that somebody waits for comes first.
  for (const [at, made] of pictures.entries()) {
    if (filmed !== pictures) return;
    made.src = `api/film/${Math.floor(((at + 0.5) * state.video.frames) / count)}.jpg`;
    await made.decode().catch(() => {});
  }
}

function frameAt(event, box) {
  return Math.floor(((event.clientX - box.left) / box.width) * state.video.frames);
}

function scrub(area, offset) {
  let down = false;
  const go = (event) => {
    const box = area.getBoundingClientRect();
    goTo(frameAt(event, { left: box.left + offset, width: box.width - offset }));
  };
  area.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".label")) return;
    down = true;
    area.setPointerCapture(event.pointerId);
    if (event.target.dataset.object) choose(Number(event.target.dataset.object));
    go(event);
  });
  area.addEventListener("pointermove", (event) => down && go(event));
  area.addEventListener("pointerup", () => { down = false; });
}
scrub(lanes, LABEL);
scrub(film, 0);

// What lies under the pointer, with its presence score.
document.addEventListener("under", (event) => {
  const id = idAt(event.detail);
  const object = state.objects.find((o) => o.id === id);
  const score = view.scores[id];
  const place = event.detail.map((v) => Math.round(v)).join(", ");
  under.textContent = object ? `${object.name}${score === undefined ? "" : ` · presence ${score.toFixed(2)}`} · (${place})` : `(${place})`;
});

let drawnVideo = null;
subscribe((keys) => {
  if (!state.video) return;
  if (state.video.name !== drawnVideo) {
    drawnVideo = state.video.name;
    total.textContent = `of ${state.video.frames - 1}${state.video.fps ? ` · ${state.video.fps.toFixed(2)} fps` : ""}`;
    number.max = state.video.frames - 1;
    showFilm();
  }
  if (keys.includes("frame")) showHead();
  if (keys.some((key) => ["objects", "object", "given", "palette"].includes(key))) show();
  if (keys.includes("version")) loadLanes();
});
new ResizeObserver(() => state.video && (showFilm(), show())).observe(film);
