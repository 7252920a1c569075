// Puts the page together and listens to the server.

import { get, listen } from "./api.js";
import { state, subscribe, take, update, recall } from "./state.js";
import { button } from "./icons.js";
import * as do_ from "./actions.js";
import { fit, zoom, load } from "./view.js";
import { TOOLS, setTool } from "./tools.js";
import { KEYS } from "./keys.js";
import { showExport, showHelp, showImport, showRange } from "./dialogs.js";
import "./objects.js";
import { loadLanes } from "./timeline.js";

const element = (id) => document.getElementById(id);

recall();
document.documentElement.dataset.theme = state.theme;

const undo = button("undo", "Undo (Ctrl+Z)", do_.undo);
const redo = button("redo", "Redo (Ctrl+Shift+Z)", do_.redo);
element("history").append(undo, redo);
const stop = button("stop", "Stop; what is there stays (Esc)", do_.cancel, "Stop");
stop.className = "stop";
stop.hidden = true;
const forward = button("forward", "Propagate forward from here (F or Space)", () => do_.propagate("forward"), "Propagate");
forward.className = "main";
element("runs").append(
  button("backward", "Propagate backward from here (B)", () => do_.propagate("backward")),
  forward,
  button("both", "Both ways, blended between given frames (Shift+F)", () => do_.propagate("both"), "Both"),
  button("range", "A range (Shift+R)", showRange, "Range"),
  button("repair", "Repair: only between the neighboring given frames (R)", do_.repair, "Repair"),
  stop,
);
element("view-buttons").append(
  button("plus", "Zoom in (+)", () => zoom(1.25)),
  button("box", "Whole frame (0)", fit),
  button("theme", "Dark, light, high contrast (Shift+H)", do_.nextTheme),
  button("import", "Import masks (Ctrl+I)", showImport, "Import"),
  button("export", "Export (Ctrl+E)", showExport, "Export"),
  button("help", "Keys (?)", () => showHelp(KEYS)),
);
for (const [name, [title]] of Object.entries(TOOLS)) {
  const made = button(name, title, () => setTool(name));
  made.dataset.tool = name;
  element("tools").append(made);
}
const clear = button("trash", "Clear the object on this frame (Del)", () => do_.clearFrame(false));
element("tools").append(document.createElement("hr"), clear);

function showJob(job) {
  element("job").hidden = !job;
  stop.hidden = !job;
  if (!job) return;
  element("job-bar").value = job.total ? job.done / job.total : 0;
  element("job-text").textContent = job.total ? `${job.done} of ${job.total}` : "loading the model ...";
}

subscribe((keys) => {
  if (keys.includes("video") && state.video) {
    element("title").textContent = state.video.name;
    document.title = `${state.video.name} - vosformer`;
  }
  undo.disabled = !state.undo;
  redo.disabled = !state.redo;
  undo.title = state.undo ? `Undo: ${state.undo} (Ctrl+Z)` : "Nothing to undo";
  redo.title = state.redo ? `Redo: ${state.redo} (Ctrl+Shift+Z)` : "Nothing to redo";
  if (keys.includes("job")) showJob(state.job);
  if (keys.includes("tool")) for (const made of element("tools").querySelectorAll("[data-tool]")) made.classList.toggle("on", made.dataset.tool === state.tool);
  document.body.dataset.ready = state.video ? "yes" : "";
  document.body.dataset.version = state.version;
});

async function refresh() {
  const first = !state.video;
  take(await get("state"));
  if (first) {
    fit();
    update({ tool: state.tool, frame: state.frame });
    load();
  }
}

let lastShown = 0;
let waiting; // the newest frame, which came too early to be shown

// Live: the page follows the frames, as often as it can show them, until somebody goes elsewhere.
function showFollowed(frame) {
  clearTimeout(waiting);
  const early = lastShown + 150 - performance.now();
  if (early > 0) {
    waiting = setTimeout(showFollowed, early, frame);
    return;
  }
  lastShown = performance.now();
  if (!state.spans.some(([start, end]) => start <= frame && frame < end)) state.spans.push([frame, frame + 1]);
  if (state.follow) update({ frame });
  if (state.frame === frame) load(true);
  loadLanes();
}

async function onEvent(event) {
  if (event.event === "changed") {
    if (event.version > state.version || event.version === -1) await refresh();
  } else if (event.event === "progress") {
    showJob(event);
    if (event.done === 0) update({ follow: true });
    if (event.frame !== null) showFollowed(event.frame);
  } else if (event.event === "done") {
    clearTimeout(waiting);
    showJob(null);
    await refresh();
    if (/^repair/.test(event.what) && state.comeBack !== null && state.follow) update({ frame: state.comeBack });
    update({ comeBack: null });
    load(true);
    for (const note of event.notes || []) do_.say(note);
    if (event.error) do_.say(event.error, true);
    else do_.say(event.stopped ? `${event.what}: stopped, what is there stays` : `${event.what}: done`);
    if (/propagation|repair/.test(event.what) && !event.error) await do_.review();
  } else if (event.event === "clients") {
    if (event.count > 1 && event.count > state.clients) do_.say("This project is open in another window, too. Both show every change; only one should edit at a time.", true);
    update({ clients: event.count });
  }
}

let broken = false;
listen(async (event) => {
  if (broken) {
    broken = false;
    do_.say("connected again");
  }
  await onEvent(event);
}, () => {
  if (!broken) do_.say("The annotator does not answer. What you did is saved; start it again with the same command.", true);
  broken = true;
  update({ serial: -1 });
});
