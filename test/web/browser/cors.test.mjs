// Which pages may call, as a browser sees it: pages on other origins, and resetd dev, whose inbox shows which
// requests had an effect.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { closeBrowser, openPage, startResetd, startSite } from './harness.mjs'

after(closeBrowser)

const account = 'hello@example.com'
const refused = /blocked by CORS policy/
const failed = /net::ERR_FAILED/ // Chromium logs this for each refused request

/** Sends a request from the page, and returns what the page's script can see of the answer. */
function send(page, url, { body = JSON.stringify({ email: account }), headers = { 'Content-Type': 'application/json' }, ...init } = {}) {
	return page.evaluate(async ([url, init]) => {
		try {
			const response = await fetch(url, { method: 'POST', ...init })
			const text = await response.text()
			return {
				type: response.type, status: response.status, body: text && JSON.parse(text),
				headers: Object.fromEntries(response.headers),
			}
		} catch (error) {
			return error.name
		}
	}, [url, { body, headers, ...init }])
}

/** Sends a request from a frame whose origin is null, and returns this origin and the result. */
function sendFromSandbox(page, url) {
	return page.evaluate((url) => new Promise((told) => {
		window.addEventListener('message', (event) => told([event.origin, event.data]))
		const frame = document.createElement('iframe')
		frame.setAttribute('sandbox', 'allow-scripts') // without allow-same-origin: its origin is "null"
		frame.srcdoc = `<script>
			fetch(${JSON.stringify(url)}, {
				method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"email":"hello@example.com"}',
			}).then(() => 'answered', (error) => error.name).then((outcome) => parent.postMessage(outcome, '*'))
		</script>`
		document.body.append(frame)
	}), url)
}

async function pageOn(t, resetd, origin, expected) {
	const { page } = await openPage(t, { origins: [resetd.url, origin], expected })
	await page.goto(origin)
	return page
}

test('a page on a listed origin sends the request, and reads every answer and its headers', async (t) => {
	const site = await startSite(t)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: site.url, RATE_LIMIT: '4-D' })
	const page = await pageOn(t, resetd, site.url, [/status of 400/, /status of 415/, /status of 429/])

	const sent = await send(page, resetd.endpoint)
	assert.equal(sent.type, 'cors')
	assert.equal(sent.status, 200)
	assert.deepEqual(Object.keys(sent.body).sort(), ['message', 'ok'])
	assert.deepEqual(await resetd.answers(), ['OPTIONS 204', 'POST 200'], 'no preflight came first')
	const { mails } = await resetd.inbox()
	assert.deepEqual(mails.map((mail) => mail.to), [[account]])
	// The headers that a client needs are readable, and no others.
	assert.match(sent.headers['x-request-id'], /^[0-9a-f]{32}$/)
	assert.match(sent.headers['ratelimit'], /^"per-day";r=3;t=\d+$/)
	assert.match(sent.headers['ratelimit-policy'], /^"per-day";q=4;w=86400$/)
	assert.deepEqual(Object.keys(sent.headers).sort(),
		['cache-control', 'content-length', 'content-type', 'ratelimit', 'ratelimit-policy', 'x-request-id'])

	const invalid = await send(page, resetd.endpoint, { body: JSON.stringify({ email: 'nobody' }) })
	assert.equal(invalid.status, 400)
	assert.equal(invalid.body.code, 'invalid_request')
	assert.equal(typeof invalid.body.fieldErrors.email, 'string')
	assert.match(invalid.headers['ratelimit'], /r=2;/)

	const plain = await send(page, resetd.endpoint, { headers: { 'Content-Type': 'text/plain' } })
	assert.equal(plain.status, 415)
	assert.equal(plain.body.code, 'unsupported_media_type')

	// The server keeps an id of the caller, and pages may send it.
	const named = await send(page, resetd.endpoint, {
		headers: { 'Content-Type': 'application/json', 'X-Request-Id': 'from-the-page', 'Accept-Language': 'de' },
	})
	assert.equal(named.status, 200)
	assert.equal(named.headers['x-request-id'], 'from-the-page')

	const limited = await send(page, resetd.endpoint)
	assert.equal(limited.status, 429)
	assert.equal(limited.body.code, 'rate_limited')
	assert.match(limited.headers['retry-after'], /^[1-9]\d*$/)
	assert.equal(Number(limited.headers['retry-after']), limited.body.retryAfter)
	assert.match(limited.headers['ratelimit'], /r=0;/)
	assert.equal((await resetd.inbox()).mails.length, 2)
})

