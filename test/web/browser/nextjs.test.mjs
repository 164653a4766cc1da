// docs/examples/nextjs as built by `next build`, behind a proxy, and in front of the real server.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { closeBrowser, openPage, startResetd } from './harness.mjs'

after(closeBrowser)

const folder = fileURLToPath(new URL('../../../docs/examples/nextjs', import.meta.url))
const account = 'hello@example.com'

/** Runs `next start` until the test t ends, and returns its address. */
async function startNext(t, resetdURL) {
	assert(existsSync(`${folder}/.next/BUILD_ID`), 'the example is not built: test/web.sh does it')
	const child = spawn(process.execPath, ['node_modules/next/dist/bin/next', 'start', '--hostname', '127.0.0.1', '--port', '0'], {
		cwd: folder, env: { PATH: process.env.PATH, NEXT_TELEMETRY_DISABLED: '1', RESETD_URL: resetdURL }, stdio: ['ignore', 'pipe', 'inherit'],
	})
	t.after(() => child.kill('SIGKILL'))
	let said = ''
	for await (const text of child.stdout) {
		said += text
		const url = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0]
		if (url !== undefined && said.includes('Ready')) {
			child.stdout.resume()
			return url
		}
	}
	assert.fail(`next start ended: ${said}`)
}

/**
 * Starts a proxy in front of Next.js, like nginx or a hosting company's: it appends the client's address to
 * X-Forwarded-For. The header Test-Client gives this address, because the whole test is one client.
 */
async function startProxy(t, target) {
	const proxy = createServer((incoming, outgoing) => {
		const { 'test-client': client = '198.51.100.1', ...headers } = incoming.headers
		headers['x-forwarded-for'] = [headers['x-forwarded-for'], client].filter(Boolean).join(', ')
		const passed = request(target + incoming.url, { method: incoming.method, headers }, (answer) => {
			outgoing.writeHead(answer.statusCode, answer.headers)
			answer.pipe(outgoing)
		})
		incoming.pipe(passed)
	})
	await new Promise((listening) => proxy.listen(0, '127.0.0.1', listening))
	t.after(() => {
		proxy.close()
		proxy.closeAllConnections()
	})
	return `http://localhost:${proxy.address().port}`
}

const send = (url, headers = {}, body = JSON.stringify({ email: account })) => fetch(`${url}/api/password-reset`, {
	method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body,
})

for (const trusted of [{ TRUSTED_PROXIES: 'loopback' }, { TRUSTED_HOPS: '1' }]) {
	test(`each user of a Next.js app has a limit of their own, whatever they say who they are: ${Object.entries(trusted)}`, (t) => eachHasALimit(t, trusted))
}

async function eachHasALimit(t, trusted) {
	const resetd = await startResetd(t, 'dev', { RATE_LIMIT: '2-H', ...trusted })
	const proxy = await startProxy(t, await startNext(t, resetd.url))
	const statuses = async (headers) => (await send(proxy, headers)).status
	assert.deepEqual([await statuses({ 'Test-Client': '192.0.2.1' }), await statuses({ 'Test-Client': '192.0.2.1' })], [200, 200])
	const limited = await send(proxy, { 'Test-Client': '192.0.2.1' })
	assert.equal(limited.status, 429)
	const { retryAfter, code } = await limited.json()
	assert.equal(code, 'rate_limited')
	assert.equal(Number(limited.headers.get('Retry-After')), retryAfter)
	for (const forged of ['203.0.113.9', '127.0.0.1', '192.0.2.2, 127.0.0.1', 'nonsense', '']) {
		assert.equal(await statuses({ 'Test-Client': '192.0.2.1', 'X-Forwarded-For': forged }), 429, `limited no more as ${forged}`)
	}
	assert.equal(await statuses({ 'Test-Client': '192.0.2.2' }), 200, 'somebody else is limited too')
	assert.equal(await statuses({ 'Test-Client': '2001:db8::1' }), 200)

	// What the handler passes on of a request and of an answer.
	const answer = await send(proxy, { 'Test-Client': '192.0.2.3', 'Accept-Language': 'de' })
	assert.match(answer.headers.get('X-Request-Id'), /^[0-9a-f]{32}$/)
	assert.equal(answer.headers.get('Cache-Control'), 'no-store')
	assert.match(JSON.stringify((await resetd.inbox()).mails[0].subject), /zurücksetzen/)
	const client = { 'Test-Client': '192.0.2.4' }
	assert.equal((await send(proxy, { ...client, 'Content-Type': 'text/plain' })).status, 415, 'a form of another site got through')
	assert.equal((await send(proxy, client, 'x'.repeat(17_000))).status, 413)
}

test('without a proxy before it, Next.js itself believes what a client says', async (t) => {
	// This is why docs/apps.md asks for a proxy. If it fails, Next.js has become better: change the page.
	const resetd = await startResetd(t, 'dev', { RATE_LIMIT: '1-H', TRUSTED_PROXIES: 'loopback' })
	const next = await startNext(t, resetd.url)
	assert.equal((await send(next)).status, 200)
	assert.equal((await send(next)).status, 429)
	assert.equal((await send(next, { 'X-Forwarded-For': '203.0.113.9' })).status, 200)
})

test('the page of the Next.js app shows every kind of answer', async (t) => {
	const resetd = await startResetd(t, 'dev', { RATE_LIMIT: '3-H', TRUSTED_PROXIES: 'loopback' })
	const proxy = await startProxy(t, await startNext(t, resetd.url))
	const { page } = await openPage(t, { origins: [proxy], expected: [/status of 400/, /status of 429/, /status of 502/] })
	const button = page.getByRole('button', { name: 'Send the email' })
	const submit = async (email, text) => {
		await page.getByLabel('Email address').fill(email)
		await button.click()
		await page.getByRole('status').filter({ hasText: text }).waitFor()
	}
	await page.goto(`${proxy}/forgot-password`)
	await page.waitForLoadState('networkidle') // React controls the form now
	await submit('nobody', 'Check the highlighted fields and try again.')
	assert.equal(await page.locator('#email-error').innerText(), 'Enter a valid email address.')
	await submit(account, 'If an account exists for that address')
	assert.equal(await page.locator('#email-error').innerText(), '')
	const { mails } = await resetd.inbox()
	assert.match(mails[0].text, new RegExp(`\n${proxy}/reset-password\\?token_hash=`), 'the link does not lead to the app')
	await submit('stranger@example.org', 'If an account exists for that address')
	await submit(account, /^Too many requests\. Try again in 3[56]\d\d s\.$/)
	assert(await button.isDisabled())

	await page.route('**/api/password-reset', (route) => route.fulfill({ status: 502, json: { error: 'x', code: 'email_delivery_failed' } }))
	await page.reload()
	await page.waitForLoadState('networkidle')
	await submit(account, /^No email can be sent right now, to anybody\. Do not wait for one/)
})
