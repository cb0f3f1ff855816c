// @ts-check
"use strict";

/**
 * @typedef {{name: string, listening: string[], service: string?, open: number, max_connections: number?}} Entrypoint
 * @typedef {{name: string, balance: string, queued: number}} Service
 * @typedef {{service: string, name: string, up: boolean, admin: string, why_down: string?, state_seconds: number?,
 *   weight: number, backup: boolean, max_connections: number?, open: number, dialling: number, connect_errors: number,
 *   last_check: {succeeded: boolean, failure: string?, seconds: number}?}} Server
 * @typedef {{coracle: string, entrypoints: Entrypoint[], services: Service[], servers: Server[]}} Status
 * @typedef {{id: string, peer: string, entrypoint: string, service: string, server: string?, state: string,
 *   age_seconds: number, to_server_bytes: number, to_client_bytes: number}} Connection
 * @typedef {{total: number, offset: number, limit: number, connections: Connection[]}} Connections
 * @typedef {{text: string, kind?: string, id?: string}} Cell
 */

/** How often the page asks for new numbers, in milliseconds. */
const PAUSE = 2000;
/** How many connections it shows at once. */
const ROWS = 50;

/** What the visitor has chosen. */
const view = { sort: "age", order: "desc", offset: 0 };
/** The bytes of each connection at the last look, for its rates.
 * @type {Map<string, {at: number, up: number, down: number}>} */
let seen = new Map();

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
	const found = document.getElementById(id);
	if (!(found instanceof kind)) throw new Error(`no ${id}`);
	return found;
}

/** @param {number} n */
function count(n) {
	return n.toLocaleString("en");
}

/** @param {number} bytes */
function size(bytes) {
	const units = ["B", "KiB", "MiB", "GiB", "TiB"];
	let unit = 0;
	while (bytes >= 1024 && unit < units.length - 1) {
		bytes /= 1024;
		unit += 1;
	}
	return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** @param {number} seconds */
function age(seconds) {
	const s = Math.floor(seconds);
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
	return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

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
		cells.forEach(({ text, kind }, m) => {
			const cell = row.cells[m] ?? row.insertCell();
			if (cell.textContent !== text) cell.textContent = text;
			if (cell.className !== (kind ?? "")) cell.className = kind ?? "";
			cell.colSpan = rows.length > 0 ? 1 : columns;
		});
	});
}

/** @param {number} open @param {number?} most @returns {Cell} */
function full(open, most) {
	const text = most === null ? count(open) : `${count(open)} of ${count(most)}`;
	return { text, kind: "number" };
}

/** @param {Server} server @returns {Cell} */
function state(server) {
	if (server.admin !== "ready") return { text: server.admin === "drain" ? "draining" : "down by hand", kind: "soft" };
	if (!server.up) return { text: `down: ${server.why_down ?? "no reason known"}`, kind: "bad" };
	return { text: server.backup ? "up, backup" : "up", kind: "good" };
}

