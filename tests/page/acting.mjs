// The page acts for those who may: it ends connections, gives orders to servers and reloads, and asks
// first. For those who may not, it only shows.
//
//   node acting.mjs CORACLE [SCREENSHOTS]

import assert from "node:assert/strict";
import { join } from "node:path";
import { Coracle, devices, findings, finish, open, rows, schemes, shifts, text, to, until } from "./harness.mjs";

const [program, screenshots] = process.argv.slice(2);
const TOKEN = "token-of-the-test";
const config = (/** @type {number} */ most) => `
[admin]
listen = "127.0.0.1:0"
socket = "off"
token_file = "DIRECTORY/token"
[entrypoints.web]
listen = "127.0.0.1:0"
service = "nas"
max_connections = ${most}
[entrypoints.ssh]
listen = "127.0.0.1:0"
to = "${to}"
[entrypoints.one]
listen = "127.0.0.1:0"
service = "one"
[services.one]
servers = [{ address = "${to}", max_connections = 1 }]
[services.nas]
servers = [{ address = "${to}", name = "nas" }]
`;

/** Waits until a client's connection has ended. */
const ended = (/** @type {import("node:net").Socket} */ socket) =>
	socket.destroyed || new Promise((done) => socket.on("close", done));
/** Waits for the dialog, which has its heading as its name, and returns its text. */
const dialog = async (page) => {
	await page.waitForSelector("dialog[open]");
	const name = await page.textContent("dialog h2");
	return page.getByRole("dialog", { name, exact: true }).textContent();
};
const choose = (page, label) => page.click(`dialog[open] button:text-is("${label}")`);
const notice = (page, test) => until(page, "a notice", text("notice"), (it) => test.test(it));

for (const [device, viewport] of devices) {
	for (const colorScheme of schemes) await acts(device, viewport, colorScheme);
}
await shows();
console.log("the page ends connections, changes servers and reloads, for those who may");
await finish();
process.exit(0);

/** Where other machines can reach the endpoint, the page shows nothing without the token, and does not
 * ask for it again and again. With it, it follows what happens. */
async function shows() {
	const reachable = config(600).replace("127.0.0.1:0", "0.0.0.0:0");
	const coracle = await Coracle.start(program, reachable, { token: TOKEN });
	try {
		await coracle.client("web", 1);
		const page = await open(coracle);
		await until(page, "what the token is for", text("why-token"), (it) => it === "To see and act:");
		assert.deepEqual([await page.textContent("#open"), await page.locator("tbody td").count()], ["– open", 0]);
		assert.deepEqual(page.errors, []);
		await page.fill("#token", TOKEN);
		await page.click("#unlock button");
		await until(page, "the connection", rows("connections"), (it) => it.length === 1 && it[0][8] === "web");
		await coracle.client("ssh", 1);
		await until(page, "two", text("open"), (it) => it === "2 open");
		await page.click("#forget");
		await until(page, "what the token is for", text("why-token"), (it) => it === "To see and act:");
		assert.equal(await page.locator("tbody td").count(), 0);
		assert.deepEqual(page.errors, []);
	} finally {
		coracle.stop();
	}
}

