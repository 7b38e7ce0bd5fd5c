"use strict";
// A button on a block of text that copies it. A report is opened as a file, where there is no navigator.clipboard.
function copying(block) {
  var text = block.textContent, button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy";
  button.addEventListener("click", function () {
    var area = document.createElement("textarea");
    area.value = text;
    document.body.appendChild(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.textContent = "copied";
    setTimeout(function () { button.textContent = "copy"; }, 1500);
  });
  block.appendChild(button);
}
