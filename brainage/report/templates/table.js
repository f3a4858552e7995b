// Makes the headings of a table buttons that sort it. Without it the table is complete, flagged scans first.
document.querySelectorAll("table.sortable").forEach((table) => {
  "use strict";
  const body = table.tBodies[0], headings = Array.from(table.tHead.rows[0].cells);
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) { return Number(cell.dataset.value); }
    return cell.dataset.label ? null : cell.textContent.trim();
  };
  const compare = (one, other) => {
    if (one === null || other === null) { return 0; }
    return typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
  };
  headings.forEach((heading, column) => {
    if ("fixed" in heading.dataset) { return; }
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => { if (other.hasAttribute("aria-sort")) { other.setAttribute("aria-sort", "none"); } });
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(body.rows, (row) => [key(row, column), row]);
      // Rows without a value stay at the end in either direction.
      const kept = rows.filter(([value]) => value !== null).sort(([one], [other]) => (down ? -1 : 1) * compare(one, other));
      body.append(...[...kept, ...rows.filter(([value]) => value === null)].map(([, row]) => row));
    });
  });
});
