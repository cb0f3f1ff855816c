// Opens the page of a running coracle in Chromium: it loads, follows what happens, sorts, filters and
// turns pages, without an error, a finding of axe-core, or a layout that shifts.
//
//   node page.mjs CORACLE [SCREENSHOTS]
//
// CORACLE is the program to run. With a directory as SCREENSHOTS, it leaves pictures there.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright";

const [program, screenshots] = process.argv.slice(2);
const directory = mkdtempSync(join(tmpdir(), "coracle-page-"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** A server that answers with as many bytes as each byte it gets says. */
const server = createServer((socket) => {
	socket.on("data", (bytes) => socket.write(Buffer.alloc(bytes.reduce((sum, byte) => sum + byte, 0))));
	socket.on("error", () => {});
});
await new Promise((listening) => server.listen(0, "127.0.0.1", () => listening(undefined)));
const to = `127.0.0.1:${server.address().port}`;

const config = join(directory, "coracle.toml");
writeFileSync(config, `
[admin]
listen = "127.0.0.1:0"
socket = "off"
[entrypoints.web]
listen = "127.0.0.1:0"
service = "nas"
max_connections = 600
[entrypoints.ssh]
listen = "127.0.0.1:0"
to = "${to}"
[services.nas]
servers = [{ address = "${to}", name = "nas <attic>" }, { address = "127.0.0.1:1", backup = true, max_connections = 5 }]
`);
const coracle = spawn(program, ["run", "-c", config], { stdio: ["ignore", "ignore", "pipe"] });
const addresses = await new Promise((ready, failed) => {
	let log = "";
	coracle.on("exit", () => failed(new Error(`coracle has ended: ${log}`)));
	coracle.stderr.on("data", (text) => {
		log += text;
		if (!log.includes("msg=ready")) return;
		const of = (/** @type {RegExp} */ line) => log.match(line)?.[1] ?? failed(new Error(log));
		ready({
			admin: of(/admin endpoint listening" address=(\S+)/),
			web: of(/entrypoint=web address=(\S+)/),
			ssh: of(/entrypoint=ssh address=(\S+)/),
		});
	});
});

/** @type {import("node:net").Socket[]} */
const clients = [];
/** Opens a connection, and waits until `bytes` have come back through it. */
async function client(address, bytes) {
	const [host, port] = address.split(":");
	const socket = connect(Number(port), host);
	socket.on("error", () => {});
	clients.push(socket);
	let got = 0;
	socket.write(Buffer.alloc(bytes, 1));
	await new Promise((done) => socket.on("data", (it) => (got += it.length) >= bytes && done(undefined)));
	return socket;
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args: ["--no-sandbox"] });
/** Waits until what `probe` finds on the page satisfies `test`. */
async function until(page, what, probe, test) {
	let found;
	for (let n = 0; n < 600; n += 1) {
		found = await page.evaluate(probe);
		if (test(found)) return found;
		await page.waitForTimeout(50);
	}
	throw new Error(`${what} in vain; found: ${JSON.stringify(found)}`);
}
const rows = () => [...document.querySelectorAll("#connections tr")].map((row) => [...row.cells].map((it) => it.textContent));
const text = (/** @type {string} */ id) => `document.getElementById(${JSON.stringify(id)}).textContent`;

try {
	for (let n = 1; n <= 60; n += 1) await client(n % 3 === 0 ? addresses.ssh : addresses.web, n * 100);

	// Without JavaScript: plain tables, and no name becomes markup.
	const plain = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
	await plain.goto(`http://${addresses.admin}/`);
	assert.equal(await plain.locator("#connections tr").count(), 50);
	assert.equal(await plain.locator("#servers attic").count(), 0);
	assert.equal(await plain.locator("#servers td", { hasText: "nas <attic>" }).count(), 1);
	assert.equal(await plain.locator("form").isVisible(), false);

	for (const [device, viewport] of [["phone", { width: 390, height: 844 }], ["desktop", { width: 1280, height: 800 }]]) {
		for (const colorScheme of ["light", "dark"]) {
			const context = await browser.newContext({ viewport, colorScheme });
			const page = await context.newPage();
			const errors = [];
			page.on("console", (it) => it.type() === "error" && errors.push(it.text()));
			page.on("pageerror", (it) => errors.push(String(it)));
			page.on("request", (it) => new URL(it.url()).host === addresses.admin || errors.push(`asks ${it.url()}`));
			await page.goto(`http://${addresses.admin}/`);
			await until(page, "the first page", text("range"), (it) => it === "1–50 of 60");
			// Twice, so that rates are shown as well.
			await until(page, "a rate", rows, (it) => it[0][4].endsWith("/s"));
			const shift = await page.evaluate(() => new Promise((sum) => {
				let all = 0;
				new PerformanceObserver((list) => list.getEntries().forEach((it) => (all += it.value))).observe({ type: "layout-shift", buffered: true });
				requestAnimationFrame(() => requestAnimationFrame(() => sum(all)));
			}));
			// The best class of the Core Web Vitals ends at 0.1.
			assert.ok(shift < 0.02, `the layout of ${device} shifts by ${shift}`);
			assert.equal(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), true, `${device} scrolls sideways`);
			if (screenshots) await page.screenshot({ path: join(screenshots, `page-${device}-${colorScheme}.png`) });
			assert.deepEqual(errors, []);
			await context.close();

			// The page's policy would not let axe in.
			const open = await (await browser.newContext({ viewport, colorScheme, bypassCSP: true })).newPage();
			await open.goto(`http://${addresses.admin}/`);
			await until(open, "the first page", text("range"), (it) => it === "1–50 of 60");
			await open.evaluate(axe);
			const findings = await open.evaluate("axe.run().then((it) => it.violations.map((it) => [it.id, it.nodes.map((it) => it.html)]))");
			assert.deepEqual(findings, [], `${device}, ${colorScheme}`);
			await open.context().close();
		}
	}

	const page = await browser.newPage();
	await page.goto(`http://${addresses.admin}/`);
	await until(page, "the page", text("range"), (it) => it === "1–50 of 60");
	// Pages: the oldest come first, and the last page has the rest.
	await page.click("#later");
	await until(page, "the second page", text("range"), (it) => it === "51–60 of 60");
	assert.equal(await page.isDisabled("#later"), true);
	await page.click("#earlier");
	await until(page, "the first page again", text("range"), (it) => it === "1–50 of 60");
	// Sorts by bytes, both ways.
	await page.click("button[value=to_client_bytes]");
	await until(page, "the largest first", rows, (it) => it[0][5] === "5.9 KiB" && it[1][5] === "5.8 KiB");
	assert.equal(await page.getAttribute("th:has(button[value=to_client_bytes])", "aria-sort"), "descending");
	await page.click("button[value=to_client_bytes]");
	await until(page, "the smallest first", rows, (it) => it[0][5] === "100 B" && it[1][5] === "200 B");
	// Filters, and says what is wrong with one.
	await page.selectOption("#entrypoint", "ssh");
	await until(page, "only ssh", text("range"), (it) => it === "1–20 of 20");
	await page.fill("#peer", "10.0.0.0/8");
	await until(page, "no client", text("range"), (it) => it === "none");
	await page.fill("#peer", "elephant");
	await until(page, "the mistake", text("problem"), (it) => it.startsWith("peer: "));
	await page.fill("#peer", "");
	await page.selectOption("#entrypoint", "");
	await until(page, "all again", text("problem") + "+" + text("range"), (it) => it === "1–50 of 60");
	// Follows what happens: connections that come and go.
	clients.splice(0, 10).forEach((it) => it.destroy());
	await until(page, "fewer", text("open"), (it) => it === "50 open");
	await client(addresses.web, 1);
	await until(page, "one more", text("open"), (it) => it === "51 open");
	// Says when its numbers are old.
	coracle.kill("SIGKILL");
	await until(page, "that coracle is gone", text("problem"), (it) => it.includes("does not answer"));
	console.log("the page loads, follows, sorts, filters and turns pages");
} finally {
	await browser.close();
	coracle.removeAllListeners("exit");
	coracle.kill("SIGKILL");
	clients.forEach((it) => it.destroy());
	server.close();
	rmSync(directory, { recursive: true });
}
process.exit(0);
