// What the page knows: the server's state, and what is chosen here. Whoever shows something subscribes.

const subscribers = new Set();

export const state = {
  video: null, objects: [], given: {}, spans: [], undo: null, redo: null, version: -2, serial: -1, job: null, exports: {}, folder: "",
  frame: 0, object: null, tool: "click", radius: 12, opacity: 0.5, outline: true, tolerance: 12,
  theme: "dark", palette: "own", doubts: null, clients: 1, comeBack: null, follow: true, connected: true,
};

export function subscribe(call) {
  subscribers.add(call);
}

export function update(changes) {
  Object.assign(state, changes);
  for (const call of subscribers) call(Object.keys(changes));
}

const OF_SERVER = ["video", "objects", "given", "spans", "undo", "redo", "version", "serial", "job", "exports", "folder"];

// Take over what the server answered; an answer that is older than what is known is passed over. Who shows what did not change is not
// called: drawing all of it anew would keep the new mask waiting.
export function take(answer) {
  if (!answer?.video || answer.serial < state.serial) return answer;
  const changed = OF_SERVER.filter((key) => JSON.stringify(answer[key]) !== JSON.stringify(state[key]));
  const changes = Object.fromEntries(changed.map((key) => [key, answer[key]]));
  const kept = answer.objects.some((o) => o.id === state.object) ? state.object : answer.objects.at(-1)?.id ?? null;
  update(kept === state.object ? changes : { ...changes, object: kept });
  return answer;
}

export function chosen() {
  return state.objects.find((o) => o.id === state.object) || null;
}

export function hasMask(frame) {
  return state.spans.some(([start, stop]) => start <= frame && frame < stop);
}

// Colors that people with any kind of color blindness tell apart (Okabe and Ito 2008), and strong ones for high contrast.
const SAFE = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff"];
const STRONG = ["#ffff00", "#00ffff", "#ff00ff", "#00ff00", "#ff0000", "#ffffff", "#0080ff", "#ff8000"];

export function colorOf(object) {
  if (state.palette === "own") return object.color;
  const table = state.palette === "safe" ? SAFE : STRONG;
  return table[(object.id - 1) % table.length];
}

export function remember() {
  const { radius, opacity, outline, theme, palette, tolerance } = state;
  localStorage.setItem("vosformer-annotate", JSON.stringify({ radius, opacity, outline, theme, palette, tolerance }));
}

export function recall() {
  try {
    Object.assign(state, JSON.parse(localStorage.getItem("vosformer-annotate") || "{}"));
  } catch { /* somebody else's value */ }
}
