// The browser sends to this server, and this server to resetd, which browsers need not reach.
import type { NextRequest } from 'next/server'

const maxBody = 16 * 1024 // bytes; resetd reads no more

export async function POST(request: NextRequest): Promise<Response> {
	if (!(Number(request.headers.get('content-length') ?? 'not said') <= maxBody)) {
		return Response.json({ error: 'The request body is too large.' }, { status: 413 })
	}
	const headers = new Headers()
	// The user's language, and the user's address: without it all users would share one limit. The
	// chain goes on as it came; which of its addresses counts, resetd decides (TRUSTED_PROXIES).
	for (const name of ['content-type', 'accept-language', 'x-forwarded-for']) {
		const value = request.headers.get(name)
		if (value !== null) {
			headers.set(name, value)
		}
	}
	let answer: Response
	try {
		answer = await fetch(`${process.env.RESETD_URL}/api/auth/send-password-reset`, {
			method: 'POST',
			headers,
			body: await request.text(),
			cache: 'no-store',
			redirect: 'error',
			signal: AbortSignal.timeout(30_000),
		})
	} catch {
		return Response.json({ error: 'The server could not be reached. Try again in a moment.' }, { status: 502 })
	}
	const passed = new Headers({ 'cache-control': 'no-store' })
	for (const name of ['content-type', 'retry-after', 'x-request-id']) {
		const value = answer.headers.get(name)
		if (value !== null) {
			passed.set(name, value)
		}
	}
	return new Response(answer.body, { status: answer.status, headers: passed })
}
