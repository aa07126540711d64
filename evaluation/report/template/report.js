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

// Figures in full precision, with interval and ranks; other tables as they are shown.
const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const rowsOf = (table) => {
  if (!table.classList.contains("scores")) return [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.replace(/\s+/g, " ").trim()));
  const titles = [...table.tHead.rows[0].cells].slice(1).map((head) => head.dataset.name);
  const heads = ["Arm", ...titles.flatMap((title) => [title, `${title}, low`, `${title}, high`, `${title}, ranks`])];
  const parts = (cell) => ["value", "low", "high", "ranks"].map((name) => cell.dataset[name] ?? "");
  return [heads, ...[...table.tBodies[0].rows].map((row) => [row.cells[0].dataset.value, ...[...row.cells].slice(1).flatMap(parts)])];
};

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refuses");
}

for (const button of document.querySelectorAll("button.copy")) {
  const said = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.dataset.copy === "table"
      ? rowsOf(button.parentElement.querySelector("table")).map((row) => row.map(quoted).join(",")).join("\n") + "\n"
      : [...button.previousElementSibling.children].map((part) => part.textContent).join("\n\n");
    try {
      await copy(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Could not copy";
    }
    setTimeout(() => (button.textContent = said), 1500);
  });
}

// On paper nothing can be unfolded.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