test('a page on any other origin gets nothing, and nothing comes of it', async (t) => {
	const [listed, other] = [await startSite(t), await startSite(t)]
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: listed.url })
	const page = await pageOn(t, resetd, other.on('other.localhost'), [refused, failed, /status of 415/])
	const json = JSON.stringify({ email: account })

	assert.equal(await send(page, resetd.endpoint), 'TypeError')
	assert.deepEqual(await resetd.answers(), ['OPTIONS 204'], 'the request was sent nevertheless')

	// Requests without a preflight do arrive. They have a type that the operation does not accept.
	for (const [what, options] of Object.entries({
		'text/plain': { headers: { 'Content-Type': 'text/plain' } },
		'text/plain that says it is JSON': { headers: { 'Content-Type': 'text/plain; application/json' } },
		'a form': { headers: { 'Content-Type': 'application/x-www-form-urlencoded' } },
	})) {
		assert.equal(await send(page, resetd.endpoint, options), 'TypeError', `${what} can be read`)
		const opaque = await send(page, resetd.endpoint, { ...options, mode: 'no-cors' })
		assert.deepEqual(opaque, { type: 'opaque', status: 0, body: '', headers: {} }, what)
	}
	const types = await page.evaluate(async ([url, json]) => {
		const opaque = async (body) => (await fetch(url, { method: 'POST', mode: 'no-cors', body })).type
		const form = new FormData()
		form.append('email', 'hello@example.com')
		return [
			await opaque(new Blob([json])), // has no type
			await opaque(new Blob([json], { type: 'application/json' })), // is sent without its type
			await opaque(form),
			await opaque(new TextEncoder().encode(json)),
		]
	}, [resetd.endpoint, json]).catch((error) => error.message)
	assert.deepEqual(types, ['opaque', 'opaque', 'opaque', 'opaque'])
	// A form posts what looks like JSON, into a frame of the page.
	await page.evaluate(([url, json]) => new Promise((loaded) => {
		const frame = document.createElement('iframe')
		frame.name = 'target'
		document.body.append(frame)
		const form = document.createElement('form')
		Object.assign(form, { method: 'post', action: url, enctype: 'text/plain', target: 'target' })
		const field = document.createElement('input')
		field.name = json.slice(0, -1) + ',"x":"'
		field.value = '"}'
		form.append(field)
		document.body.append(form)
		frame.addEventListener('load', loaded)
		form.submit()
	}), [resetd.endpoint, json])

	const answers = await resetd.answers()
	assert.equal(answers.length, 1 + 6 + 4 + 1, String(answers))
	assert.deepEqual([...new Set(answers.slice(1))], ['POST 415'])
	const { mails, tests } = await resetd.inbox()
	assert.deepEqual([mails, tests], [[], []])
})

test('a page without an origin gets nothing', async (t) => {
	const site = await startSite(t)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: site.url })
	const page = await pageOn(t, resetd, site.url, [refused, failed])
	assert.deepEqual(await sendFromSandbox(page, resetd.endpoint), ['null', 'TypeError'])
	assert.deepEqual(await resetd.answers(), ['OPTIONS 204'])
	assert.deepEqual((await resetd.inbox()).mails, [])
})

test('no page may send cookies, or use other methods', async (t) => {
	const site = await startSite(t)
	for (const CORS_ORIGINS of [site.url, '*']) {
		const resetd = await startResetd(t, 'dev', { CORS_ORIGINS })
		const page = await pageOn(t, resetd, site.url, [refused, failed])
		for (const [what, options] of Object.entries({
			cookies: { credentials: 'include' },
			PUT: { method: 'PUT' },
			PATCH: { method: 'PATCH' },
			DELETE: { method: 'DELETE' },
		})) {
			assert.equal(await send(page, resetd.endpoint, options), 'TypeError', `${what} is allowed with CORS_ORIGINS=${CORS_ORIGINS}`)
		}
		assert.deepEqual([...new Set(await resetd.answers())], ['OPTIONS 204'], 'one of them was sent')
		assert.deepEqual((await resetd.inbox()).mails, [])
		assert.equal((await send(page, resetd.endpoint)).status, 200) // requests as such do get through
	}
})

