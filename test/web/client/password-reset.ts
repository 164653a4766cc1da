// Asks resetd for a password-reset mail. Copy this file and schema.d.ts; beside them you need
// openapi-fetch, and nothing else.
import type { Client } from "openapi-fetch";
import type { components, operations, paths } from "./schema.js";

/** A client made by `createClient<paths>({ baseUrl: "https://example.com/api" })` of openapi-fetch. */
export type PasswordResetClient = Client<paths>;

export interface PasswordResetRequest {
	email: string;
	/** Origin of the app that the link leads to, `scheme://host[:port]`; without it, the site's own. */
	callbackOrigin?: string | undefined;
	/**
	 * The language of the mail, as in Accept-Language (`de-CH, de;q=0.9`). A server that sends the request for a
	 * user must pass on the user's. A browser sends its own by default.
	 */
	language?: string | undefined;
}

/** Name of a field of the request in the API. */
export type Field = keyof components["schemas"]["SendPasswordResetRequest"];

/**
 * All possible results of a request. `message` is for people, in English; `code` is for programs, and may be
 * unknown to this file.
 */
export type PasswordResetOutcome =
	/** Accepted. If there is an account, its mail goes out within a second or two. Nobody learns here whether there is one. */
	| { kind: "acknowledged"; message: string }
	/** 400. `fieldErrors` belong beside their fields, `generalErrors` above the form. */
	| {
			kind: "invalid";
			message: string;
			code: string | undefined;
			fieldErrors: Partial<Record<Field, string>>;
			generalErrors: string[];
	  }
	/** 429. Whole seconds to wait, at least 1. */
	| { kind: "rate_limited"; message: string; code: string | undefined; waitSeconds: number }
	/** 503. Not accepted, for any address. It ends by itself: whole seconds to wait before the next try, at least 1. */
	| { kind: "unavailable"; message: string; code: string | undefined; waitSeconds: number }
	/** 502. Not accepted, for any address: no mail can be sent now. */
	| { kind: "not_delivered"; message: string; code: string | undefined }
	/** 500. Only the operator can help. */
	| { kind: "server_error"; message: string; code: string | undefined }
	/** 413, 415. A bug in the program that sends the request, not a mistake of its user. */
	| { kind: "refused"; message: string; code: string | undefined }
	/** Not an answer of the API: most often a proxy has answered. */
	| { kind: "unexpected"; status: number }
	/** No readable answer: no network, no permission (CORS), or aborted. */
	| { kind: "no_answer"; cause: unknown };

/** Never throws: whatever happens is an outcome. */
export async function requestPasswordReset(
	client: PasswordResetClient,
	request: PasswordResetRequest,
	options: { signal?: AbortSignal } = {},
): Promise<PasswordResetOutcome> {
	const body: components["schemas"]["SendPasswordResetRequest"] = { email: request.email };
	if (request.callbackOrigin !== undefined) {
		body.callback_origin = request.callbackOrigin;
	}
	const params: operations["sendPasswordReset"]["parameters"] = {};
	if (request.language !== undefined) {
		params.header = { "Accept-Language": request.language };
	}
	let answer;
	try {
		answer = await client.POST("/auth/send-password-reset", { body, params, ...options });
	} catch (cause) {
		return { kind: "no_answer", cause };
	}
	const { response } = answer;
	const outcome = isDocumented(response.status)
		? read(response.status, answer.data ?? answer.error, response.headers)
		: undefined;
	return outcome ?? { kind: "unexpected", status: response.status };
}

type Responses = operations["sendPasswordReset"]["responses"];
type Status = keyof Responses;
type Body<S extends Status> = Responses[S]["content"]["application/json"];
/** Reads a header that is documented for this status, and no other. */
type Header<S extends Status> = (name: Named<Responses[S]["headers"]>) => string | null;
type Named<Headers> = keyof { [Name in keyof Headers as string extends Name ? never : Name]: true } & string;

// One entry for each documented status: a new status in the API does not compile until its meaning is decided here.
const outcomes: { [S in Status]: (body: Body<S>, header: Header<S>) => PasswordResetOutcome } = {
	200: ({ message }) => ({ kind: "acknowledged", message }),
	400: (body) => ({ kind: "invalid", message: body.error, code: body.code, ...sortErrors(body) }),
	413: (body) => ({ kind: "refused", message: body.error, code: body.code }),
	415: (body) => ({ kind: "refused", message: body.error, code: body.code }),
	429: (body, header) => ({
		kind: "rate_limited",
		message: body.error,
		code: body.code,
		waitSeconds: seconds(body.retryAfter, header("Retry-After")),
	}),
	500: (body) => ({ kind: "server_error", message: body.error, code: body.code }),
	502: (body) => ({ kind: "not_delivered", message: body.error, code: body.code }),
	503: (body, header) => ({
		kind: "unavailable",
		message: body.error,
		code: body.code,
		waitSeconds: seconds(body.retryAfter, header("Retry-After")),
	}),
};

function isDocumented(status: number): status is Status {
	return Object.hasOwn(outcomes, status);
}

// A proxy may use the same statuses with its own page, so the body is checked before its type is trusted.
function read<S extends Status>(status: S, body: unknown, headers: Headers): PasswordResetOutcome | undefined {
	const told = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
	const fits = status === 200 ? told["ok"] === true && typeof told["message"] === "string" : typeof told["error"] === "string";
	return fits ? outcomes[status](body as Body<S>, (name) => headers.get(name)) : undefined;
}

/** Has every field of the request: a new one in the API does not compile without an entry. */
const fields: Record<Field, true> = { email: true, callback_origin: true };

function isField(path: string): path is Field {
	return Object.hasOwn(fields, path);
}

function sortErrors(body: components["schemas"]["ErrorBody"]) {
	const fieldErrors: Partial<Record<Field, string>> = {};
	for (const [path, message] of Object.entries(body.fieldErrors ?? {})) {
		if (isField(path)) {
			fieldErrors[path] = message;
		}
	}
	const generalErrors = (body.issues ?? []).filter(({ path }) => !isField(path)).map(({ message }) => message);
	return { fieldErrors, generalErrors };
}

function seconds(inBody: number | undefined, inHeader: string | null): number {
	const told = inBody ?? Number(inHeader ?? NaN);
	return Number.isFinite(told) ? Math.max(1, Math.ceil(told)) : 1;
}
