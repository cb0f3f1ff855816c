// The page shows what happens: it loads, follows, sorts, filters, turns pages and plots, without an
// error, a finding of axe-core, or a layout that shifts.
//
//   node page.mjs CORACLE [SCREENSHOTS]
//
// CORACLE is the program to run. With a directory as SCREENSHOTS, it leaves pictures there.

import assert from "node:assert/strict";
import { join } from "node:path";
import { Coracle, devices, findings, finish, open, rows, schemes, shifts, text, to, until } from "./harness.mjs";

const [program, screenshots] = process.argv.slice(2);
const coracle = await Coracle.start(program, `
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
[entrypoints.broken]
listen = "127.0.0.1:0"
to = "127.0.0.1:1"
[services.nas]
servers = [{ address = "${to}", name = "nas <attic>" }, { address = "127.0.0.1:1", backup = true, max_connections = 5 }]
`);
const connections = rows("connections");
/** For the pictures: an hour of history takes an hour, so it is made up. */
const madeUp = async (page) => page.route("**/api/v1/history", async (it) => {
	const answer = await (await it.fetch()).json();
	[...answer.entrypoints, ...answer.services, ...answer.servers].forEach((of, n) => {
		const wave = (/** @type {number} */ top) => Array.from({ length: 360 }, (_, i) =>
			Math.round(top * (2 + Math.sin(i / (30 + 4 * n)) + Math.sin(i / 7 + n) / 3 + (i * 7919 + n) % 13 / 20) / 4));
		const now = of.open.at(-1) ?? 0;
		Object.assign(of, { open: [...wave(2 * now).slice(1), now], to_server_bytes: wave(now * 9e3), to_client_bytes: wave(now * 4e4) });
	});
	await it.fulfill({ json: answer });
});
const first = (/** @type {string} */ it) => it === "1–50 of 60";

