// Tables sort by a click on the last row of heads; a printed row stays below the row it belongs to.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = table.tHead.rows, heads = [...rows[rows.length - 1].cells];
  const shift = rows.length > 1 ? 1 : 0; // the first column's head spans all rows
  const blocks = [];
  for (const row of body.rows) {
    if (row.className === "paper" && blocks.length) blocks[blocks.length - 1].push(row);
    else blocks.push([row]);
  }
  heads.forEach((head, i) => {
    const column = i + shift;
    if (column === 0) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "sort by this column";
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort") || "none"];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      const value = (block) => parseFloat(block[0].cells[column].dataset.value ?? "NaN");
      const order = next === "none" ? blocks : [...blocks].sort((a, b) => {
        const x = value(a), y = value(b);
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is missing stays last
        return next === "descending" ? y - x : x - y;
      });
      if (next !== "none") head.setAttribute("aria-sort", next);
      order.forEach((block) => body.append(...block));
    });
  });
}
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", () => {
    const details = document.querySelector(link.hash)?.parentElement.querySelector("details.more");
    if (details) details.open = true;
  });
}
