// Requests to the server; all addresses are relative to the page's, which holds the token.

export class Refused extends Error {}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const detail = Array.isArray(body.detail) ? body.detail.map((d) => `${d.loc.slice(1).join(".")}: ${d.msg}`).join("; ") : body.detail;
  throw new Refused(body.error || detail || `the server answered ${response.status}`);
}

export async function get(path) {
  return answer(await fetch(`api/${path}`));
}

export async function post(path, body = {}) {
  return answer(await fetch(`api/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }));
}

export async function upload(file, frame, given) {
  const query = new URLSearchParams({ name: file.name, frame, given });
  return answer(await fetch(`api/import?${query}`, { method: "POST", body: file }));
}

export async function download(format) {
  const response = await fetch("api/export", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ format }) });
  if (!response.ok) await answer(response);
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") || "")?.[1] || format;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  return name;
}

// Events of the server, as long as the page lives: after a break everything is asked for anew.
export function listen(onEvent, onBreak) {
  const address = new URL("api/events", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.onmessage = (message) => onEvent(JSON.parse(message.data));
  socket.onclose = () => {
    onBreak();
    setTimeout(() => listen(onEvent, onBreak), 1500);
  };
  socket.onopen = () => onEvent({ event: "changed", version: -1 });
}
