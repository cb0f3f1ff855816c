/**
 * What the last hour was like, oldest first: `open` at the end of each interval, bytes within it. A
 * sample that was not taken is null.
 * @typedef {(number | null)[]} Samples
 * @typedef {{service?: string, name: string, open: Samples, to_server_bytes: Samples, to_client_bytes: Samples}} Series
 * @typedef {{interval_seconds: number, end: number?, entrypoints: Series[], services: Series[], servers: Series[]}} Past
 * @typedef {{name: string, values: Samples, text: (n: number) => string}} Line
 */

/** How many samples a plot has room for at least, so that the first ones are not drawn huge. */
const SPAN = 36;
/** About how many points a small plot has: of the samples that share one, the largest counts. */
const POINTS = 120;

/** When the last sample ended. */
let pastEnd = 0;
let interval = 10;
/** @type {Map<string, Series>} */
let past = new Map();

/** @param {string} kind @param {{service?: string, name: string}} of */
function key(kind, { service, name }) {
	return [kind, service, name].join("\n");
}

/** @param {Past} answer */
function keepPast(answer) {
	past = new Map();
	for (const it of answer.entrypoints) past.set(key("entrypoint", { name: it.name }), it);
	for (const it of answer.services) past.set(key("service", { name: it.name }), it);
	for (const it of answer.servers) past.set(key("server", it), it);
	pastEnd = answer.end ?? 0;
	interval = answer.interval_seconds;
}

/** The cells with the past of one object: its plot of connections, its rates now, and their plot.
 * @param {string} kind @param {{service?: string, name: string}} of @returns {[Cell, Cell, Cell, Cell]} */
function pastOf(kind, of) {
	const id = key(kind, of);
	const series = past.get(id);
	const each = (/** @type {Samples | undefined} */ bytes) => (bytes ?? []).map((it) => it === null ? null : it / interval);
	const up = { name: "to server", values: each(series?.to_server_bytes), text: rate };
	const down = { name: "to client", values: each(series?.to_client_bytes), text: rate };
	const open = { name: "open", values: series?.open ?? [], text: count };
	const now = (/** @type {Line} */ { values }) => {
		const last = values[values.length - 1] ?? null;
		return number(last === null ? "" : rate(last));
	};
	const title = `${kind} ${of.name}`;
	return [plot(id, `Open connections, ${title}`, [open]), now(up), now(down), plot(id, `Traffic, ${title}`, [down, up])];
}

/** @param {Samples} samples */
function taken(samples) {
	return samples.filter((it) => it !== null);
}

/** @param {Line} line */
function inWords({ name, values, text }) {
	const all = taken(values);
	if (all.length === 0) return `${name}: no sample yet`;
	return `${name}: min ${text(Math.min(...all))}, max ${text(Math.max(...all))}, now ${text(all[all.length - 1])}`;
}

/** A small plot, which opens a large one.
 * @param {string} id @param {string} title @param {Line[]} lines @returns {Cell} */
function plot(id, title, lines) {
	return { kind: "plot", show: (cell) => {
		const drawn = `${id}\n${pastEnd}`;
		if (cell.dataset.drawn === drawn) return;
		cell.dataset.drawn = drawn;
		if (pastEnd === 0) return;
		const words = `${title}, last hour; ${lines.map(inWords).join("; ")}`;
		button("", words, () => enlarge(title, lines), "plot").show?.(cell);
		const it = cell.firstElementChild;
		if (!(it instanceof HTMLElement)) return;
		it.title = words;
		undrawn.set(cell, () => it.replaceChildren(draw(lines, POINTS)));
		inView.observe(cell);
		drawIfSeen(cell);
	} };
}

/** How to draw the plots of the cells that were out of view. A thousand servers have two each.
 * @type {WeakMap<Element, () => void>} */
const undrawn = new WeakMap();
/** @type {WeakSet<Element>} */
const seenPlots = new WeakSet();
const inView = new IntersectionObserver((changes) => {
	for (const { target, isIntersecting } of changes) {
		if (isIntersecting) seenPlots.add(target);
		else seenPlots.delete(target);
		drawIfSeen(target);
	}
});

/** @param {Element} cell */
function drawIfSeen(cell) {
	if (!seenPlots.has(cell)) return;
	undrawn.get(cell)?.();
	undrawn.delete(cell);
}

/** @param {string} title @param {Line[]} lines */
function enlarge(title, lines) {
	const words = lines.map((line) => {
		const it = make("p", "");
		if (lines.length > 1) it.append(make("span", "", `key ${kindOf(line)}`));
		it.append(inWords(line));
		return it;
	});
	const scale = make("p", "", "soft scale");
	scale.append(make("span", `${age(spanOf(lines) * interval)} ago`), make("span", "now"));
	const figure = make("div", "", "large");
	figure.append(draw(lines, Infinity));
	converse(title, [figure, scale, ...words], [], "Close");
}

/** @param {Line} line */
function kindOf({ name }) {
	return name === "to client" ? "area" : "line";
}

/** @param {Line[]} lines */
function spanOf(lines) {
	return Math.max(SPAN, ...lines.map(({ values }) => values.length));
}

/** Draws lines from the right, where now is.
 * @param {Line[]} lines @param {number} most */
function draw(lines, most) {
	const make = (/** @type {string} */ tag, /** @type {Record<string, string>} */ attributes) => {
		const it = document.createElementNS("http://www.w3.org/2000/svg", tag);
		for (const [name, value] of Object.entries(attributes)) it.setAttribute(name, value);
		return it;
	};
	const span = spanOf(lines);
	const bucket = Math.max(1, Math.round(span / most));
	const highest = Math.max(1, ...taken(lines.flatMap((line) => line.values)));
	const svg = make("svg", { viewBox: `0 0 ${span} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
	for (const line of lines) {
		const points = [];
		// Buckets end where the samples do, so that a plot moves in whole buckets.
		for (let end = line.values.length; end > 0; end -= bucket) {
			const some = taken(line.values.slice(Math.max(0, end - bucket), end));
			if (some.length === 0) continue;
			points.push(`${span - line.values.length + end},${Math.round(97 - 94 * Math.max(...some) / highest)}`);
		}
		if (points.length === 1) points.push(`${span - bucket},${points[0].split(",")[1]}`);
		const shape = points.join(" ");
		const first = points[points.length - 1]?.split(",")[0];
		if (kindOf(line) === "area" && first) svg.append(make("polygon", { class: "area", points: `${shape} ${first},100 ${span},100` }));
		else svg.append(make("polyline", { class: "line", points: shape }));
	}
	return svg;
}
