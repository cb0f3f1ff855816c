/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
	const found = document.getElementById(id);
	if (!(found instanceof kind)) throw new Error(`no ${id}`);
	return found;
}

/** Shows a text, and leaves the page alone if it is there already.
 * @param {Element} place @param {string} text */
function say(place, text) {
	if (place.textContent !== text) place.textContent = text;
}

/** @param {number} n */
function count(n) {
	return n.toLocaleString("en");
}

/** @param {number} n @param {string} one */
function several(n, one) {
	return `${count(n)} ${one}${n === 1 ? "" : "s"}`;
}

/** @param {number} bytes */
function size(bytes) {
	const units = ["B", "KiB", "MiB", "GiB", "TiB"];
	let unit = 0;
	while (bytes >= 1024 && unit < units.length - 1) {
		bytes /= 1024;
		unit += 1;
	}
	return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** @param {number} bytes */
function rate(bytes) {
	return `${size(bytes)}/s`;
}

/** @param {number} seconds */
function age(seconds) {
	const s = Math.floor(seconds);
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
	return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** @param {unknown} error */
function why(error) {
	// What fetch throws if nothing answers.
	if (error instanceof TypeError) return "coracle does not answer; these are its last numbers";
	return error instanceof Error ? error.message : String(error);
}
