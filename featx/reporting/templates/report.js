"use strict";
{
  const choice = document.getElementById("mistakes-class");
  const count = document.getElementById("mistakes-count");
  const items = [...document.querySelectorAll("#mistakes-list > li")];
  choice?.addEventListener("change", () => {
    let shown = 0;
    for (const item of items) {
      item.hidden = choice.value !== "" && item.dataset.label !== choice.value;
      shown += !item.hidden;
    }
    count.textContent = `${shown} shown`;
  });
}