/** @param {Status} status */
function showStatus(status) {
	const open = status.entrypoints.reduce((sum, it) => sum + it.open, 0);
	element("open", HTMLElement).textContent = `${count(open)} open`;
	document.title = `${count(open)} open – coracle`;
	fill("entrypoints", status.entrypoints.map((it) => [
		{ text: it.name }, full(it.open, it.max_connections),
		{ text: it.listening.join(", ") }, { text: it.service ?? "removed" },
	]), "No entrypoint");
	/** @type {(server: Server) => Cell} */
	const checked = ({ last_check: it }) => {
		if (it === null) return { text: "none", kind: "soft" };
		const took = `${Math.round(it.seconds * 1000)} ms`;
		return it.succeeded ? { text: took, kind: "good" } : { text: it.failure ?? "failed", kind: "bad" };
	};
	fill("servers", status.servers.map((it) => [
		{ text: it.name }, full(it.open, it.max_connections), state(it), { text: it.service },
		{ text: String(it.weight), kind: "number" }, { text: count(it.connect_errors), kind: "number" }, checked(it),
	]), "No server");
	const queued = status.services.filter((it) => it.queued > 0).map((it) => `${count(it.queued)} wait for ${it.name}`);
	element("queued", HTMLElement).textContent = queued.join(", ");
	choices("entrypoint", status.entrypoints.map((it) => it.name));
	choices("server", status.servers.map((it) => it.name));
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

/** @param {Connections} page */
function showConnections(page) {
	const now = performance.now() / 1000;
	/** @type {typeof seen} */
	const next = new Map();
	/** @type {(now: number, before: number | undefined, passed: number) => string} */
	const rate = (bytes, before, passed) =>
		before === undefined || passed <= 0 ? "" : `${size(Math.max(0, bytes - before) / passed)}/s`;
	fill("connections", page.connections.map((it) => {
		const last = seen.get(it.id);
		const passed = last ? now - last.at : 0;
		next.set(it.id, { at: now, up: it.to_server_bytes, down: it.to_client_bytes });
		return [
			{ text: it.peer }, { text: it.server ?? "" }, { text: age(it.age_seconds), kind: "number" },
			{ text: size(it.to_server_bytes), kind: "number" }, { text: rate(it.to_server_bytes, last?.up, passed), kind: "number" },
			{ text: size(it.to_client_bytes), kind: "number" }, { text: rate(it.to_client_bytes, last?.down, passed), kind: "number" },
			{ text: it.state }, { text: it.entrypoint }, { text: it.id, kind: "number soft" },
		];
	}), "No connection");
	seen = next;
	const last = page.offset + page.connections.length;
	element("range", HTMLElement).textContent = page.total === 0 ? "none" : `${count(page.offset + 1)}–${count(last)} of ${count(page.total)}`;
	element("earlier", HTMLButtonElement).disabled = page.offset === 0;
	element("later", HTMLButtonElement).disabled = last >= page.total;
	// What was on this page may be gone.
	if (page.connections.length === 0 && page.offset > 0) view.offset = 0;
}


/** @param {string} path */
async function ask(path) {
	const answer = await fetch(path, { cache: "no-store", headers: { accept: "application/json" } });
	if (answer.ok) return answer.json();
	const text = await answer.text();
	let detail = text.trim();
	try {
		detail = JSON.parse(text).detail ?? detail;
	} catch {
		// Not a problem document; the text says what is wrong.
	}
	throw new Error(detail || `status ${answer.status}`);
}

/** The path of the connections that the visitor wants to see. */
function wanted() {
	const query = new URLSearchParams({ sort: view.sort, order: view.order, limit: String(ROWS), offset: String(view.offset) });
	for (const id of ["entrypoint", "server", "state"]) {
		const { value } = element(id, HTMLSelectElement);
		if (value !== "") query.set(id, value);
	}
	const peer = element("peer", HTMLInputElement).value.trim();
	if (peer !== "") query.set("peer", peer);
	return `api/v1/connections?${query}`;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** The look that counts: one that began later. */
let latest = 0;

async function look() {
	clearTimeout(timer);
	latest += 1;
	const mine = latest;
	let problem = "";
	try {
		const path = wanted();
		const [status, page] = [await ask("api/v1/status"), await ask(path)];
		if (mine !== latest) return;
		showStatus(status);
		showConnections(page);
	} catch (error) {
		if (mine !== latest) return;
		const gone = error instanceof TypeError;
		problem = gone ? "coracle does not answer; these are its last numbers" : String(error instanceof Error ? error.message : error);
	}
	const line = element("problem", HTMLElement);
	if (line.textContent !== problem) line.textContent = problem;
	if (!document.hidden) timer = setTimeout(look, PAUSE);
}

function start() {
	for (const button of document.querySelectorAll("th button")) {
		if (!(button instanceof HTMLButtonElement)) continue;
		button.addEventListener("click", () => {
			const same = view.sort === button.value;
			view.order = same && view.order === "desc" ? "asc" : "desc";
			view.sort = button.value;
			view.offset = 0;
			for (const head of document.querySelectorAll("th[aria-sort]")) head.setAttribute("aria-sort", "none");
			button.closest("th")?.setAttribute("aria-sort", view.order === "desc" ? "descending" : "ascending");
			look();
		});
	}
	/** @type {(by: number) => void} */
	const turn = (by) => {
		view.offset = Math.max(0, view.offset + by);
		look();
	};
	element("earlier", HTMLButtonElement).addEventListener("click", () => turn(-ROWS));
	element("later", HTMLButtonElement).addEventListener("click", () => turn(ROWS));
	element("filters", HTMLFormElement).addEventListener("input", () => {
		view.offset = 0;
		clearTimeout(timer);
		timer = setTimeout(look, 250);
	});
	element("filters", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
	document.addEventListener("visibilitychange", () => document.hidden || look());
	look();
}

start();
