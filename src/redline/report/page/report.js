"use strict";
(function () {
  var root = document.documentElement;
  var tip = document.getElementById("tip");

  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // what a mark says is its label, which screen readers read too
  document.querySelectorAll("figure").forEach(function (figure) {
    figure.addEventListener("mousemove", function (event) {
      var mark = event.target.closest("[role=graphics-symbol][aria-label]");
      tip.hidden = !mark;
      if (!mark) return;
      tip.textContent = mark.getAttribute("aria-label");
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
      tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
    });
    figure.addEventListener("mouseleave", function () { tip.hidden = true; });
  });

  // an engine's marks are those in its colour
  var chosen = null;
  function marks(place) {
    var colour = "var(--e" + place + ")";
    return document.querySelectorAll('figure [stroke="' + colour + '"],figure [fill="' + colour + '"]');
  }
  var buttons = document.querySelectorAll(".legend button");
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      chosen = chosen === button.dataset.engine ? null : button.dataset.engine;
      buttons.forEach(function (other) {
        var place = other.dataset.engine;
        other.setAttribute("aria-pressed", String(place === chosen));
        marks(place).forEach(function (mark) { mark.classList.toggle("faded", chosen !== null && place !== chosen); });
      });
    });
  });

  document.querySelectorAll("pre.copy").forEach(copying);
})();
