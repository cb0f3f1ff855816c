/** How often the page asks for new numbers, in milliseconds. */
const PAUSE = 2000;
/** How often it asks for what changes slowly or costs more. */
const LONG_PAUSE = 10_000;
/** For what costs more, the page pauses this many times as long as the answers took. */
const REST = 20;

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
		const [status, page] = reads ? [await ask("status"), await ask(path)] : [];
		if (mine !== latest) return;
		if (status) {
			showStatus(status);
			showConnections(page);
		}
	} catch (error) {
		if (mine !== latest) return;
		problem = why(error);
	}
	say(element("problem", HTMLElement), problem);
	if (!document.hidden) timer = setTimeout(look, PAUSE);
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let surveyTimer;
let latestSurvey = 0;
/** What the clients are sorted by. */
let clientsBy = "open";

/** Looks at what changes slowly or costs more. */
async function survey() {
	clearTimeout(surveyTimer);
	latestSurvey += 1;
	const mine = latestSurvey;
	const begun = performance.now();
	try {
		if (reads) {
			if (!events) listen();
			const clients = await ask(`clients?sort=${clientsBy}&limit=10`);
			if (mine !== latestSurvey) return;
			showClients(clients);
			showAgreement(await ask("agreement?only=differing"));
			keepPast(await ask("history"));
			showLog((await ask("logs?min_level=warn")).lines);
		}
	} catch {
		// The next look says what is wrong.
	}
	if (mine !== latestSurvey || document.hidden) return;
	surveyTimer = setTimeout(survey, Math.max(LONG_PAUSE, REST * (performance.now() - begun)));
}

/** Ends the reading of events.
 * @type {AbortController | undefined} */
let events;

/** Follows what happens, so that it is shown before the next look. An EventSource could not send the
 * token that reading may need. */
async function listen() {
	const mine = new AbortController();
	events = mine;
	try {
		const { body } = await request("events", { signal: mine.signal });
		const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
		let rest = "";
		for (;;) {
			const { value, done } = await reader?.read() ?? { done: true };
			if (done) break;
			const all = (rest + value).split("\n\n");
			rest = all.pop() ?? "";
			for (const text of all) {
				const [, kind, data] = text.match(/^event: (.*)\ndata: (.*)$/) ?? [];
				if (kind) happened(kind, JSON.parse(data));
			}
		}
	} catch {
		// Too many others may follow already, or this one does no more; the looks go on.
	}
	if (events === mine) events = undefined;
}

/** @param {string} kind @param {any} data */
function happened(kind, data) {
	if (kind === "hello") return;
	if (kind === "connections") return showOpen(data.open);
	if (kind === "log") return showLog([data]);
	clearTimeout(timer);
	timer = setTimeout(look, 100);
}

/** Begins to look again, or stops if nobody sees the page. */
function wake() {
	if (document.hidden) return events?.abort();
	look();
	survey();
}

/** Lets the heads of a table sort it.
 * @param {string} table @param {boolean} both @param {(by: string, order: string) => void} sort */
function sortable(table, both, sort) {
	const heads = element(table, HTMLElement).parentElement?.querySelectorAll("th[aria-sort]") ?? [];
	for (const head of heads) {
		const button = head.querySelector("button");
		button?.addEventListener("click", () => {
			const order = both && head.getAttribute("aria-sort") === "descending" ? "asc" : "desc";
			heads.forEach((it) => it.setAttribute("aria-sort", "none"));
			head.setAttribute("aria-sort", `${order}ending`);
			sort(button.value, order);
		});
	}
}

function start() {
	sortable("connections", true, (sort, order) => {
		Object.assign(view, { sort, order, offset: 0 });
		look();
	});
	sortable("clients", false, (by) => {
		clientsBy = by;
		survey();
	});
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
	document.addEventListener("visibilitychange", wake);
	startActing().then(wake);
}

start();
