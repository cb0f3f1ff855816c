/**
 * What a cell shows: a text, or what `show` puts there.
 * @typedef {{text?: string, kind?: string, show?: (cell: HTMLTableCellElement) => void}} Cell
 */

/** Shows these rows. Keeps the rows and cells that are there, so that a selection or a finger on one
 * stays where it is.
 * @param {string} id @param {Cell[][]} rows @param {string} none */
function fill(id, rows, none) {
	const body = element(id, HTMLTableSectionElement);
	const columns = body.parentElement?.querySelectorAll("thead th").length ?? 1;
	const shown = rows.length > 0 ? rows : [[{ text: none, kind: "soft" }]];
	while (body.rows.length > shown.length) body.deleteRow(-1);
	shown.forEach((cells, n) => {
		const row = body.rows[n] ?? body.insertRow();
		while (row.cells.length > cells.length) row.deleteCell(-1);
		cells.forEach(({ text, kind, show }, m) => {
			const cell = row.cells[m] ?? row.insertCell();
			if (cell.className !== (kind ?? "")) cell.className = kind ?? "";
			const span = rows.length > 0 ? 1 : columns;
			if (cell.colSpan !== span) cell.colSpan = span;
			if (show) show(cell);
			else say(cell, text ?? "");
		});
	});
}

/** @param {string} text @param {string} [kind] @returns {Cell} */
function number(text, kind = "number") {
	return { text, kind };
}

/** @param {number} open @param {number?} most @returns {Cell} */
function full(open, most) {
	return number(most === null ? count(open) : `${count(open)} of ${count(most)}`);
}

/** A button that stays the same element whatever its row becomes.
 * @param {string} label @param {string} name @param {() => void} run @param {string} [kind] @returns {Cell} */
function button(label, name, run, kind = "act") {
	return { kind, show: (cell) => {
		let it = cell.firstElementChild;
		if (!(it instanceof HTMLButtonElement)) {
			it = make("button", "");
			cell.replaceChildren(it);
		}
		say(it, label);
		if (it.getAttribute("aria-label") !== name) it.setAttribute("aria-label", name);
		/** @type {HTMLButtonElement} */ (it).onclick = run;
	} };
}

/** @template {keyof HTMLElementTagNameMap} K @param {K} tag @param {string} text @param {string} [kind] */
function make(tag, text, kind = "") {
	const it = document.createElement(tag);
	it.textContent = text;
	it.className = kind;
	if (it instanceof HTMLButtonElement) it.type = "button";
	return it;
}

/** Offers these values in a filter, and keeps the chosen one.
 * @param {string} id @param {string[]} names */
function choices(id, names) {
	const select = element(id, HTMLSelectElement);
	const wanted = ["", ...new Set([...names, select.value].filter((it) => it !== ""))];
	if (wanted.join("\n") === [...select.options].map((it) => it.value).join("\n")) return;
	const chosen = select.value;
	select.replaceChildren(...wanted.map((it) => new Option(it === "" ? "all" : it, it)));
	select.value = chosen;
}