try {
	for (let n = 1; n <= 60; n += 1) await coracle.client(n % 3 === 0 ? "ssh" : "web", n * 100);

	// Without JavaScript: plain tables, and no name becomes markup.
	const plain = await open(coracle, { javaScriptEnabled: false });
	assert.equal(await plain.locator("#connections tr").count(), 50);
	assert.equal(await plain.locator("#servers attic").count(), 0);
	assert.equal(await plain.locator("#servers td", { hasText: "nas <attic>" }).count(), 1);
	assert.equal(await plain.locator("#services tr").count(), 3);
	for (const what of ["form", "button:not(th *)", "nav", "#clients", "#log"]) assert.equal(await plain.locator(`${what}:visible`).count(), 0, what);

	for (const [device, viewport] of devices) {
		for (const colorScheme of schemes) {
			const page = await open(coracle, { viewport, colorScheme });
			await until(page, "the first page", text("range"), first);
			// Twice, so that rates are shown as well.
			await until(page, "a rate", connections, (it) => it[0][4].endsWith("/s"));
			await until(page, "the kernel", text("agreement"), (it) => it === "The kernel agrees: 60 connections");
			const shift = await shifts(page);
			// The best class of the Core Web Vitals ends at 0.1.
			assert.ok(shift < 0.02, `the layout of ${device} shifts by ${shift}`);
			assert.equal(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), true, `${device} scrolls sideways`);
			// Who may not act sees how to, and nothing that acts.
			assert.match(await page.textContent("#may"), /set token_file in \[admin\]/);
			assert.equal(await page.locator(".act:visible").count(), 0);
			assert.equal(await page.locator("#unlock").isVisible(), false);
			assert.deepEqual(page.errors, []);
			await page.context().close();

			const checked = await open(coracle, { viewport, colorScheme, bypassCSP: true });
			await until(checked, "the first page", text("range"), first);
			assert.deepEqual(await findings(checked), [], `${device}, ${colorScheme}`);
			await checked.context().close();
		}
	}

	const page = await open(coracle);
	await until(page, "the page", text("range"), first);
	// Pages: the oldest come first, and the last page has the rest.
	await page.click("#later");
	await until(page, "the second page", text("range"), (it) => it === "51–60 of 60");
	assert.equal(await page.isDisabled("#later"), true);
	await page.click("#earlier");
	await until(page, "the first page again", text("range"), first);
	// Sorts by bytes, both ways.
	await page.click("#connections-head button[value=to_client_bytes]");
	await until(page, "the largest first", connections, (it) => it[0][5] === "5.9 KiB" && it[1][5] === "5.8 KiB");
	assert.equal(await page.getAttribute("th:has(button[value=to_client_bytes])", "aria-sort"), "descending");
	await page.click("#connections-head button[value=to_client_bytes]");
	await until(page, "the smallest first", connections, (it) => it[0][5] === "100 B" && it[1][5] === "200 B");
	// Filters, and says what is wrong with one.
	await page.selectOption("#entrypoint", "ssh");
	await until(page, "only ssh", text("range"), (it) => it === "1–20 of 20");
	await page.fill("#peer", "10.0.0.0/8");
	await until(page, "no client", text("range"), (it) => it === "none");
	await page.fill("#peer", "elephant");
	await until(page, "the mistake", text("problem"), (it) => it.startsWith("peer: "));
	await page.fill("#peer", "");
	await page.selectOption("#entrypoint", "");
	await until(page, "all again", text("problem") + "+" + text("range"), first);

	// Clients, by connections and by bytes; each leads to its connections.
	const large = await coracle.client("web", 200_000, "127.0.0.2");
	await coracle.client("web", 1, "127.0.0.3");
	await coracle.client("web", 1, "127.0.0.3");
	await page.click("#clients-head button[value=bytes]");
	await until(page, "by bytes", rows("clients"), (it) => it[0][0] === "127.0.0.2" && it[0][3] === "195 KiB" && it.length === 3);
	await page.click("#clients-head button[value=open]");
	await until(page, "by connections", rows("clients"), (it) => it[0][0] === "127.0.0.1" && it[1][0] === "127.0.0.3" && it[1][1] === "2");
	await page.click("#clients tr:nth-child(2) button");
	await until(page, "its connections", text("range"), (it) => it === "1–2 of 2");
	assert.equal(await page.inputValue("#peer"), "127.0.0.3");
	await page.fill("#peer", "");

	// Plots, as soon as there is a sample: in words as well, and a large one.
	const plots = `[...document.querySelectorAll("#entrypoints tr:nth-child(3) .plot button, #services tr:nth-child(2) .plot button, #servers tr:nth-child(3) .plot button")].map((it) => it.getAttribute("aria-label"))`;
	const words = await until(page, "plots", plots, (it) => it.length === 6 && it.every((/** @type {string} */ it) => it.includes(", now ")) && it[0].endsWith("now 43"));
	assert.match(words[0], /^Open connections, entrypoint web, last hour; open: min \d+, max 4\d, now 43$/);
	assert.match(words[5], /^Traffic, server nas <attic>, last hour; to client: min .*, max .*B\/s, now .*B\/s; to server: min /);
	// Drawn as soon as they are in view.
	await page.locator("#entrypoints").scrollIntoViewIfNeeded();
	await until(page, "lines", `document.querySelectorAll("#entrypoints tr:nth-child(3) .plot polyline").length`, (it) => it === 2);
	assert.match((await page.locator("#entrypoints tr:nth-child(3) td").allTextContents())[3], /B\/s$/);
	await page.click("#entrypoints tr:nth-child(3) .plot button >> nth=1");
	assert.match(await page.textContent("dialog[open]"), /Traffic, entrypoint web.*to client: min .*to server: min /);
	await page.click("dialog button");
	assert.equal(await page.locator("dialog[open]").count(), 0);

	// Follows what happens: connections that come and go, and warnings with what to do.
	coracle.clients.filter((it) => it !== large).splice(0, 10).forEach((it) => it.destroy());
	await until(page, "fewer", text("open"), (it) => it === "53 open");
	await coracle.client("web", 1);
	await until(page, "one more", text("open"), (it) => it === "54 open");
	coracle.connect("broken");
	const log = await until(page, "a warning", rows("log"), (it) => it[0][2]?.startsWith("dial: "));
	assert.deepEqual(log[0].slice(1), ["warn", "dial: Connection refused (os error 111)", "entrypoint=broken server=127.0.0.1:1", "Check that the server runs and listens at its address; the next one is tried."]);
	assert.equal(await page.textContent("#warnings"), "Warnings (1)");
	assert.deepEqual(page.errors.filter((it) => !it.includes("400")), []);

	if (screenshots) {
		for (const [device, viewport] of devices) {
			for (const colorScheme of schemes) {
				const page = await open(coracle, { viewport: device === "phone" ? viewport : { width: 1280, height: 1200 }, colorScheme }, madeUp);
				await until(page, "a rate", connections, (it) => it[0][4].endsWith("/s"));
				await until(page, "plots", plots, (it) => it.length === 6);
				await page.screenshot({ path: join(screenshots, `page-${device}-${colorScheme}.png`) });
				await page.context().close();
			}
		}
	}

	// Says when its numbers are old.
	coracle.process.kill("SIGKILL");
	await until(page, "that coracle is gone", text("problem"), (it) => it.includes("does not answer"));
	console.log("the page loads, follows, sorts, filters, turns pages and plots");
} finally {
	coracle.stop();
	await finish();
}
process.exit(0);
