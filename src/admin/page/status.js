/**
 * @typedef {{name: string, listening: string[], service: string?, routes: {route: string, service: string, connections: number}[], open: number, max_connections: number?,
 *   refused: number, refused_by: Record<string, number>}} Entrypoint
 * @typedef {{name: string, balance: string, outgoing: string?, open: number, queued: number, retries: number}} Service
 * @typedef {{service: string, name: string, up: boolean, admin: string, why_down: string?, state_seconds: number?,
 *   weight: number, backup: boolean, max_connections: number?, open: number, dialling: number, connect_errors: number,
 *   last_check: {succeeded: boolean, failure: string?, seconds: number}?}} Server
 * @typedef {{coracle: string, entrypoints: Entrypoint[], services: Service[], servers: Server[]}} Status
 * @typedef {{address: string, open: number, oldest_seconds: number, to_server_bytes: number, to_client_bytes: number}} Client
 * @typedef {{agree: boolean, open: number, source: string, set_only: number, kernel_only: number,
 *   connections: {id: string?, peer: string, entrypoint: string}[]} & {error?: string}} Agreement
 * @typedef {{number: number, time: string, level: string, message: string, fields: Record<string, unknown>, text: string}} LogLine
 */

/** What to do about a message that begins like this, as docs/troubleshooting.md has it. */
const ADVICE = [
	["server is down: ", "Look at the server; it is tried again by itself, unless it was taken down by hand."],
	["dial: no server reached", "Shorten connect_timeout, so that more servers are tried, or raise dial_timeout."],
	["dial: ", "Check that the server runs and listens at its address; the next one is tried."],
	["no server available: ", "Bring a server up."],
	["queue full: ", "Raise max_connections of the servers, or queue of the service."],
	["no server had room", "Raise max_connections of the servers, or queue_timeout."],
	["no room for more connections: ", "Find out who holds the connections; set idle_timeout if they are abandoned."],
	["the entrypoint is at its max_connections", "Raise max_connections, or find out who holds the connections."],
	["memory ceiling: ", "Raise limits.memory."],
	["cannot resolve the name", "Check the name, and the resolver in /etc/resolv.conf."],
	["not reloaded: ", "Correct the file and reload; the old configuration stays in force."],
	["this machine does not have the address", "Nothing if the network comes later; else correct the address."],
];

/** @param {Server} server @returns {Cell} */
function state(server) {
	if (server.admin !== "ready") return { text: server.admin === "drain" ? "draining" : "down by hand", kind: "soft" };
	if (!server.up) return { text: `down: ${server.why_down ?? "no reason known"}`, kind: "bad" };
	return { text: server.backup ? "up, backup" : "up", kind: "good" };
}

/** @param {Server} server @returns {Cell} */
function lastCheck({ last_check: it }) {
	if (it === null) return { text: "none", kind: "soft" };
	const took = `${Math.round(it.seconds * 1000)} ms`;
	return it.succeeded ? { text: took, kind: "good" } : { text: it.failure ?? "failed", kind: "bad" };
}

/** @param {Entrypoint} it */
function refused({ refused: all, refused_by }) {
	const some = Object.entries(refused_by).filter(([, n]) => n > 0);
	return some.length === 0 ? "0" : `${all}: ${some.map(([reason, n]) => `${reason} ${n}`).join(", ")}`;
}

/** @param {number} open */
function showOpen(open) {
	say(element("open", HTMLElement), `${count(open)} open`);
	document.title = `${count(open)} open – coracle`;
}

/** @param {Status} status */
function showStatus(status) {
	showOpen(status.entrypoints.reduce((sum, it) => sum + it.open, 0));
	fill("entrypoints", status.entrypoints.map((it) => [
		{ text: it.name }, full(it.open, it.max_connections), ...pastOf("entrypoint", { name: it.name }),
		{ text: it.listening.join(", ") }, { text: it.routes.map(({ route, service, connections }) => `${route} → ${service}: ${count(connections)}`).join(", ") || (it.service ?? "removed") }, { text: refused(it) },
	]), "No entrypoint");
	fill("services", status.services.map((it) => [
		{ text: it.name }, number(count(it.open)), ...pastOf("service", { name: it.name }), number(count(it.queued)), number(count(it.retries)), { text: it.outgoing ? `${it.balance}, ${it.outgoing}` : it.balance },
	]), "No service");
	fill("servers", status.servers.map((it) => [
		{ text: it.name }, full(it.open, it.max_connections), state(it), ...pastOf("server", it), { text: it.service },
		number(String(it.weight)), number(count(it.connect_errors)), lastCheck(it),
		button("Change…", `Change… server ${it.name} of service ${it.service}`, () => changeServer(it)),
	]), "No server");
	choices("entrypoint", status.entrypoints.map((it) => it.name));
	choices("server", status.servers.map((it) => it.name));
}

/** @param {Agreement} it */
function showAgreement(it) {
	const line = element("agreement", HTMLElement);
	const some = (it.connections ?? []).slice(0, 3).map(({ id, peer, entrypoint }) =>
		`${id === null ? "only the kernel" : "only coracle"} has ${peer} at ${entrypoint}`);
	line.className = it.agree ? "good" : it.error ? "soft" : "bad";
	if (it.error) say(line, `The kernel cannot be asked: ${it.error}`);
	else if (it.agree) say(line, `The kernel agrees: ${several(it.open, "connection")}`);
	else say(line, `The kernel differs by ${count(it.set_only + it.kernel_only)}: ${some.join("; ")}. If this lasts for minutes, run coracle audit and report what it prints.`);
}

/** @param {{total: number, clients: Client[]}} answer */
function showClients({ total, clients }) {
	fill("clients", clients.map((it) => [
		button(it.address, `${it.address}: show its connections`, () => filterPeer(it.address), "name"),
		number(count(it.open)), number(size(it.to_server_bytes)), number(size(it.to_client_bytes)), number(age(it.oldest_seconds)),
	]), "No client");
	say(element("clients-total", HTMLElement), total > clients.length ? `${count(total - clients.length)} more` : "");
}

/** @type {LogLine[]} */
let log = [];

/** @param {LogLine[]} lines */
function showLog(lines) {
	// The same line may come by two ways.
	log = [...new Map([...log, ...lines].map((it) => [it.number, it])).values()].slice(-10);
	fill("log", log.toReversed().map((it) => [
		{ text: it.time.replace("T", " ").replace(/\.\d+Z$/, "Z") }, { text: it.level, kind: it.level === "error" ? "bad" : "" },
		{ text: it.message, kind: "wide" },
		{ text: Object.entries(it.fields).map(([name, value]) => `${name}=${value}`).join(" "), kind: "wide" },
		{ text: ADVICE.find(([begin]) => it.message.startsWith(begin))?.[1] ?? "Search for the message in the documentation (Troubleshooting).", kind: "wide" },
	]), "No warning since the start");
	say(element("warnings", HTMLElement), log.length === 0 ? "Warnings" : `Warnings (${log.length})`);
}
