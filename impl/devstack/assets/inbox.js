// Keeps the inbox up to date, and shows messages without a page load. Without this script all of it works too, less
// smoothly: all links are ordinary links.
(() => {
  "use strict";
  const body = document.body;
  const sidebar = document.getElementById("sidebar");
  const reader = document.getElementById("reader");
  const status = document.getElementById("status");
  const news = document.getElementById("news");
  const rows = () => [...sidebar.querySelectorAll("a[data-id]")];
  const selected = () => new URLSearchParams(location.search).get("mail");

  // Messages that were there when the page opened, or were opened since, are not new.
  const seen = new Set(rows().map((row) => row.dataset.id));
  const pageTitle = () => document.title.replace(/^\(\d+\) /, "");

  function mark() {
    let unseen = 0;
    for (const row of rows()) {
      if (row.dataset.id === selected()) {
        row.setAttribute("aria-current", "true");
        seen.add(row.dataset.id);
      } else {
        row.removeAttribute("aria-current");
      }
      const fresh = !seen.has(row.dataset.id);
      row.classList.toggle("new", fresh);
      unseen += fresh ? 1 : 0;
    }
    document.title = (unseen ? `(${unseen}) ` : "") + pageTitle();
  }

  // keepingFocus replaces a part of the page, and keeps the keyboard's focus in it.
  function keepingFocus(part, replace) {
    const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
    const top = part.scrollTop;
    replace();
    part.scrollTop = top;
    if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function showList({ html, delivered, tests }) {
    const before = new Set(rows().map((row) => row.dataset.id));
    keepingFocus(sidebar, () => { sidebar.innerHTML = html; }); // rendered and escaped by the server
    body.toggleAttribute("data-empty", (body.dataset.box === "tests" ? tests : delivered) === 0);
    mark();
    const arrived = rows().filter((row) => !before.has(row.dataset.id));
    for (const row of arrived) row.classList.add("arrived");
    if (arrived.length === 1) news.textContent = `New mail to ${arrived[0].querySelector(".to").textContent}`;
    if (arrived.length > 1) news.textContent = `${arrived.length} new messages`;
  }

  // The stream. EventSource reconnects by itself after a lost connection, but gives up after an answer that is no
  // stream (the server is full, or another server has its port).
  let source, timer, wait = 1000;
  function say(state, text) {
    status.dataset.state = state;
    status.firstElementChild.textContent = text;
  }
  function connect() {
    clearTimeout(timer);
    source?.close();
    source = new EventSource(`/dev/inbox/events?box=${body.dataset.box}`);
    source.addEventListener("open", () => { wait = 1000; say("live", "Live"); });
    source.addEventListener("inbox", (event) => showList(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      say("lost", "Reconnecting…");
      if (source.readyState === EventSource.CLOSED) {
        timer = setTimeout(connect, wait);
        wait = Math.min(wait * 2, 10000);
      }
    });
  }
  function disconnect() {
    clearTimeout(timer);
    source?.close();
  }
  // A browser opens at most six connections to a host, so tabs in the background must not keep them.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  if (!document.hidden) connect();

  // Messages.
  let latest = 0;
  async function show(href, { push }) {
    const turn = ++latest;
    let page;
    try {
      const answer = await fetch(href);
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      location.href = href; // the browser shows what is wrong
      return;
    }
    if (turn !== latest) return; // another message was opened meanwhile
    const content = page.getElementById("reader");
    if (!content) { location.href = href; return; }
    if (push) history.pushState(null, "", href);
    const fromList = sidebar.contains(document.activeElement);
    keepingFocus(reader, () => reader.replaceChildren(...content.childNodes));
    reader.scrollTop = 0;
    body.toggleAttribute("data-selected", page.body.hasAttribute("data-selected"));
    document.title = page.title;
    mark();
    offerCopy();
    // On a phone the message has just replaced the list.
    if (fromList && sidebar.offsetParent === null) reader.focus();
  }

  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest("a[data-id], .tabs a, a.back");
    if (!link) return;
    event.preventDefault();
    const url = new URL(link.href);
    const view = reader.querySelector("[data-view]")?.dataset.view;
    if (link.dataset.id && view) url.searchParams.set("view", view); // keep the view
    show(url.href, { push: url.href !== location.href });
  });
  window.addEventListener("popstate", () => show(location.href, { push: false }));

  document.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (!step || event.metaKey || event.ctrlKey || event.altKey) return;
    // Outside of the list the arrows scroll, as usual.
    if (document.activeElement !== body && !sidebar.contains(document.activeElement)) return;
    const list = rows();
    if (!list.length) return;
    event.preventDefault();
    const at = list.findIndex((row) => row === document.activeElement);
    const from = at >= 0 ? at : list.findIndex((row) => row.hasAttribute("aria-current"));
    list[Math.max(0, Math.min(list.length - 1, from + step))].focus();
  });

  function offerCopy() {
    const button = document.getElementById("copy");
    if (!button || !navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById("curl").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
  offerCopy();
})();
