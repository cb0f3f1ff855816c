/**
 * @typedef {{reads: boolean, acts: boolean, by: string?, token: string}} MayAct
 * @typedef {{label: string, run: () => Promise<string>, risky?: boolean, undo?: string}} Choice
 */

/** Where the token is for as long as the tab is open. */
const TOKEN = "coracle token";
/** How long a notice is there, in milliseconds. */
const NOTICE = 20_000;

/** Whether this visitor may see anything. */
let reads = true;

/** The headers of a request. A token is there only once coracle has accepted it: a wrong one counts.
 * @param {string?} [token] @returns {Record<string, string>} */
function headers(token = sessionStorage.getItem(TOKEN)) {
	return token === null ? { accept: "application/json" } : { accept: "application/json", authorization: `Bearer ${token}` };
}

/** What went wrong, as coracle wrote it. @param {Response} answer */
async function complaint(answer) {
	const text = (await answer.text()).trim();
	try {
		return String(JSON.parse(text).detail ?? text);
	} catch {
		// Not a problem document; the text says what is wrong.
		return text || `status ${answer.status}`;
	}
}

/** Sends a request. If coracle no longer accepts the token, forgets it.
 * @param {string} path @param {RequestInit} [options] */
async function request(path, options = {}) {
	const answer = await fetch(`api/v1/${path}`, { cache: "no-store", headers: headers(), ...options });
	if (answer.ok) return answer;
	const error = await complaint(answer);
	if (answer.status === 401) await learnAccess(null, error);
	throw new Error(error);
}

/** @param {string} path */
async function ask(path) {
	return (await request(path)).json();
}

/** Gives an order, and returns what it changed. @param {string} path */
async function order(path) {
	return (await (await request(path, { method: "POST" })).text()).trim();
}

/** Finds out what this visitor may do with a token, and keeps it if it is the right one.
 * @param {string?} [token] @param {string} [error] @returns {Promise<void>} */
async function learnAccess(token = sessionStorage.getItem(TOKEN), error = "") {
	try {
		const answer = await fetch("api/v1/access", { cache: "no-store", headers: headers(token) });
		if (!answer.ok && token !== null) return learnAccess(null, await complaint(answer));
		if (token === null) sessionStorage.removeItem(TOKEN);
		else sessionStorage.setItem(TOKEN, token);
		showAccess(await answer.json(), error);
	} catch {
		// The next look says that coracle does not answer.
	}
}

/** @param {MayAct} may @param {string} [error] */
function showAccess(may, error = "") {
	reads = may.reads;
	// The style shows what acts to this class alone.
	document.body.classList.toggle("acts", may.acts);
	element("forget", HTMLButtonElement).hidden = may.by !== "token";
	element("unlock", HTMLFormElement).hidden = may.acts || may.token === "not configured";
	say(element("why-token", HTMLElement), reads ? "To act:" : "To see and act:");
	const line = element("may", HTMLElement);
	line.className = error ? "bad" : "soft";
	const how = "This page only shows. To act here, set token_file in [admin] of the configuration.";
	say(line, error || (may.acts ? "You may act." : may.token === "not configured" ? how : ""));
}

/** Tells the visitor something for a while, with a way back. @param {string} text @param {string} [undo] */
function notify(text, undo) {
	const place = element("notice", HTMLElement);
	clearTimeout(Number(place.dataset.timer));
	place.replaceChildren(make("span", text));
	if (undo) {
		const back = make("button", "Undo");
		back.onclick = async () => {
			try {
				notify(await order(undo));
			} catch (error) {
				notify(why(error));
			}
			look();
		};
		place.append(back);
	}
	place.dataset.timer = String(setTimeout(() => place.replaceChildren(), NOTICE));
}

/** Opens the dialog: what it is about, and what the visitor may choose. An error stays in it.
 * @param {string} title @param {Node[]} about @param {Choice[]} choices @param {string} [leave] */
function converse(title, about, choices, leave = "Cancel") {
	const dialog = element("dialog", HTMLDialogElement);
	const error = make("pre", "", "bad");
	error.setAttribute("role", "alert");
	const cancel = make("button", leave);
	// What ends something is not what Enter does.
	cancel.autofocus = true;
	cancel.onclick = () => dialog.close();
	const buttons = choices.map(({ label, run, risky, undo }) => {
		const it = make("button", label, risky ? "risky" : "");
		it.onclick = async () => {
			const all = dialog.querySelectorAll("button");
			all.forEach((it) => (it.disabled = true));
			say(error, "");
			try {
				const done = await run();
				dialog.close();
				notify(done, undo);
				look();
			} catch (wrong) {
				say(error, why(wrong));
			}
			all.forEach((it) => (it.disabled = false));
		};
		return it;
	});
	const tools = make("div", "", "tools");
	tools.append(...buttons, cancel);
	const heading = make("h2", title);
	heading.id = "h-dialog";
	dialog.replaceChildren(heading, ...about, error, tools);
	if (!dialog.open) dialog.showModal();
}

/** @param {Server} server */
function changeServer(server) {
	const to = (/** @type {string} */ state) => `server?${new URLSearchParams({ service: server.service, server: server.name, state })}`;
	const all = [
		{ state: "drain", label: "Drain", text: "Drain: no new connections; open ones continue." },
		{ state: "down", label: "Take down", text: "Take down: it counts as down, whatever its checks say; open connections are closed if on_down says so." },
		{ state: "ready", label: "Make ready", text: "Make ready: it gets connections as its checks allow." },
	].filter(({ state }) => state !== server.admin);
	const now = `It is ${server.admin === "ready" ? "ready" : state(server).text}, with ${several(server.open, "open connection")}.`;
	converse(`Server ${server.name} of ${server.service}`, [now, ...all.map(({ text }) => text)].map((it) => make("p", it)),
		all.map(({ state, label }) => ({ label, run: () => order(to(state)), risky: state !== "ready", undo: to(server.admin) })));
}

async function reload() {
	let changes;
	try {
		changes = await order("reload?dry-run");
	} catch (error) {
		const text = make("pre", why(error), "bad");
		text.tabIndex = 0;
		return converse("The configuration cannot be applied", [text], [], "Close");
	}
	const text = make("pre", changes);
	text.tabIndex = 0;
	converse("Reload the configuration?", [make("p", "This would change:"), text], [{ label: "Apply", run: () => order("reload") }]);
}

async function startActing() {
	// So that nothing moves when the answer comes.
	if (sessionStorage.getItem(TOKEN) !== null) showAccess({ reads: true, acts: true, by: "token", token: "accepted" });
	element("unlock", HTMLFormElement).addEventListener("submit", async (event) => {
		event.preventDefault();
		const input = element("token", HTMLInputElement);
		await learnAccess(input.value);
		input.value = "";
		wake();
	});
	element("forget", HTMLButtonElement).addEventListener("click", () => {
		sessionStorage.removeItem(TOKEN);
		// What only the token shows is gone, too.
		location.reload();
	});
	element("reload", HTMLButtonElement).addEventListener("click", reload);
	element("end", HTMLButtonElement).addEventListener("click", endAll);
	await learnAccess();
}
