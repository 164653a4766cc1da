// For Supabase's own one-time link, which comes back here with its result in the fragment.
(() => {
  "use strict";
  const result = new URLSearchParams(location.hash.slice(1));
  const token = result.get("access_token");
  if (!token && !result.has("error")) return;
  // The tokens must not stay in the address bar, nor in the history.
  history.replaceState(null, "", location.pathname);
  document.getElementById("nothing").hidden = true;
  document.getElementById(token ? "choose" : "invalid").hidden = false;
  if (!token) return;
  document.getElementById("access_token").value = token;
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const { email } = JSON.parse(atob(payload));
    if (!email) return;
    document.getElementById("email").textContent = email;
    document.getElementById("username").value = email;
    document.getElementById("for").hidden = false;
  } catch {
    // Not a token of ours. The server will say so when the form is sent.
  }
})();
