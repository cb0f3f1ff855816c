// With thousands of connections, pages, order and filters stay right, and the page holds no more than
// it shows.
//
//   node many.mjs CORACLE

import assert from "node:assert/strict";
import { Coracle, finish, open, rows, text, to, until } from "./harness.mjs";

const CONNECTIONS = 2000;
const ROWS = 50;
/** How many clients have how many of the connections. */
const SHARES = [1000, 700, 300];

const [program] = process.argv.slice(2);
const coracle = await Coracle.start(program, `
[admin]
listen = "127.0.0.1:0"
socket = "off"
[entrypoints.web]
listen = "127.0.0.1:0"
to = "${to}"
`);
try {
	// The nth connection has passed n bytes, so that their order is known.
	let n = 0;
	for (const [client, share] of SHARES.entries()) {
		for (let left = share; left > 0; left -= 100) {
			await Promise.all(Array.from({ length: 100 }, () => coracle.client("web", (n += 1), `127.0.0.${client + 1}`)));
		}
	}
	const page = await open(coracle);
	const range = (/** @type {number} */ first, /** @type {number} */ total = CONNECTIONS) =>
		`${first.toLocaleString("en")}–${(first + ROWS - 1).toLocaleString("en")} of ${total.toLocaleString("en")}`;
	const shown = (/** @type {string} */ wanted) => until(page, wanted, text("range"), (it) => it === wanted);
	const bytes = `[...document.querySelectorAll("#connections tr")].map((row) => row.cells[3].textContent)`;
	await shown(range(1));
	await until(page, "the kernel", text("agreement"), (it) => it === "The kernel agrees: 2,000 connections");

	// All pages together have each connection once.
	const seen = new Set();
	for (let first = 1; ; first += ROWS) {
		await shown(range(first));
		const ids = (await page.evaluate(rows("connections"))).map((/** @type {string[]} */ it) => it[9]);
		assert.equal(ids.length, ROWS);
		ids.forEach((/** @type {string} */ id) => assert.ok(!seen.has(id) && seen.add(id), `${id} is there twice`));
		if (await page.isDisabled("#later")) break;
		await page.click("#later");
	}
	assert.equal(seen.size, CONNECTIONS);

	// A new order begins at its first page.
	await page.click("#connections-head button[value=to_server_bytes]");
	await shown(range(1));
	await until(page, "the largest", bytes, (it) => it[0] === "2.0 KiB" && it[ROWS - 1] === "1.9 KiB");
	await page.click("#connections-head button[value=to_server_bytes]");
	await until(page, "the smallest", bytes, (it) => it.every((/** @type {string} */ it, /** @type {number} */ n) => it === `${n + 1} B`));

	// Filters select among all, not among what is shown; the order stays.
	for (const [client, share] of SHARES.entries()) {
		await page.fill("#peer", `127.0.0.${client + 1}`);
		await shown(range(1, share));
		const before = SHARES.slice(0, client).reduce((sum, it) => sum + it, 0);
		const smallest = (/** @type {string[]} */ it) => client > 1 ? it[0] === "1.7 KiB" : it[0] === `${before + 1} B`;
		await until(page, "the smallest of a client", bytes, smallest);
	}
	assert.deepEqual((await page.evaluate(rows("clients"))).map((/** @type {string[]} */ it) => it.slice(0, 2)),
		SHARES.map((share, client) => [`127.0.0.${client + 1}`, share.toLocaleString("en")]));
	assert.ok(await page.evaluate("document.querySelectorAll('tr').length") < 2 * ROWS);
	assert.deepEqual(page.errors, []);
	console.log(`${CONNECTIONS} connections: every page, order and filter is right`);
} finally {
	coracle.stop();
	await finish();
}
process.exit(0);