async function acts(device, viewport, colorScheme) {
	const coracle = await Coracle.start(program, config(600), { token: `${TOKEN}\n` });
	try {
		const clients = [];
		for (let n = 1; n <= 9; n += 1) clients.push(await coracle.client(n <= 6 ? "web" : "ssh", n));
		const page = await open(coracle, { viewport, colorScheme, bypassCSP: true });
		const clean = async (/** @type {string} */ state) => assert.deepEqual(await findings(page), [], `${state}, ${device}, ${colorScheme}`);
		const picture = async (/** @type {string} */ name) => {
			if (screenshots && colorScheme === "light" && name.startsWith(device)) await page.screenshot({ path: join(screenshots, `page-${name}.png`) });
		};
		const acting = () => page.locator(".act:visible").count();
		await until(page, "the page", text("range"), (it) => it === "1–9 of 9");

		// Without a token nothing acts, whatever the visitor filters.
		await page.waitForSelector("#token");
		await page.selectOption("#entrypoint", "ssh");
		await until(page, "only ssh", text("range"), (it) => it === "1–3 of 3");
		assert.equal(await acting(), 0);
		await page.selectOption("#entrypoint", "");
		await clean("without a token");
		assert.deepEqual(page.errors, []);
		// With a wrong one neither; what is wrong is shown as coracle says it.
		await page.fill("#token", "wrong");
		await page.click("#unlock button");
		await until(page, "that it is wrong", text("may"), (it) => it.startsWith("wrong token; "));
		assert.equal(await acting(), 0);
		await clean("with a wrong token");
		// The browser reports each status by itself.
		assert.deepEqual(page.errors.splice(0).filter((it) => !it.includes("401")), []);

		await page.fill("#token", TOKEN);
		await page.click("#unlock button");
		await page.waitForSelector("body.acts");
		await until(page, "that one may act", text("may"), (it) => it === "You may act.");
		await clean("acting");
		const low = await page.evaluate(`[...document.querySelectorAll("button, input, select")].filter((it) => it.checkVisibility() && it.getBoundingClientRect().height < 44).map((it) => it.outerHTML)`);
		assert.deepEqual(low, [], "too small for a thumb");

		// Ends one connection: the oldest. Cancel leaves it; so does Escape.
		await page.click("#connections tr:nth-child(1) .act button");
		const about = await dialog(page);
		const { localPort } = clients[0];
		assert.match(about, new RegExp(`^End connection 1\\?From 127\\.0\\.0\\.1:${localPort} at web, connected to nas, `));
		await clean("the dialog");
		await picture("phone-dialog");
		await choose(page, "Cancel");
		await page.click("#connections tr:nth-child(1) .act button");
		await page.keyboard.press("Enter");
		assert.equal(await page.locator("dialog[open]").count(), 0, "Enter cancels");
		assert.equal(clients[0].destroyed, false);
		await page.click("#connections tr:nth-child(1) .act button");
		await choose(page, "End it");
		await ended(clients[0]);
		await notice(page, /^1 connection ended$/);
		await until(page, "it gone", text("range"), (it) => it === "1–8 of 8");

		// Ends what the filter selects, and says how many; without a filter it offers nothing.
		assert.equal(await page.isVisible("#end"), false);
		await page.selectOption("#entrypoint", "ssh");
		await until(page, "the button", text("end"), (it) => it === "End all 3…");
		await page.click("#end");
		assert.match(await dialog(page), /^End 3 connections\?All with entrypoint ssh, /);
		await choose(page, "End 3 connections");
		await Promise.all(clients.slice(6).map(ended));
		await notice(page, /^3 connections ended$/);
		await page.selectOption("#entrypoint", "");
		await until(page, "the others", text("range"), (it) => it === "1–5 of 5");
		assert.ok(clients.slice(1, 6).every((it) => !it.destroyed));

		// By their state, too.
		await page.selectOption("#state", "queued");
		await until(page, "none", text("range"), (it) => it === "none");
		assert.equal(await page.isVisible("#end"), false);
		const served = await coracle.client("one", 1);
		const waiting = [coracle.connect("one"), coracle.connect("one")];
		await until(page, "them waiting", text("range"), (it) => it === "1–2 of 2");
		await page.click("#end");
		assert.match(await dialog(page), /^End 2 connections\?All with state queued\. /);
		await choose(page, "End 2 connections");
		await Promise.all(waiting.map(ended));
		await notice(page, /^2 connections ended$/);
		await page.selectOption("#state", "");
		await until(page, "the others", text("range"), (it) => it === "1–6 of 6");
		assert.equal(served.destroyed, false);

		// What is wrong with an order is shown as coracle says it, and the dialog stays.
		await page.click("#connections tr:nth-child(1) .act button");
		await dialog(page);
		clients[1].destroy();
		await until(page, "it gone by itself", text("range"), (it) => it === "1–5 of 5");
		await choose(page, "End it");
		await until(page, "the error", `document.querySelector("dialog[open] pre").textContent`, (it) => it === "coracle: no open connection has the ID 2; `coracle list` shows the IDs");
		await clean("an error");
		await choose(page, "Cancel");

		// Drains a server, and takes that back.
		const state = `document.querySelector("#servers tr").cells[2].textContent`;
		await page.click("#servers tr:nth-child(1) .act button");
		assert.match(await dialog(page), /^Server nas of nasIt is ready, with 4 open connections\./);
		await choose(page, "Drain");
		await notice(page, /^server nas of service nas: drain; 4 connections continueUndo$/);
		await until(page, "it draining", state, (it) => it === "draining");
		await clean("the notice");
		await page.click("#notice button");
		await until(page, "it up", state, (it) => it === "up");
		await notice(page, /^server nas of service nas: ready$/);

		// Reloads: first what would change, then that. What is wrong with a file is shown.
		coracle.configure(config(500));
		await page.click("#reload");
		assert.match(await dialog(page), /max_connections.*600.*500|max_connections.*500/);
		await clean("the preview");
		await choose(page, "Cancel");
		const most = `document.querySelector("#entrypoints tr:nth-child(3)").cells[1].textContent`;
		assert.equal(await page.evaluate(most), "4 of 600");
		await page.click("#reload");
		await dialog(page);
		await choose(page, "Apply");
		await until(page, "the change", most, (it) => it === "4 of 500");
		coracle.configure(config(0).replace("service", "sevrice"));
		await page.click("#reload");
		assert.match(await dialog(page), /coracle\.toml:\d+:\d+: /);
		await clean("a rejected file");
		await choose(page, "Close");

		// The token outlives a reload of the page, and nothing moves; then it is forgotten.
		page.errors.splice(0);
		await page.reload();
		await until(page, "that one may act", text("may") + "+" + text("range"), (it) => it === "You may act.1–5 of 5");
		const shift = await shifts(page);
		assert.ok(shift < 0.02, `the layout of ${device} shifts by ${shift}`);
		await page.click("#forget");
		await page.locator("#token").waitFor();
		assert.equal(await acting(), 0);
		assert.equal(await page.evaluate("sessionStorage.length"), 0);
		assert.deepEqual(page.errors, []);
		await page.context().close();
	} finally {
		coracle.stop();
	}
}
