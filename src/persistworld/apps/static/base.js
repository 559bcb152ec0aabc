// What the pages' scripts share. Addresses are relative to the page, so that they work below any prefix.

/** Call the server: GET without a body, POST with one. Resolves to the parsed answer; throws an Error with the server's line. */
export async function call(path, body, headers = {}) {
  const how = body === undefined ? { headers } : {
    method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, how);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error ?? `The server answered ${answer.status}.`);
  return found;
}

/** A websocket to an address relative to the page; its messages are text or ArrayBuffers. */
export function socket(path) {
  const address = new URL(path, document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(address);
  opened.binaryType = "arraybuffer";
  return opened;
}

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/** Make an element: make("p", { className: "quiet" }, "text", child, ...). Text is never read as HTML. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
