// Puts the server's rendering in place whenever the fleet changed, and says when the line is broken.
"use strict";
const fleet = document.getElementById("fleet");
const state = document.getElementById("link");
if (fleet && state) {
  const signedIn = state.textContent;
  const events = new EventSource("/live");
  events.addEventListener("fleet", (event) => { fleet.innerHTML = event.data; state.textContent = signedIn + " · live"; });
  events.addEventListener("error", () => { state.textContent = signedIn + " · the region does not answer; trying again"; });
}
