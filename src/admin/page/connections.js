/**
 * @typedef {{id: string, peer: string, socket_peer: string?, entrypoint: string, service: string?, route: string?, server: string?, state: string,
 *   age_seconds: number, to_server_bytes: number, to_client_bytes: number}} Connection
 * @typedef {{total: number, offset: number, limit: number, connections: Connection[]}} Connections
 */

/** How many connections the page shows at once. */
const ROWS = 50;

/** What the visitor has chosen. */
const view = { sort: "age", order: "desc", offset: 0 };
/** The bytes of each connection at the last look, for its rates.
 * @type {Map<string, {at: number, up: number, down: number}>} */
let seen = new Map();

/** @param {Connections} page */
function showConnections(page) {
	const now = performance.now() / 1000;
	/** @type {typeof seen} */
	const next = new Map();
	/** @type {(now: number, before: number | undefined, passed: number) => string} */
	const since = (bytes, before, passed) =>
		before === undefined || passed <= 0 ? "" : rate(Math.max(0, bytes - before) / passed);
	fill("connections", page.connections.map((it) => {
		const last = seen.get(it.id);
		const passed = last ? now - last.at : 0;
		next.set(it.id, { at: now, up: it.to_server_bytes, down: it.to_client_bytes });
		return [
			{ text: it.socket_peer === null ? it.peer : `${it.peer} via ${it.socket_peer}` }, { text: it.server ?? "" }, number(age(it.age_seconds)),
			number(size(it.to_server_bytes)), number(since(it.to_server_bytes, last?.up, passed)),
			number(size(it.to_client_bytes)), number(since(it.to_client_bytes, last?.down, passed)),
			{ text: it.state }, { text: it.route === null ? it.entrypoint : `${it.entrypoint} (route ${it.route})` }, number(it.id, "number soft"),
			button("End…", `End… connection ${it.id} from ${it.peer}`, () => endOne(it)),
		];
	}), "No connection");
	seen = next;
	const last = page.offset + page.connections.length;
	say(element("range", HTMLElement), page.total === 0 ? "none" : `${count(page.offset + 1)}–${count(last)} of ${count(page.total)}`);
	element("earlier", HTMLButtonElement).disabled = page.offset === 0;
	element("later", HTMLButtonElement).disabled = last >= page.total;
	const end = element("end", HTMLButtonElement);
	end.hidden = page.total === 0 || filter().size === 0;
	say(end, `End all ${count(page.total)}…`);
	// What was on this page may be gone.
	if (page.connections.length === 0 && page.offset > 0) view.offset = 0;
}

/** What the visitor filters by. */
function filter() {
	const query = new URLSearchParams();
	for (const id of ["entrypoint", "server", "state"]) {
		const { value } = element(id, HTMLSelectElement);
		if (value !== "") query.set(id, value);
	}
	const peer = element("peer", HTMLInputElement).value.trim();
	if (peer !== "") query.set("peer", peer);
	return query;
}

/** The path of the connections that the visitor wants to see. */
function wanted() {
	const query = filter();
	for (const [name, value] of Object.entries(view)) query.set(name, String(value));
	query.set("limit", String(ROWS));
	return `connections?${query}`;
}

/** @param {string} address */
function filterPeer(address) {
	for (const id of ["entrypoint", "server", "state"]) element(id, HTMLSelectElement).value = "";
	element("peer", HTMLInputElement).value = address;
	view.offset = 0;
	element("h-connections", HTMLElement).scrollIntoView();
	look();
}

/** @param {Connection} it */
function endOne(it) {
	const text = `From ${it.peer} at ${it.entrypoint}, ${it.server === null ? "not connected to a server" : `connected to ${it.server}`}, open for ${age(it.age_seconds)}. Both sides are reset.`;
	converse(`End connection ${it.id}?`, [make("p", text)], [{ label: "End it", run: () => order(`kill?id=${it.id}`), risky: true }]);
}

async function endAll() {
	const query = filter();
	if (query.size === 0) return;
	const fits = [...query].map(([name, value]) => `${name} ${value}`).join(", ");
	try {
		// An order knows no states: those that are in one now are ended one by one.
		const ids = query.has("state") ? await idsOf(query) : undefined;
		const total = ids?.length ?? (await ask(`connections?${query}&limit=1`)).total;
		const all = several(total, "connection");
		const later = ids ? "" : ", and those that come until you confirm";
		converse(`End ${all}?`, [make("p", `All with ${fits}${later}. Both sides of each are reset.`)],
			[{ label: `End ${all}`, run: () => ids ? endEach(ids) : order(`kill?${query}`), risky: true }]);
	} catch (error) {
		notify(why(error));
	}
}

/** @param {URLSearchParams} query */
async function idsOf(query) {
	/** @type {string[]} */
	const ids = [];
	for (;;) {
		/** @type {Connections} */
		const page = await ask(`connections?${query}&limit=1000&offset=${ids.length}`);
		ids.push(...page.connections.map(({ id }) => id));
		if (page.connections.length === 0 || ids.length >= page.total) return ids;
	}
}

/** @param {string[]} ids */
async function endEach(ids) {
	let ended = 0;
	for (const id of ids) {
		const text = await order(`kill?id=${id}`).catch((error) => {
			// One may have ended by itself.
			if (!String(error).includes("no open connection")) throw error;
			return "";
		});
		if (text !== "") ended += 1;
	}
	return `${several(ended, "connection")} ended`;
}
