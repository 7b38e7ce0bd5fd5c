"use strict";
// Line charts in SVG: drawn to fit, a crosshair that all charts of a group share, drag to look closer. No library.
// spec: {title, unit, x: {title, log}, log, zero, most, from, to, height, group, note, flat, bands, marks,
//        series: [{name, colour, dash, dots, hollow, stems, step, x, y, low, high, said}]}
window.redline = window.redline || {};
(function () {
  var NS = "http://www.w3.org/2000/svg", LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22;
  var groups = {};

  function make(name, attributes, parent) {
    var node = document.createElementNS(NS, name);
    for (var key in attributes) node.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(node);
    return node;
  }
  function html(name, text, parent, kind) {
    var node = document.createElement(name);
    if (text) node.textContent = text;
    if (kind) node.className = kind;
    if (parent) parent.appendChild(node);
    return node;
  }
  function number(value) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    var size = Math.abs(value);
    if (size === 0) return "0";
    var digits = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : size >= 0.001 ? 3 : 6;
    return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  }
  function tick(value) {
    if (Math.abs(value) >= 1e6) return (value / 1e6).toLocaleString("en", {maximumFractionDigits: 2}) + "M";
    if (Math.abs(value) >= 1e4) return (value / 1e3).toLocaleString("en", {maximumFractionDigits: 1}) + "k";
    return value.toLocaleString("en", {maximumSignificantDigits: 4});
  }
  function ticks(low, high, log, wanted) {
    var found = [], value;
    if (log) {
      var decades = Math.log10(high / low);
      var factors = decades > 3.2 ? [1] : decades > 1.6 ? [1, 3] : [1, 2, 5];
      for (var power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        factors.forEach(function (f) { value = f * Math.pow(10, power); if (value >= low * 0.999 && value <= high * 1.001) found.push(value); });
      if (found.length > 1) return found;
      found = [];
    }
    var rough = (high - low) / wanted, base = Math.pow(10, Math.floor(Math.log10(rough)));
    var step = base * [1, 2, 2.5, 5, 10].find(function (f) { return f * base >= rough * 0.999; });
    for (value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
    return found;
  }

  function Chart(figure, spec) {
    this.figure = figure;
    this.spec = spec;
    this.off = {};
    this.zoom = null;
    figure.textContent = "";
    figure.classList.add("chart");
    if (!figure.hasAttribute("tabindex")) figure.tabIndex = 0;
    var caption = html("figcaption", spec.title, figure);
    this.unit = html("span", spec.unit, caption);
    this.now = html("span", "", caption, "now");
    this.svg = make("svg", {role: "img"}, null);
    figure.appendChild(this.svg);
    this.legend = html("ul", "", figure);
    this.remark = html("p", spec.note || "", figure, "note");
    if (!spec.note) this.remark.hidden = true;
    var group = spec.group || "own" + Math.random();
    this.group = groups[group] = groups[group] || [];
    this.group.push(this);
    this.listen();
    this.draw();
  }

  Chart.prototype.update = function (spec) { this.spec = spec; this.draw(); };

  Chart.prototype.shown = function () {
    var off = this.off;
    return this.spec.series.filter(function (s) { return !off[s.name]; });
  };

  Chart.prototype.domain = function () {
    var spec = this.spec, x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity, zoom = this.zoom;
    spec.series.forEach(function (s) {
      for (var i = 0; i < s.x.length; i++) { if (s.x[i] < x0) x0 = s.x[i]; if (s.x[i] > x1) x1 = s.x[i]; }
    });
    if (spec.from !== undefined) x0 = Math.min(x0, spec.from);
    if (spec.to !== undefined) x1 = Math.max(x1, spec.to);
    if (x0 > x1) { x0 = 0; x1 = 1; }
    if (zoom) { x0 = zoom[0]; x1 = zoom[1]; }
    this.shown().forEach(function (s) {
      for (var i = 0; i < s.x.length; i++) {
        if (s.x[i] < x0 || s.x[i] > x1) continue;
        [s.y[i], s.low ? s.low[i] : null, s.high ? s.high[i] : null].forEach(function (v) {
          if (v === null || v === undefined || (spec.log && v <= 0)) return;
          if (v < y0) y0 = v;
          if (v > y1) y1 = v;
        });
      }
    });
    if (y0 > y1) { y0 = 0; y1 = 1; }
    if (spec.log) { y0 /= 1.25; y1 *= 1.25; } else {
      if (spec.zero && y0 > 0) y0 = 0;
      if (y0 === y1) { y1 = y0 + (Math.abs(y0) || 1); }
      var room = (y1 - y0) * 0.06;
      if (!spec.zero) y0 = y0 < 0 ? y0 - room : Math.max(y0 - room, 0);
      y1 += room;
      if (spec.most) y1 = spec.most;
    }
    if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
    if (spec.x.log && !zoom) { x0 /= 1.12; x1 *= 1.12; }
    return [x0, x1, y0, y1];
  };

  Chart.prototype.draw = function () {
    if (!this.svg) return;
    var spec = this.spec, width = Math.max(this.figure.clientWidth - 28, 120), height = spec.height || 210;
    var svg = this.svg, self = this, d = this.domain(), right = width - RIGHT, bottom = height - BOTTOM;
    svg.textContent = "";
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    svg.setAttribute("height", height);
    function scale(value, low, high, a, b, log) {
      return log ? a + (b - a) * Math.log(value / low) / Math.log(high / low) : a + (b - a) * (value - low) / (high - low);
    }
    this.px = function (value) { return scale(value, d[0], d[1], LEFT, right, spec.x.log); };
    this.py = function (value) { return scale(value, d[2], d[3], bottom, TOP, spec.log); };
    this.back = function (at) {
      var share = (at - LEFT) / (right - LEFT);
      return spec.x.log ? d[0] * Math.pow(d[1] / d[0], share) : d[0] + share * (d[1] - d[0]);
    };
    this.edges = [LEFT, right, TOP, bottom];
    var clip = "clip" + (Chart.count = (Chart.count || 0) + 1);
    var rect = make("clipPath", {id: clip}, svg);
    make("rect", {x: LEFT, y: TOP - 6, width: right - LEFT, height: bottom - TOP + 8}, rect);
    ticks(d[2], d[3], spec.log, Math.max(3, Math.round(height / 55))).forEach(function (value) {
      var y = Math.round(self.py(value)) + 0.5;
      make("line", {x1: LEFT, x2: right, y1: y, y2: y, "class": "grid"}, svg);
      make("text", {x: LEFT - 7, y: y + 3.5, "text-anchor": "end", "class": "axis"}, svg).textContent = tick(value);
    });
    var loads = spec.x.loads ? Array.from(new Set([].concat.apply([], spec.series.map(function (s) { return Array.from(s.x); })))) : [];
    var places = loads.length && loads.length < 9 ? loads : ticks(d[0], d[1], spec.x.log, Math.max(2, Math.round(width / 85)));
    places.sort(function (a, b) { return a - b; });
    var title = make("text", {x: right, y: height - 7, "text-anchor": "end", "class": "axis"}, svg);
    // the highest load stands at the edge, where the unit is too
    title.textContent = places === loads && loads.length > 1 && !spec.x.log ? tick(places.pop()) + " " + spec.x.title : spec.x.title;
    var last = -99, free = right - (title.getBBox ? title.getBBox().width : 0) - 8;
    places.forEach(function (value) {
      var x = self.px(value), text = tick(value), half = 3 * text.length;
      if (x - half < last + 10 || x + half > free) return;
      last = x + half;
      make("text", {x: x, y: height - 7, "text-anchor": "middle", "class": "axis"}, svg).textContent = text;
    });
    var inside = make("g", {"clip-path": "url(#" + clip + ")"}, svg);
    (spec.bands || []).forEach(function (band) {
      var a = self.px(Math.max(band.from, d[0])), b = self.px(Math.min(band.to, d[1]));
      if (b >= a) make("title", {}, make("rect", {x: a, y: TOP, width: Math.max(b - a, 1), height: bottom - TOP, "class": "band" + (band.bad ? " bad" : "")}, inside)).textContent = band.name;
    });
    (spec.marks || []).forEach(function (mark) {
      if (mark.x < d[0] || mark.x > d[1]) return;
      var x = self.px(mark.x);
      make("title", {}, make("line", {x1: x, x2: x, y1: TOP, y2: bottom, "class": "mark"}, inside)).textContent = mark.name;
    });
    this.shown().forEach(function (s) { self.line(s, inside, d); });
    this.cross = make("line", {y1: TOP, y2: bottom, "class": "cross", visibility: "hidden"}, svg);
    this.dots = make("g", {}, svg);
    this.brush = make("rect", {y: TOP, height: bottom - TOP, "class": "brush", visibility: "hidden"}, svg);
    this.names();
    svg.setAttribute("aria-label", this.said());
  };

  // Of many points only the lowest and the highest in each pixel are drawn.
  Chart.prototype.line = function (s, parent, d) {
    var colour = "var(--e" + s.colour + ")", self = this, path = "", pen = false, i, x, y, before = null;
    if (s.low && s.low.some(function (v) { return v !== null; })) {
      var up = [], down = [];
      for (i = 0; i < s.x.length; i++) {
        var low = s.low[i] === null ? s.y[i] : s.low[i], high = s.high[i] === null ? s.y[i] : s.high[i];
        up.push(this.px(s.x[i]) + " " + this.py(high));
        down.unshift(this.px(s.x[i]) + " " + this.py(this.spec.log ? Math.max(low, d[2]) : low));
      }
      if (up.length > 1) make("path", {d: "M" + up.concat(down).join("L") + "Z", fill: colour, opacity: 0.13, stroke: "none"}, parent);
      for (i = 0; i < up.length; i++) make("path", {d: "M" + up[i] + "L" + down[up.length - 1 - i], stroke: colour, "stroke-width": 1.4, opacity: 0.55}, parent);
    }
    var width = 0;
    for (i = 0; i < s.x.length; i++) {
      var value = s.y[i];
      if (value === null || value === undefined || (this.spec.log && value <= 0)) { pen = false; before = null; continue; }
      if (s.x[i] < d[0] && i + 1 < s.x.length && s.x[i + 1] < d[0]) continue;
      if (s.x[i] > d[1] && i > 0 && s.x[i - 1] > d[1]) break;
      x = this.px(s.x[i]); y = this.py(value);
      if (s.stems) { path += "M" + x.toFixed(1) + " " + this.edges[3] + "V" + y.toFixed(1); width++; continue; }
      if (s.step && before !== null) path += "H" + x.toFixed(1);
      path += (pen ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
      pen = true; before = y; width++;
    }
    make("path", {d: path || "M0 0", fill: "none", stroke: colour, "stroke-width": s.stems ? 1.2 : 1.8, "stroke-linejoin": "round", "stroke-linecap": "round", "stroke-dasharray": s.dash ? "5 3" : "none", "data-engine": s.colour}, parent);
    if (s.dots && width < 500)
      for (i = 0; i < s.x.length; i++) {
        if (s.y[i] === null || s.x[i] < d[0] || s.x[i] > d[1] || (this.spec.log && s.y[i] <= 0)) continue;
        if (s.y[i] < d[2] || s.y[i] > d[3]) continue;
        var hollow = s.hollow && s.hollow[i];
        make("circle", {cx: self.px(s.x[i]), cy: self.py(s.y[i]), r: s.stems || s.x.length > 40 ? 2 : 3.2, fill: hollow ? "var(--card)" : colour, stroke: colour, "stroke-width": hollow ? 1.6 : 0}, this.svg);
      }
  };

  Chart.prototype.names = function () {
    var self = this, list = this.legend;
    list.textContent = "";
    if (this.spec.series.length < 2) return;
    this.spec.series.forEach(function (s) {
      var button = html("button", "", html("li", "", list));
      button.type = "button";
      button.setAttribute("aria-pressed", String(!self.off[s.name]));
      make("line", {x1: 0, x2: 16, y1: 4, y2: 4, stroke: "var(--e" + s.colour + ")", "stroke-width": 2.5, "stroke-dasharray": s.dash ? "4 2" : "none"}, button.appendChild(make("svg", {})));
      button.appendChild(document.createTextNode(s.name));
      button.addEventListener("click", function () { self.off[s.name] = !self.off[s.name]; self.draw(); });
    });
  };

  Chart.prototype.said = function () {
    var spec = this.spec;
    return spec.title + ", " + spec.unit + ". " + spec.series.slice(0, 6).map(function (s) {
      var known = s.y.filter(function (v) { return v !== null && v !== undefined; });
      if (!known.length) return s.name + ": no value";
      var low = known.reduce(function (a, b) { return a < b ? a : b; }), high = known.reduce(function (a, b) { return a > b ? a : b; });
      return s.name + ": from " + number(low) + " to " + number(high) + ", last " + number(known[known.length - 1]);
    }).join("; ");
  };

  function nearest(xs, value) {
    var low = 0, high = xs.length - 1;
    if (high < 0) return -1;
    while (low < high) { var mid = (low + high) >> 1; if (xs[mid] < value) low = mid + 1; else high = mid; }
    return low > 0 && Math.abs(xs[low - 1] - value) <= Math.abs(xs[low] - value) ? low - 1 : low;
  }

  Chart.prototype.point = function (value) {
    if (!this.svg || !this.px) return [];
    var x = this.px(value), self = this, lines = [], inside = x >= this.edges[0] - 1 && x <= this.edges[1] + 1;
    this.cross.setAttribute("visibility", inside ? "visible" : "hidden");
    this.dots.textContent = "";
    if (!inside) return lines;
    this.cross.setAttribute("x1", x); this.cross.setAttribute("x2", x);
    this.shown().forEach(function (s) {
      var i = nearest(s.x, value);
      if (i < 0 || s.y[i] === null || s.y[i] === undefined || (self.spec.log && s.y[i] <= 0)) return;
      make("circle", {cx: self.px(s.x[i]), cy: self.py(s.y[i]), r: 3.5, fill: "var(--e" + s.colour + ")", stroke: "var(--card)", "stroke-width": 1.5}, self.dots);
      var band = s.low && s.low[i] !== null ? " [" + number(s.low[i]) + "–" + number(s.high[i]) + "]" : "";
      lines.push((self.spec.series.length > 1 ? s.name + "  " : "") + number(s.y[i]) + " " + self.spec.unit + band + (s.said ? "  " + s.said[i] : ""));
    });
    this.now.textContent = this.spec.series.length === 1 && lines.length ? lines[0] : "";
    return lines;
  };

  Chart.prototype.clear = function () {
    if (!this.svg || !this.cross) return;
    this.cross.setAttribute("visibility", "hidden");
    this.dots.textContent = "";
    this.now.textContent = "";
  };

  Chart.prototype.all = function (value) { this.group.forEach(function (chart) { chart.point(value); }); };

  Chart.prototype.tell = function (value, left, top) {
    var tip = document.getElementById("tip"), lines = this.point(value);
    tip.hidden = !lines.length;
    var bands = (this.spec.bands || []).filter(function (b) { return b.from <= value && value <= b.to; }).map(function (b) { return b.name; });
    tip.textContent = number(value) + " " + this.spec.x.title + (bands.length ? " · " + bands[0] : "") + "\n" + lines.slice(0, 12).join("\n");
    tip.style.left = Math.max(4, Math.min(left + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.min(top + 14, innerHeight - tip.offsetHeight - 8) + "px";
  };

  Chart.prototype.hide = function () {
    document.getElementById("tip").hidden = true;
    this.group.forEach(function (chart) { chart.clear(); });
  };

  Chart.prototype.look = function (zoom) { this.group.forEach(function (chart) { chart.zoom = zoom; chart.draw(); }); };

  Chart.prototype.listen = function () {
    var self = this, start = null, at = null;
    function where(event) {
      var box = self.svg.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) * (self.svg.viewBox.baseVal.width / box.width), self.edges[0]), self.edges[1]);
    }
    this.svg.addEventListener("pointermove", function (event) {
      var x = where(event);
      self.all(self.back(x));
      self.tell(self.back(x), event.clientX, event.clientY);
      if (start === null) return;
      self.brush.setAttribute("visibility", "visible");
      self.brush.setAttribute("x", Math.min(x, start));
      self.brush.setAttribute("width", Math.abs(x - start));
    });
    this.svg.addEventListener("pointerdown", function (event) { if (event.pointerType === "mouse" && event.button === 0) { start = where(event); event.preventDefault(); self.figure.focus({preventScroll: true}); } });
    addEventListener("pointerup", function (event) {
      if (start === null) return;
      var end = where(event), a = self.back(Math.min(start, end)), b = self.back(Math.max(start, end));
      var wide = Math.abs(end - start) > 6;
      start = null;
      self.brush.setAttribute("visibility", "hidden");
      if (wide) self.look([a, b]);
    });
    this.svg.addEventListener("pointerleave", function () { self.hide(); });
    this.svg.addEventListener("dblclick", function () { self.look(null); });
    this.figure.addEventListener("keydown", function (event) {
      var s = self.shown()[0];
      if (event.key === "Escape") { self.hide(); self.look(null); at = null; return; }
      if ((event.key !== "ArrowLeft" && event.key !== "ArrowRight") || !s || !s.x.length) return;
      event.preventDefault();
      at = at === null ? (event.key === "ArrowRight" ? 0 : s.x.length - 1) : at + (event.key === "ArrowRight" ? 1 : -1) * (event.shiftKey ? 10 : 1);
      at = Math.min(Math.max(at, 0), s.x.length - 1);
      var box = self.svg.getBoundingClientRect();
      self.all(s.x[at]);
      self.tell(s.x[at], box.left + self.px(s.x[at]), box.top + 20);
    });
    this.figure.addEventListener("blur", function () { self.hide(); });
    if (window.ResizeObserver) {
      var seen = 0;
      new ResizeObserver(function (entries) {
        var width = Math.round(entries[0].contentRect.width);
        if (width && width !== seen) { seen = width; self.draw(); }
      }).observe(this.figure);
    }
  };

  window.redline.number = number;
  window.redline.chart = function (figure, spec) { return new Chart(figure, spec); };
  window.redline.draw = function (root) {
    root.querySelectorAll("figure[data-chart]").forEach(function (figure) {
      var spec = JSON.parse(figure.dataset.chart);
      figure.removeAttribute("data-chart");
      new Chart(figure, spec);
    });
  };
})();
