// What the tests of the page share: a coracle with clients and a server behind it, and a browser.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright";

export const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const devices = [["phone", { width: 390, height: 844 }], ["desktop", { width: 1280, height: 800 }]];
export const schemes = ["light", "dark"];

/** A server that answers with as many bytes as each byte it gets says. */
const server = createServer((socket) => {
	socket.on("data", (bytes) => socket.write(Buffer.alloc(bytes.reduce((sum, byte) => sum + byte, 0))));
	socket.on("error", () => {});
});
await new Promise((listening) => server.listen(0, "127.0.0.1", () => listening(undefined)));
/** The server's address. */
export const to = `127.0.0.1:${server.address().port}`;

export class Coracle {
	/** Starts `program` with this configuration, in which DIRECTORY is one of its own with these files. */
	static async start(program, text, files = {}) {
		const it = new Coracle();
		it.directory = mkdtempSync(join(tmpdir(), "coracle-page-"));
		for (const [name, text] of Object.entries(files)) it.file(name, text);
		it.configure(text);
		it.clients = [];
		it.process = spawn(program, ["run", "-c", join(it.directory, "coracle.toml")], { stdio: ["ignore", "ignore", "pipe"] });
		const log = await new Promise((ready, failed) => {
			let log = "";
			it.process.on("exit", () => failed(new Error(`coracle has ended: ${log}`)));
			it.process.stderr.on("data", (text) => {
				log += text;
				if (log.includes("msg=ready")) ready(log);
			});
		});
		it.address = (name) => log.match(new RegExp(`msg=listening entrypoint=${name} address=(\\S+)`))[1];
		it.page = `http://${log.match(/admin endpoint listening" address=(\S+)/)[1].replace("0.0.0.0", "127.0.0.1")}/`;
		return it;
	}

	file(name, text) {
		writeFileSync(join(this.directory, name), text, { mode: 0o600 });
	}

	configure(text) {
		this.file("coracle.toml", text.replaceAll("DIRECTORY", this.directory));
	}

	/** Opens a connection, and waits for nothing. */
	connect(entrypoint, from = "127.0.0.1") {
		const [host, port] = this.address(entrypoint).split(":");
		const socket = connect({ host, port: Number(port), localAddress: from });
		// Ended is what the tests want some to be.
		socket.on("error", () => {});
		this.clients.push(socket);
		return socket;
	}

	/** Opens a connection from `from`, and waits until `bytes` times 1 have come back through it. */
	async client(entrypoint, bytes, from = "127.0.0.1") {
		const socket = this.connect(entrypoint, from);
		let got = 0;
		socket.write(Buffer.alloc(bytes, 1));
		await new Promise((done, failed) => {
			socket.on("data", (it) => (got += it.length) >= bytes && done(undefined));
			socket.on("close", () => failed(new Error(`a client of ${entrypoint} was cut`)));
		});
		return socket;
	}

	stop() {
		this.process.removeAllListeners("exit");
		this.process.kill("SIGKILL");
		this.clients.forEach((it) => it.destroy());
		rmSync(this.directory, { recursive: true });
	}
}

export const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args: ["--no-sandbox"] });

/** Opens the page, and keeps what is wrong with it in `errors`. `options` are those of a context;
 * `prepare` gets the page before it is loaded. */
export async function open(coracle, options = {}, prepare = async (_page) => {}) {
	const page = await (await browser.newContext(options)).newPage();
	page.errors = [];
	page.on("console", (it) => it.type() === "error" && page.errors.push(it.text()));
	page.on("pageerror", (it) => page.errors.push(String(it)));
	page.on("request", (it) => {
		const url = it.url();
		if (!url.startsWith(coracle.page) || url.includes("token")) page.errors.push(`asks ${url}`);
	});
	await prepare(page);
	await page.goto(coracle.page);
	return page;
}

/** Waits until what `probe` finds on the page satisfies `test`. */
export async function until(page, what, probe, test) {
	let found;
	for (let n = 0; n < 600; n += 1) {
		found = await page.evaluate(probe);
		if (test(found)) return found;
		await page.waitForTimeout(50);
	}
	throw new Error(`${what} in vain; found: ${JSON.stringify(found)}`);
}

/** The texts of the cells of a table. */
export const rows = (/** @type {string} */ id) =>
	`[...document.querySelectorAll("#${id} tr")].map((row) => [...row.cells].map((it) => it.textContent))`;
/** The text of an element. */
export const text = (/** @type {string} */ id) => `document.getElementById(${JSON.stringify(id)}).textContent`;

/** What axe finds on a page that was opened with `bypassCSP`: the page's policy would not let it in. */
export async function findings(page) {
	await page.evaluate(axe);
	return page.evaluate("axe.run().then((it) => it.violations.map((it) => [it.id, it.nodes.map((it) => it.html)]))");
}

/** How far the layout has shifted so far without the visitor's doing. */
export function shifts(page) {
	return page.evaluate(() => new Promise((sum) => {
		let all = 0;
		new PerformanceObserver((list) => list.getEntries().forEach((it) => (all += it.hadRecentInput ? 0 : it.value))).observe({ type: "layout-shift", buffered: true });
		requestAnimationFrame(() => requestAnimationFrame(() => sum(all)));
	}));
}

/** Ends what the tests share. */
export async function finish() {
	await browser.close();
	server.close();
}
