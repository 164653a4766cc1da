// Asks for a password-reset mail, and reads the answer. It needs nothing but fetch: copy it.

export type Outcome =
	/** 200: accepted. The message is the same for every address, whether or not it has an account. */
	| { kind: 'taken'; message: string }
	/** 400: what is wrong, by field. Show it beside the field. */
	| { kind: 'invalid'; message: string; fields: { email?: string; callback_origin?: string } }
	/** 429: too many requests. Whole seconds to wait. */
	| { kind: 'wait'; seconds: number }
	/** 500, 502, 503: the server accepts no request, for any address. There is no mail to wait for. */
	| { kind: 'unavailable' }
	/** No readable answer: no network, no permission (CORS), or a proxy in between. */
	| { kind: 'unreachable' }

export async function requestReset(
	url: string,
	request: { email: string; callback_origin?: string },
	headers: Record<string, string> = {},
): Promise<Outcome> {
	try {
		const response = await fetch(url, {
			method: 'POST',
			headers: { 'Content-Type': 'application/json', ...headers },
			body: JSON.stringify(request),
		})
		const body = await response.json()
		switch (response.status) {
			case 200:
				return body.ok === true ? { kind: 'taken', message: body.message } : { kind: 'unreachable' }
			case 400:
				return { kind: 'invalid', message: body.error, fields: body.fieldErrors ?? {} }
			case 429:
				return { kind: 'wait', seconds: body.retryAfter ?? (Number(response.headers.get('Retry-After')) || 60) }
			case 500:
			case 502:
			case 503:
				return { kind: 'unavailable' }
		}
	} catch {
		// The page of a proxy, or no answer.
	}
	return { kind: 'unreachable' }
}