test('a page that is traced, or that sends what supabase-js sends, gets through with its headers', async (t) => {
	const site = await startSite(t)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: site.url })
	const page = await pageOn(t, resetd, site.url)
	const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
	const sent = await send(page, resetd.endpoint, {
		headers: {
			'Content-Type': 'application/json',
			traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
			tracestate: 'vendor=1',
			baggage: 'sentry-environment=production',
			'sentry-trace': `${traceId}-00f067aa0ba902b7-1`,
			'x-datadog-trace-id': '1234567890',
			apikey: 'a-publishable-key',
			Authorization: 'Bearer a-publishable-key',
			'x-client-info': 'supabase-js-web/2.0.0',
		},
	})
	assert.equal(sent.status, 200)
	assert.deepEqual(await resetd.answers(), ['OPTIONS 204', 'POST 200'])
	const { mails } = await resetd.inbox()
	assert.deepEqual(mails.map((mail) => mail.to), [[account]])
})

test('CORS_ORIGINS=* lets every page call, and one without an origin', async (t) => {
	const site = await startSite(t)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: '*' })
	const page = await pageOn(t, resetd, site.url)
	const sent = await send(page, resetd.endpoint, { headers: { 'Content-Type': 'application/json', traceparent: 'x' } })
	assert.equal(sent.status, 200)
	assert.match(sent.headers['x-request-id'], /^[0-9a-f]{32}$/)
	assert.deepEqual(await sendFromSandbox(page, resetd.endpoint), ['null', 'answered'])
	assert.deepEqual(await resetd.answers(), ['OPTIONS 204', 'POST 200', 'OPTIONS 204', 'POST 200'])
})

test('the server says why a page failed to fetch', async (t) => {
	const [listed, other] = [await startSite(t), await startSite(t)]
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: listed.url })
	const notices = async () => (await resetd.records('request')).flatMap((record) => record.notices ?? [])
	assert.equal(await send(await pageOn(t, resetd, other.on('other.localhost'), [refused, failed]), resetd.endpoint), 'TypeError')
	assert.deepEqual(await notices(), ['cors_origin'])
	const page = await pageOn(t, resetd, listed.url, [refused, failed])
	assert.equal(await send(page, resetd.endpoint, { method: 'PUT' }), 'TypeError')
	assert.deepEqual(await notices(), ['cors_origin', 'cors_method'])
	const headers = { 'Content-Type': 'application/json', [`x-${'a'.repeat(1100)}`]: '1' }
	assert.equal(await send(page, resetd.endpoint, { headers }), 'TypeError')
	assert.deepEqual(await notices(), ['cors_origin', 'cors_method', 'cors_headers'])
	assert.equal((await send(page, resetd.endpoint)).status, 200)
	assert.equal((await notices()).length, 3)
})

test('a wildcard lists the names of one level, and no others', async (t) => {
	const site = await startSite(t)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: `http://*.preview.localhost:${site.port}` })
	const allowed = await pageOn(t, resetd, site.on('pr-7.preview.localhost'))
	const sent = await send(allowed, resetd.endpoint)
	assert.equal(sent.status, 200)
	assert.match(sent.headers['x-request-id'], /^[0-9a-f]{32}$/)
	for (const host of ['preview.localhost', 'a.pr-7.preview.localhost', 'xpreview.localhost']) {
		const page = await pageOn(t, resetd, site.on(host), [refused, failed])
		assert.equal(await send(page, resetd.endpoint), 'TypeError', host)
	}
	const elsewhere = await startSite(t) // same name, another port
	const page = await pageOn(t, resetd, elsewhere.on('pr-7.preview.localhost'), [refused, failed])
	assert.equal(await send(page, resetd.endpoint), 'TypeError')
	assert.equal((await resetd.inbox()).mails.length, 1)
})

test('the pages of the app are listed unless others are', async (t) => {
	const [site, callback, other] = [await startSite(t), await startSite(t), await startSite(t)]
	const resetd = await startResetd(t, 'serve', { SITE_URL: site.url, CALLBACK_ORIGINS: callback.url })
	for (const { url } of [site, callback]) {
		const page = await pageOn(t, resetd, url, [/status of 500/]) // the server has no Supabase
		const answer = await send(page, resetd.endpoint)
		assert.equal(answer.body?.code, 'auth_not_configured', url)
	}
	const page = await pageOn(t, resetd, other.url, [refused, failed])
	assert.equal(await send(page, resetd.endpoint), 'TypeError')
})

test('resetd dev lets the pages of this machine call, whatever is listed, and no others', async (t) => {
	const site = await startSite(t)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: 'https://app.example.com' })
	for (const origin of [site.url, site.on('127.0.0.1')]) {
		const page = await pageOn(t, resetd, origin)
		assert.equal((await send(page, resetd.endpoint)).status, 200, origin)
	}
	const page = await pageOn(t, resetd, site.on('other.localhost'), [refused, failed])
	assert.equal(await send(page, resetd.endpoint), 'TypeError')
})
