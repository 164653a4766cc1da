// password-reset.ts with the real server: every documented answer, and other results.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import createClient, { type ClientOptions } from "openapi-fetch";
import { requestPasswordReset, type PasswordResetOutcome } from "../password-reset.js";
import type { paths } from "../schema.js";
import { deadURL, startOther, startResetd, type Resetd } from "./resetd.js";

function clientOf(server: { api: string }, options: ClientOptions = {}) {
	return createClient<paths>({ baseUrl: server.api, ...options });
}

/** The outcome, and the raw answer behind it. */
async function ask(server: { api: string }, request: Parameters<typeof requestPasswordReset>[1], options: ClientOptions = {}) {
	let response: Response | undefined;
	const client = clientOf(server, options);
	client.use({
		onResponse(answer) {
			response = answer.response.clone();
		},
	});
	const outcome = await requestPasswordReset(client, request);
	assert.ok(response, `no response: ${JSON.stringify(outcome)}`);
	return { outcome, response };
}

function assertKind<K extends PasswordResetOutcome["kind"]>(
	outcome: PasswordResetOutcome,
	kind: K,
): asserts outcome is Extract<PasswordResetOutcome, { kind: K }> {
	assert.equal(outcome.kind, kind, JSON.stringify(outcome));
}

/** Replaces the sent request, for requests that the types do not allow. */
const sending = (body: string): ClientOptions => ({ bodySerializer: () => body });

describe("a server that works", () => {
	let server: Resetd;
	before(async () => {
		const settings = { CALLBACK_ORIGIN_POLICY: "reject", CALLBACK_ORIGINS: "https://app.example.com" };
		server = await startResetd("dev", settings, ["--site-url=https://www.example.com"]);
	});
	after(() => server.stop());

	test("200: acknowledged, and the mail leads to the callback origin", async () => {
		const { outcome, response } = await ask(server, { email: "hello@example.com", callbackOrigin: "https://app.example.com" });
		assert.equal(response.status, 200);
		assert.deepEqual(outcome, {
			kind: "acknowledged",
			message: "If an account exists for that address, a password reset email is on its way.",
		});
		await server.delivered(response.headers.get("X-Request-Id") ?? "");
		const inbox = await (await fetch(`${server.url}/dev/inbox.json`)).text();
		assert.match(inbox, /hello@example\.com/);
		assert.match(inbox, /https:\/\/app\.example\.com\/reset-password\?token_hash=/);
	});

	test("200: the very same for an address without an account, and without a callback origin", async () => {
		const known = await ask(server, { email: "hello@example.com" });
		const unknown = await ask(server, { email: "nobody@example.org", callbackOrigin: undefined });
		assertKind(unknown.outcome, "acknowledged");
		assert.deepEqual(unknown.outcome, known.outcome);
	});

	test("200: the mail is in the language that is asked for", async () => {
		for (const { language, subject } of [
			{ language: "fr-CA, fr;q=0.9, en;q=0.5", subject: /mot de passe/ },
			{ language: "de", subject: /zurücksetzen/ },
			{ language: undefined, subject: /^Reset your/ },
		]) {
			const { outcome, response } = await ask(server, { email: "hello@example.com", language });
			assertKind(outcome, "acknowledged");
			await server.delivered(response.headers.get("X-Request-Id") ?? "");
			const inbox = (await (await fetch(`${server.url}/dev/inbox.json`)).json()) as { mails: { subject: string }[] };
			assert.match(inbox.mails[0]?.subject ?? "", subject);
		}
	});

	test("400: one error for each field", async () => {
		const { outcome, response } = await ask(server, { email: "not an address", callbackOrigin: "https://elsewhere.example.net" });
		assert.equal(response.status, 400);
		assert.deepEqual(outcome, {
			kind: "invalid",
			message: "Check the highlighted fields and try again.",
			code: "invalid_request",
			fieldErrors: { email: "Enter a valid email address.", callback_origin: "This origin is not allowed." },
			generalErrors: [],
		});
	});

	test("400: an empty address", async () => {
		const { outcome } = await ask(server, { email: "" });
		assertKind(outcome, "invalid");
		assert.deepEqual(outcome.fieldErrors, { email: "Enter a valid email address." });
	});

	test("400: what is no field's fault is a general error", async () => {
		const { outcome } = await ask(server, { email: "hello@example.com" }, sending("[]"));
		assertKind(outcome, "invalid");
		assert.equal(outcome.code, "invalid_request");
		assert.deepEqual(outcome.fieldErrors, {});
		assert.deepEqual(outcome.generalErrors, ["Send a JSON object."]);

		const { outcome: unreadable } = await ask(server, { email: "hello@example.com" }, sending("{"));
		assertKind(unreadable, "invalid");
		assert.equal(unreadable.code, "invalid_json");
		assert.deepEqual(unreadable.fieldErrors, {});
		assert.deepEqual(unreadable.generalErrors, ["Send exactly one JSON value."]);
	});

	test("413: refused", async () => {
		const { outcome, response } = await ask(server, { email: "a".repeat(16 << 10) + "@example.com" });
		assert.equal(response.status, 413);
		assertKind(outcome, "refused");
		assert.equal(outcome.code, "payload_too_large");
	});

	test("415: refused", async () => {
		const { outcome, response } = await ask(server, { email: "hello@example.com" }, { headers: { "Content-Type": "text/plain" } });
		assert.equal(response.status, 415);
		assertKind(outcome, "refused");
		assert.equal(outcome.code, "unsupported_media_type");
	});

	test("404 is no answer of this operation", async () => {
		const { outcome } = await ask({ api: `${server.url}/elsewhere` }, { email: "hello@example.com" });
		assert.deepEqual(outcome, { kind: "unexpected", status: 404 });
	});

	test("an aborted request has no answer", async () => {
		const outcome = await requestPasswordReset(clientOf(server), { email: "hello@example.com" }, { signal: AbortSignal.abort() });
		assertKind(outcome, "no_answer");
		assert.equal((outcome.cause as Error).name, "AbortError");
	});
});

