// Calls that carry the token of the page's link. It stands behind #, which the browser does not send.

import { call } from "./base.js";

export const tokenFromLink = () => location.hash.slice(1);

/** `call` of base.js with the token. */
export const api = (path, body) => call(path, body, { Authorization: `Bearer ${tokenFromLink()}` });
