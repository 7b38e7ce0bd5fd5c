"use strict";
// before anything is drawn, so that a page never flashes in the other colours
try {
  var theme = localStorage.getItem("redline-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch (e) { /* no storage: the system decides */ }
document.documentElement.classList.add("scripted");