test("429: the wait, as the header and the body say it", async () => {
	const server = await startResetd("dev", { RATE_LIMIT: "1-H" });
	try {
		const { outcome: first } = await ask(server, { email: "hello@example.com" });
		assertKind(first, "acknowledged");
		const { outcome, response } = await ask(server, { email: "hello@example.com" });
		assert.equal(response.status, 429);
		assertKind(outcome, "rate_limited");
		assert.equal(outcome.code, "rate_limited");
		assert.ok(outcome.waitSeconds > 1 && outcome.waitSeconds <= 3600, String(outcome.waitSeconds));
		assert.equal(outcome.waitSeconds, Number(response.headers.get("Retry-After")));
		assert.equal(outcome.waitSeconds, ((await response.json()) as { retryAfter: number }).retryAfter);
		assert.match(outcome.message, new RegExp(`\\b${outcome.waitSeconds} seconds`));
	} finally {
		await server.stop();
	}
});

describe("a server that cannot", () => {
	const configured = {
		SUPABASE_SERVICE_ROLE_KEY: "test-service-role-key",
		MAILGUN_API_KEY: "test-mailgun-key",
		MAILGUN_DOMAIN: "mg.example.com",
		SITE_URL: "https://app.example.com",
		UPSTREAM_TIMEOUT: "2s",
	};

	async function outcomeWith(settings: Record<string, string>, status: number): Promise<PasswordResetOutcome> {
		const server = await startResetd("serve", settings);
		try {
			const { outcome, response } = await ask(server, { email: "hello@example.com" });
			assert.equal(response.status, status);
			return outcome;
		} finally {
			await server.stop();
		}
	}

	test("500: nothing is configured", async () => {
		const outcome = await outcomeWith({}, 500);
		assertKind(outcome, "server_error");
		assert.equal(outcome.code, "auth_not_configured");
		assert.equal(outcome.message, "Password reset is not set up on this server.");
	});

	test("502: Mailgun is not configured", async () => {
		const { MAILGUN_API_KEY: _, ...rest } = configured;
		const outcome = await outcomeWith({ ...rest, SUPABASE_URL: await deadURL() }, 502);
		assertKind(outcome, "not_delivered");
		assert.equal(outcome.code, "email_delivery_failed");
	});

	test("503: Supabase Auth does not answer", async () => {
		const dead = await deadURL();
		const outcome = await outcomeWith({ ...configured, SUPABASE_URL: dead, MAILGUN_API_BASE: dead }, 503);
		assertKind(outcome, "unavailable");
		assert.equal(outcome.code, "auth_unavailable");
		assert.equal(outcome.waitSeconds, 5);
	});

	test("no answer: nothing listens", async () => {
		const outcome = await requestPasswordReset(clientOf({ api: await deadURL() }), { email: "hello@example.com" });
		assertKind(outcome, "no_answer");
	});
});

describe("something else that answers", () => {
	for (const { name, status, header, body, outcome } of [
		{ name: "a proxy's page", status: 502, header: { "Content-Type": "text/html" }, body: "<h1>Bad Gateway</h1>", outcome: { kind: "unexpected", status: 502 } },
		{ name: "a gateway's own limit", status: 429, header: { "Retry-After": "7" }, body: '{"message":"slow down"}', outcome: { kind: "unexpected", status: 429 } },
		{ name: "no body", status: 503, header: {}, body: "", outcome: { kind: "unexpected", status: 503 } },
		{ name: "another program's success", status: 200, header: {}, body: '{"ok":1}', outcome: { kind: "unexpected", status: 200 } },
		{ name: "a status that is not documented", status: 418, header: {}, body: '{"error":"teapot"}', outcome: { kind: "unexpected", status: 418 } },
		{
			name: "the header alone, where the body has no number",
			status: 503, header: { "Retry-After": "9" }, body: '{"error":"Busy.","code":"of_later"}',
			outcome: { kind: "unavailable", message: "Busy.", code: "of_later", waitSeconds: 9 },
		},
		{
			name: "a wait that no timer can use",
			status: 429, header: { "Retry-After": "soon" }, body: '{"error":"Wait."}',
			outcome: { kind: "rate_limited", message: "Wait.", code: undefined, waitSeconds: 1 },
		},
		{
			name: "an error of a field that this program does not have",
			status: 400, header: {}, body: '{"error":"No.","fieldErrors":{"email":"Wrong.","phone":"Missing."},"issues":[{"path":"email","message":"Wrong."},{"path":"phone","message":"Missing."}]}',
			outcome: { kind: "invalid", message: "No.", code: undefined, fieldErrors: { email: "Wrong." }, generalErrors: ["Missing."] },
		},
	]) {
		test(name, async () => {
			const other = await startOther((_, response) => response.writeHead(status, header).end(body));
			try {
				assert.deepEqual((await ask({ api: other.url }, { email: "hello@example.com" })).outcome, outcome);
			} finally {
				await other.stop();
			}
		});
	}

	test("a page where an acknowledgment should be", async () => {
		const other = await startOther((_, response) => response.end("<h1>Sign in to the network</h1>"));
		try {
			const outcome = await requestPasswordReset(clientOf({ api: other.url }), { email: "hello@example.com" });
			assertKind(outcome, "no_answer");
		} finally {
			await other.stop();
		}
	});
});
