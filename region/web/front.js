// Puts the server's rendering in place whenever the fleet changed, and says when the line is broken.
// It waits while somebody presses, or has marked text: a link must not be exchanged under a click, nor a reason while it is copied.
"use strict";
const fleet = document.getElementById("fleet");
const state = document.getElementById("link");
if (fleet && state) {
  const signedIn = state.textContent;
  let newest = null;
  let pressed = false;
  const busy = () => {
    const marked = document.getSelection();
    return pressed || (marked !== null && !marked.isCollapsed && fleet.contains(marked.anchorNode));
  };
  const show = () => {
    if (newest === null || busy()) return;
    const held = fleet.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    fleet.innerHTML = newest;
    newest = null;
    if (held !== null) fleet.querySelector(`a[href="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  };
  const released = () => setTimeout(() => { pressed = false; show(); });
  document.addEventListener("pointerdown", () => { pressed = true; });
  document.addEventListener("pointerup", released);
  document.addEventListener("pointercancel", released);
  document.addEventListener("selectionchange", show);
  const events = new EventSource("/live");
  events.addEventListener("fleet", (event) => { newest = event.data; state.textContent = signedIn + " · live"; show(); });
  events.addEventListener("error", () => { state.textContent = signedIn + " · the region does not answer; trying again"; });
}
