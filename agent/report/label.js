"use strict";
// One key per level, x for "cannot tell", u for the one before, q for the question. Without it the buttons still work.
(function () {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key === "q") {
      const shown = document.querySelector("details.question-shown");
      if (shown) shown.open = !shown.open;
      return;
    }
    const target = Array.from(document.querySelectorAll("[data-key]")).find((each) => each.dataset.key === event.key);
    if (target) target.click();
  });
  // a second press before the next response is there would label it unread
  const form = document.getElementById("labels");
  let sent = false;
  if (form) {
    form.addEventListener("submit", (event) => {
      if (sent) event.preventDefault();
      sent = true;
    });
  }
})();
