// Starts the real server, of the binary that RESETD names, and ends it. The tests in a browser
// (../../browser) do so by this too, as it is compiled.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";

export interface Resetd {
	/** http://ADDRESS:PORT */
	url: string;
	/** The base of the API, for createClient. */
	api: string;
	/** The lines that it has logged so far. */
	log: string[];
	/** What it has written to its standard output so far. */
	printed(): string;
	/** Waits for one line more. */
	logs(): Promise<void>;
	/** Waits until the delivery of a request has ended. */
	delivered(requestID: string): Promise<void>;
	/** Fails if it does not end well. */
	stop(): Promise<void>;
}

/** Its environment is what is given and nothing else, so that no setting of the machine's own counts. */
export async function startResetd(
	command: "dev" | "serve",
	settings: Record<string, string> = {},
	flags: string[] = [],
): Promise<Resetd> {
	const binary = process.env["RESETD"];
	if (binary === undefined) {
		throw new Error("RESETD must be the path of the resetd binary; test/web.sh builds one");
	}
	const child = spawn(binary, [command, ...flags], {
		env: {
			LISTEN_ADDR: "127.0.0.1:0",
			ADMIN_ADDR: "off",
			LOG_FORMAT: "json",
			SHUTDOWN_DELAY: "0s",
			RATE_LIMIT: "100000-M",
			RECIPIENT_LIMIT: "100000-M",
			...settings,
		},
		stdio: ["ignore", "pipe", "pipe"],
	});
	// However this process ends, its servers end too.
	const kill = (): void => void child.kill("SIGKILL");
	process.once("exit", kill);
	const ended = once(child, "exit").then(([code]) => {
		process.removeListener("exit", kill);
		return code as number | null;
	});

	let printed = "";
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		printed += text;
	});
	const log: string[] = [];
	const lines = createInterface(child.stderr);
	const url = await new Promise<string>((resolve, reject) => {
		lines.on("line", (line) => {
			log.push(line);
			const address = /"msg":"listening","addr":"([^"]+)"/.exec(line)?.[1];
			if (address !== undefined) {
				resolve(`http://${address}`);
			}
		});
		child.once("error", reject);
		child.once("exit", (code) => {
			reject(new Error(`resetd ${command} ended with ${code} before it listened:\n${log.join("\n")}`));
		});
	});
	return {
		url,
		api: `${url}/api`,
		log,
		printed: () => printed,
		async logs() {
			await once(lines, "line");
		},
		async delivered(requestID) {
			while (!log.some((line) => line.includes('"msg":"delivery"') && line.includes(`"request_id":"${requestID}"`))) {
				await once(lines, "line");
			}
		},
		async stop() {
			child.kill("SIGTERM");
			assert.equal(await ended, 0, `resetd ${command} did not stop well:\n${log.join("\n")}`);
		},
	};
}

// The runner ends a test that takes too long by a signal, which would skip the exit above.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
	process.once(signal, () => process.exit(1));
}

/** Something that answers in resetd's place, as a proxy on the way does. */
export async function startOther(answer: RequestListener): Promise<{ url: string; stop(): Promise<void> }> {
	const server = createServer(answer);
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	return {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
		async stop() {
			server.close();
			server.closeAllConnections();
			await once(server, "close");
		},
	};
}

/** An address where nothing listens: it was free a moment ago. */
export async function deadURL(): Promise<string> {
	const gone = await startOther(() => {});
	await gone.stop();
	return gone.url;
}
