// Dialogs: keys, export, import, a range, another object, an object's properties.

import { download, upload, Refused } from "./api.js";
import { state, chosen, take } from "./state.js";
import { act, changeObject, propagate, say } from "./actions.js";
import { button } from "./icons.js";

const dialog = document.getElementById("dialog");

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function open(title, ...children) {
  const close = make("div", { className: "end" }, make("button", { type: "button", textContent: "Close", onclick: () => dialog.close() }));
  dialog.replaceChildren(make("h3", { textContent: title }), ...children, close);
  dialog.showModal();
  dialog.scrollTop = 0;
}

const SHOWN = { " ": "Space", arrowright: "→", arrowleft: "←", arrowup: "↑", arrowdown: "↓", escape: "Esc", delete: "Del", pagedown: "PgDn", pageup: "PgUp" };
const shownKey = (key) => key.split("+").filter((p, at, all) => p || at === all.length - 1).map((p) => SHOWN[p] || (p.length > 1 ? p[0].toUpperCase() + p.slice(1) : p.toUpperCase())).join("+") || "+";

export function showHelp(keys) {
  const rows = keys.map((row) => {
    if (row.length === 1) return make("div", {}, make("b", { textContent: row[0] }));
    const combos = row[0].length > 3 ? [row[0][0], row[0].at(-1)] : row[0];
    const caps = combos.flatMap((key, at) => [...(at ? [row[0].length > 3 ? " – " : " "] : []), make("kbd", { textContent: shownKey(key) })]);
    return make("div", {}, make("span", { textContent: row[1] }), make("span", {}, ...caps));
  });
  const mouse = "Left click: on the object. Right click: not on it. Drag: box. Ctrl+click: choose the object. Wheel: zoom. Middle button: pan.";
  open("Keys", make("p", { textContent: mouse }), make("div", { className: "keys" }, ...rows));
}

export function showExport() {
  const rows = Object.entries(state.exports).map(([name, summary]) => {
    const made = button("export", summary, async () => {
      made.disabled = true;
      try {
        say(`saved: ${await download(name)}`);
      } catch (error) {
        say(error instanceof Refused ? error.message : `it could not be saved (${error.message})`, true);
      }
      made.disabled = false;
    }, name);
    made.dataset.format = name;
    made.append(make("small", { textContent: summary }));
    return made;
  });
  open("Export", make("div", { className: "rows" }, ...rows), make("p", { textContent: `All masks also lie in ${state.folder}, at any time.` }));
}

export function showImport() {
  const file = make("input", { type: "file", name: "file" });
  const given = make("input", { type: "checkbox", checked: true });
  const form = make("form", {},
    make("label", {}, "Masks: a label image of this frame, an annotation file of any kind, or a zip of masks", file),
    make("label", { style: "display:flex;gap:6px" }, given, "they count as given by me"),
    make("button", { className: "main", textContent: "Import" }));
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (!file.files.length) return;
    try {
      const answer = take(await upload(file.files[0], state.frame, given.checked));
      dialog.close();
      for (const text of [`masks of ${answer.result} frames imported`, ...answer.notes]) say(text);
    } catch (error) {
      say(error.message, true);
    }
  };
  open("Import masks", form);
}

export function showRange() {
  const number = (value) => make("input", { type: "number", min: 0, max: state.video.frames - 1, value });
  const [from, to] = [number(state.frame), number(state.video.frames - 1)];
  const form = make("form", {}, make("label", {}, "from frame", from), make("label", {}, "to frame (included)", to),
    make("button", { className: "main", textContent: "Propagate" }));
  form.onsubmit = (event) => {
    event.preventDefault();
    dialog.close();
    propagate("both", Number(from.value), Number(to.value) + 1);
  };
  open("Propagate in a range", form);
}

// Merge with, or swap with, which other object?
export function askTwo(what) {
  const object = chosen();
  const others = state.objects.filter((o) => o.id !== state.object);
  if (!object || !others.length) return say("that takes two objects", true);
  const rows = others.map((other) => button(what === "merge" ? "both" : "range", other.name, () => {
    dialog.close();
    if (what === "merge") act("merge", { kept: object.id, gone: other.id });
    else act("swap", { one: object.id, other: other.id, frame: state.frame });
  }, `${other.id} ${other.name}`));
  open(what === "merge" ? `Which object is ${object.name}, too?` : `Which object was mistaken for ${object.name} from frame ${state.frame} on?`,
    make("div", { className: "rows" }, ...rows));
}

export function editObject(object = chosen()) {
  if (!object) return;
  const name = make("input", { value: object.name, maxLength: 200, required: true });
  const category = make("input", { value: object.category, maxLength: 200, required: true });
  category.setAttribute("list", "categories");
  const known = make("datalist", { id: "categories" }, ...new Set(state.objects.map((o) => o.category)));
  known.replaceChildren(...[...new Set(state.objects.map((o) => o.category))].map((value) => make("option", { value })));
  const color = make("input", { type: "color", value: object.color });
  const form = make("form", {}, make("label", {}, "name", name), make("label", {}, "category", category), known, make("label", {}, "color", color),
    make("button", { className: "main", textContent: "Save" }));
  form.onsubmit = (event) => {
    event.preventDefault();
    dialog.close();
    changeObject(object.id, { name: name.value, category: category.value, color: color.value });
  };
  open(`Object ${object.id}`, form);
  name.select();
}
