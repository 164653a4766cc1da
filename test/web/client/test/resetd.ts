// Starts and stops the real server, from the binary that RESETD names. The tests in a browser (../../browser) use
// the compiled file.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";

export interface Resetd {
	/** http://ADDRESS:PORT */
	url: string;
	/** The base URL of the API, for createClient. */
	api: string;
	/** The log's lines so far. */
	log: string[];
	/** The standard output so far. */
	printed(): string;
	/** Waits for one more line. */
	logs(): Promise<void>;
	/** Waits until the delivery of a request has ended. */
	delivered(requestID: string): Promise<void>;
	/** Fails if the server does not end well. */
	stop(): Promise<void>;
}

/** Its environment is only what is given, so that no setting of this machine counts. */
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
	// When this process ends, its servers end too.
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

// The runner ends a slow test by a signal, which would skip the exit handler above.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
	process.once(signal, () => process.exit(1));
}

/** A server in resetd's place, like a proxy. */
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

/** An address where nothing listens: its port was free a moment ago. */
export async function deadURL(): Promise<string> {
	const gone = await startOther(() => {});
	await gone.stop();
	return gone.url;
}
