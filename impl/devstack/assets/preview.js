// Shows choices at once, and edits in TEMPLATES_DIR within a second. Without this script, the button shows choices, and
// a reload shows edits.
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
      // Not while somebody types, because a reload would lose the text.
      if (now && now !== version && document.activeElement?.tagName !== "INPUT") location.reload();
    } catch {
      // The server is gone, or restarts.
    }
  }, 1000);
})();
