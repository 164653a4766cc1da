// Shows what is chosen at once, and what is edited in TEMPLATES_DIR within a second. Without it the
// button does the one, and a reload the other.
(() => {
  "use strict";
  const { version, html } = document.body.dataset;
  const form = document.getElementById("switches");
  for (const option of form.elements.language.options) {
    option.textContent = `${new Intl.DisplayNames(["en"], { type: "language" }).of(option.value)} (${option.value})`;
  }
  form.addEventListener("change", () => form.requestSubmit());

  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(html, { method: "HEAD" });
      const now = answer.headers.get("X-Version");
      // Not while somebody types: the page would forget it.
      if (now && now !== version && document.activeElement?.tagName !== "INPUT") location.reload();
    } catch {
      // The server is gone, or starts anew.
    }
  }, 1000);
})();
