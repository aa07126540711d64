// Tables sort by a click on a column's head: first the better values, then the other way round. Figures that are missing stay last.
for (const table of document.querySelectorAll("table.scores")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const higher = head.textContent.includes("higher is better");
    head.querySelector("button").addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const order = was ? (was === "ascending" ? "descending" : "ascending") : higher ? "descending" : "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const value = (row) => row.children[column].dataset.value;
      [...body.rows]
        .sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
          return sign * (column === 0 ? x.localeCompare(y) : Number(x) - Number(y));
        })
        .forEach((row) => body.append(row));
    });
  });
}
