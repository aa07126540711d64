// The table of scores and the rows of pictures in MedTune's Evaluate, Privacy and Report nodes.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const SHOWING = ["MedTuneEvaluate", "MedTunePrivacy", "MedTuneReport"];
const CELL = "padding:3px 8px;border-bottom:1px solid var(--border-color);text-align:left;white-space:nowrap";

/** An element with a style, a text and children; texts never become HTML. */
function element(tag, style = "", text = null, children = []) {
  const made = document.createElement(tag);
  made.style.cssText = style;
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

/** {columns: [text], rows: [[text or number]]} as a table that sorts by the column that is clicked. */
function scoreTable({ columns, rows }) {
  const body = element("tbody");
  let sorted = { column: -1, up: false };
  const fill = (order) => body.replaceChildren(...order.map((row) => element("tr", "", null, row.map((cell) => element("td", CELL, shown(cell))))));
  const heads = columns.map((name, column) => {
    const button = element("button", "all:unset;cursor:pointer;font-weight:600", name);
    button.title = "sort by this column";
    button.addEventListener("click", () => {
      sorted = { column, up: sorted.column === column ? !sorted.up : true };
      fill([...rows].sort((a, b) => compare(a[column], b[column]) * (sorted.up ? 1 : -1)));
    });
    return element("th", CELL, null, [button]);
  });
  fill(rows);
  return element("table", "border-collapse:collapse;font-size:12px", null, [element("thead", "", null, [element("tr", "", null, heads)]), body]);
}

function shown(cell) {
  return cell === null ? "–" : typeof cell === "number" ? String(Number(cell.toPrecision(4))) : String(cell);
}

/** Numbers by size, before texts; what is missing comes last. */
function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

/** {name, images: [{filename, subfolder, type, title}]} as a row of small pictures that open large. */
function pictureRow({ name, images }) {
  const pictures = images.map(({ title, ...place }) => {
    const source = api.apiURL(`/view?${new URLSearchParams(place)}`);
    const picture = element("img", "width:76px;height:76px;object-fit:cover;border-radius:4px;display:block");
    Object.assign(picture, { src: source, alt: title, title, loading: "lazy" });
    const link = element("a", "", null, [picture]);
    Object.assign(link, { href: source, target: "_blank", rel: "noopener" });
    return link;
  });
  return element("div", "margin-top:8px", null, [
    element("div", "font-weight:600;margin-bottom:3px", name),
    element("div", "display:flex;gap:4px;flex-wrap:wrap", null, pictures),
  ]);
}

function content({ table, pictures = [], notices = [], file = "" }) {
  const notes = notices.map((text) => element("p", "margin:6px 0;opacity:.8;white-space:normal", text));
  const tables = table ? [element("div", "overflow-x:auto", null, [scoreTable(table)])] : [];
  const place = file ? [element("p", "margin:6px 0;opacity:.8;overflow-wrap:anywhere", `Whole report: ${file}`)] : [];
  return [...tables, ...pictures.map(pictureRow), ...notes, ...place];
}

app.registerExtension({
  name: "MedTune.Report",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!SHOWING.includes(nodeData.name)) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      before?.apply(this, arguments);
      const found = output?.medtune?.[0];
      if (!found) return;
      if (!this.medtunePanel) {
        const style = "overflow:auto;padding:6px;font-size:12px;color:var(--input-text);background:var(--comfy-input-bg);border-radius:4px";
        this.medtunePanel = element("div", style);
        this.medtunePanel.addEventListener("wheel", (event) => event.stopPropagation(), { passive: true });
        this.addDOMWidget("medtune", "medtune", this.medtunePanel, { serialize: false, hideOnZoom: false, getMinHeight: () => 120 });
      }
      this.medtunePanel.replaceChildren(...content(found));
      const lines = (found.table?.rows.length ?? 0) + 2;
      const wanted = [Math.max(this.size[0], 480), Math.max(this.size[1], 140 + 26 * lines + 115 * (found.pictures?.length ?? 0))];
      this.setSize(wanted);
      this.setDirtyCanvas(true, true);
    };
  },
});
