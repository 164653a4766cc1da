// For links whose token is after the # of the address: links of hash routers (/#/reset?token_hash=…), and Supabase's
// own one-time link, which comes back here with its result.
(() => {
  "use strict";
  const result = new URLSearchParams(location.hash.slice(1).replace(/^[^?]*[?]/, ""));
  const token = result.get("access_token");
  const tokenHash = result.get("token_hash");
  if (!token && !tokenHash && !result.has("error")) return;
  // The tokens must not stay in the address bar or in the history.
  history.replaceState(null, "", location.pathname);
  document.getElementById("nothing").hidden = true;
  document.getElementById(token || tokenHash ? "choose" : "invalid").hidden = false;
  if (tokenHash) {
    document.getElementById("token_hash").value = tokenHash;
    document.getElementById("type").value = result.get("type");
  }
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
    // This is no token of the stand-in. The server says so when the form is sent.
  }
})();
