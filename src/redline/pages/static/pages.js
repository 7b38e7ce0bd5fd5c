"use strict";
(function () {
  var root = document.documentElement, redline = window.redline;
  function all(selector, from) { return Array.from((from || document).querySelectorAll(selector)); }
  function one(selector, from) { return (from || document).querySelector(selector); }

  one("#theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("redline-theme", root.dataset.theme); } catch (e) { /* for this page, then */ }
  });

  function ask(address, options) {
    return fetch(address, Object.assign({credentials: "same-origin", headers: {"x-part": "1"}}, options || {}));
  }
  function as_json(address, options) {
    options = Object.assign({headers: {}}, options || {});
    options.headers.accept = "application/json";
    return ask(address, options).then(function (answer) {
      return answer.json().then(function (said) {
        if (!answer.ok) throw Object.assign(new Error([said.what, said.why].filter(Boolean).join(": ")), {status: answer.status});
        return said;
      });
    });
  }
  function banner(place, text) {
    place.textContent = "";
    var said = document.createElement("div");
    said.className = "banner bad";
    said.textContent = text;
    place.appendChild(said);
  }

  // what takes seconds follows the page
  function load(part) {
    part.classList.add("old");
    return ask(part.dataset.part).then(function (answer) { return answer.text(); }).then(function (text) {
      part.innerHTML = text;
      dress(part);
      var mark = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (mark && part.contains(mark)) { location.replace(location.hash); mark.scrollIntoView({block: "center"}); }
    }).catch(function () { banner(part, "redline ui does not answer any more. Is it still running?"); })
      .finally(function () { part.classList.remove("old"); });
  }
  function figures(place) {
    as_json(place.dataset.figures).then(function (said) {
      place.textContent = said.figures.length ? "" : "nothing was stored";
      var flats = null;
      said.figures.forEach(function (spec) {
        if (spec.flat === null || spec.flat === undefined) { redline.chart(place.appendChild(Object.assign(document.createElement("figure"), {className: "card chart"})), spec); return; }
        flats = flats || Object.assign(document.createElement("div"), {className: "flats", textContent: "never changed: "});
        var flat = flats.appendChild(document.createElement("span"));
        flat.textContent = spec.title;
        flat.appendChild(document.createElement("b")).textContent = redline.number(spec.flat) + " " + spec.unit;
      });
      if (flats) place.appendChild(flats);
    }).catch(function (fault) { banner(place, fault.message); });
  }
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) return;
      seen.unobserve(entry.target);
      figures(entry.target);
    });
  }, {rootMargin: "300px"});

  function dress(from) {
    redline.draw(from);
    all("[data-figures]", from).forEach(function (place) { seen.observe(place); });
    all("pre.copy", from).forEach(copying);
    all(".legend button", from).forEach(function (button) { button.addEventListener("click", highlight); });
    all("[data-sql]", from).forEach(function (button) { button.addEventListener("click", prove); });
  }

  function highlight(event) {
    var button = event.currentTarget, on = button.getAttribute("aria-pressed") !== "true";
    all("button", button.parentNode).forEach(function (other) { other.setAttribute("aria-pressed", String(on && other === button)); });
    all("svg path[data-engine]").forEach(function (path) { path.classList.toggle("faded", on && path.dataset.engine !== button.dataset.engine); });
  }

  // the button beside a number: the statement, run again, must give what is shown
  function prove(event) {
    var button = event.currentTarget, shown = button.dataset.shown.replace("†", ""), place = one("[data-sql-shown]");
    button.disabled = true;
    as_json("/sql", {method: "POST", body: new URLSearchParams({q: button.dataset.sql})}).then(function (said) {
      var same = said.text === shown || (shown === "∞" && said.rows[0][0] === null);
      button.textContent = (same ? "✓ " : "≠ ") + (same ? "same" : said.text);
      button.className = same ? "same" : "other";
      if (place) {
        place.hidden = false;
        place.textContent = "";
        var head = place.appendChild(document.createElement("p"));
        head.innerHTML = "<b></b> <span class='muted'></span> <a>open in SQL</a>";
        one("b", head).textContent = button.title.replace("run the SQL that gives ", "").replace(" again", "") + " = " + said.text;
        one("span", head).textContent = "in " + redline.number(said.seconds * 1000) + " ms, by:";
        one("a", head).href = "/sql?q=" + encodeURIComponent(button.dataset.sql);
        var block = place.appendChild(document.createElement("pre"));
        block.className = "copy";
        block.textContent = button.dataset.sql;
        copying(block);
        button.closest(".card").after(place);
      }
    }).catch(function (fault) { button.textContent = "failed"; button.title = fault.message; button.className = "other"; })
      .finally(function () { button.disabled = false; });
  }

  // lists: filters act at once, two ticked runs can be compared, a running one keeps the list fresh
  all("form.filters").forEach(function (form) {
    all("select", form).forEach(function (select) { select.addEventListener("change", function () { form.submit(); }); });
  });
  function ticked() {
    var button = one("[data-compare]"), said = one("[data-compare-said]");
    if (!button) return;
    var count = all("input[name=run]:checked").length;
    button.disabled = count !== 2;
    said.textContent = count === 2 ? "" : count === 1 ? "One more." : count ? "Two at most." : "Tick two runs to set them against each other.";
  }
  document.addEventListener("change", function (event) { if (event.target.name === "run") ticked(); });
  function refresh() {
    if (document.hidden || all("input[name=run]:checked").length) return;
    ask(location.href, {headers: {}}).then(function (answer) { return answer.text(); }).then(function (text) {
      var fresh = new DOMParser().parseFromString(text, "text/html");
      var now = one("#rows"), then = one("#rows", fresh), head = one(".head p"), other = one(".head p", fresh);
      if (now && then && now.innerHTML !== then.innerHTML) now.innerHTML = then.innerHTML;
      if (head && other) head.innerHTML = other.innerHTML;
    }).catch(function () { /* next time */ });
  }
  if (one("[data-refresh]")) setInterval(refresh, 1000 * one("[data-refresh]").dataset.refresh);
  if (one("[data-refresh-part]")) setInterval(function () { if (!document.hidden) all("[data-part]").forEach(load); }, 1000 * one("[data-refresh-part]").dataset.refreshPart);
  if (one("[data-wait-for-store]")) setInterval(function () {
    ask("/", {headers: {}}).then(function (answer) { return answer.text(); }).then(function (text) { if (text.indexOf("data-wait-for-store") < 0) location.reload(); }).catch(function () { /* still waiting */ });
  }, 2000);

  // SQL
  var form = one("[data-ask]");
  if (form) {
    var area = one("textarea", form), answer = one("[data-answer]");
    form.addEventListener("submit", function (event) {
      event.preventDefault();
      answer.innerHTML = "<p class='waiting'><i></i>asking …</p>";
      history.replaceState(null, "", "/sql?q=" + encodeURIComponent(area.value));
      ask("/sql", {method: "POST", body: new URLSearchParams({q: area.value})}).then(function (said) { return said.text(); })
        .then(function (text) { answer.innerHTML = text; }).catch(function () { banner(answer, "redline ui does not answer any more."); });
    });
    area.addEventListener("keydown", function (event) { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
    all("[data-example]").forEach(function (button) { button.addEventListener("click", function () { area.value = button.dataset.example; form.requestSubmit(); }); });
  }

  // keys
  var going = false;
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "/") { var search = one("input[type=search]"); if (search) { event.preventDefault(); search.focus(); search.select(); } }
    if (going && event.key === "r") location.href = "/";
    if (going && event.key === "c") location.href = "/compare";
    if (going && event.key === "s") location.href = "/sql";
    going = event.key === "g";
    if (event.key === "j" || event.key === "k") {
      var rows = all("[data-rows] tbody tr").filter(function (row) { return one("a.row", row); });
      if (!rows.length) return;
      var at = rows.findIndex(function (row) { return row.classList.contains("here"); });
      rows.forEach(function (row) { row.classList.remove("here"); });
      at = Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), rows.length - 1);
      rows[at].classList.add("here");
      one("a.row", rows[at]).focus();
    }
  });

  // a run in progress
  var live = one("[data-live]");
  function follow() {
    var after = "", sampled = 0, seconds = {}, point = null, done = null, charts = {}, series = {}, place = one("[data-live-charts]");
    function say(name, text) { var node = one("[data-live-value=" + name + "]"); if (node) node.textContent = text; }
    function put(name, spec) {
      if (charts[name]) { charts[name].update(spec); return; }
      charts[name] = redline.chart(place.appendChild(Object.assign(document.createElement("figure"), {className: "card chart"})), spec);
    }
    function took(s) { return s < 60 ? s.toFixed(0) + " s" : Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s"; }
    function show(said) {
      if (said.point && said.point.id !== point) { point = said.point.id; seconds = {}; }
      if (done !== null && said.done !== done) all("[data-part]").forEach(load);
      done = said.done;
      after = said.after; sampled = said.sampled;
      one("[data-live-step]").textContent = said.step;
      say("elapsed", took(said.elapsed_s || 0));
      say("done", String(said.done)); say("begun", "of " + said.points + " begun");
      say("requests", said.point ? said.point.requests.toLocaleString("en") : "–");
      ["ttft_p50", "ttft_p99", "gap_p50"].forEach(function (name) { if (said.newest[name]) say(name, said.newest[name] + " ms"); });
      if (said.newest.of) say("of", "of the newest " + said.newest.of);
      said.buckets.forEach(function (bucket) { seconds[bucket.s] = bucket; });
      var known = Object.keys(seconds).map(Number).sort(function (a, b) { return a - b; }).slice(-180);
      var whole = known.filter(function (s) { return !seconds[s].open; }), rows = whole.map(function (s) { return seconds[s]; });
      function column(name) { return rows.map(function (row) { return row[name]; }); }
      var title = said.point ? said.point.engine + ", " + said.point.label : "";
      function over(name, unit, lines) {
        put(name, {title: name, unit: unit, zero: true, x: {title: "s"}, height: 150, note: title, group: "live",
                   series: lines.map(function (line, i) { return {name: line[0], colour: line[2] === undefined ? i : line[2], x: whole, y: column(line[1])}; })});
      }
      if (whole.length) {
        over("Output of requests that ended", "tokens/s", [["tokens", "tokens"]]);
        over("Requests that ended", "per s", [["ended", "finished"], ["failed", "failed", 1]]);
        over("TTFT", "ms", [["p50", "ttft_p50"], ["highest", "ttft_max", 1]]);
      }
      said.samples.forEach(function (one) {
        var key = one.name + (one.labels ? " " + one.labels : ""), old = series[key] || {x: [], y: []}, share = one.unit === "share", bytes = one.unit === "B";
        var mine = series[key] = {x: old.x.concat(one.x).slice(-1200), y: old.y.concat(one.y.map(function (v) { return v === null ? null : share ? v * 100 : bytes ? v / 1e9 : v; })).slice(-1200)};
        put(key, {title: key, unit: share ? "%" : bytes ? "GB" : one.unit, zero: true, x: {title: "s"}, height: 150, group: "samples", series: [{name: key, colour: 2, x: mine.x, y: mine.y}]});
      });
      return said.going_on;
    }
    function turn() {
      if (document.hidden) { setTimeout(turn, 1000); return; }
      as_json(live.dataset.live + "?after=" + after + "&sampled=" + sampled).then(function (said) {
        var more = show(said);
        if (said.going_on || more) setTimeout(turn, 1000);
        else location.reload();
      }).catch(function (fault) {
        one("[data-live-step]").textContent = fault.status === 404 ? "this run is not in the results file any more" : "no answer: " + fault.message + " – asking again";
        if (fault.status !== 404) setTimeout(turn, 3000);
      });
    }
    turn();
  }

  dress(document);
  all("[data-part]").forEach(load);
  ticked();
  if (live) follow();
})();
