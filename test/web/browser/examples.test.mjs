// The plain pages of docs/examples, on another origin, with the real server.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { closeBrowser, expectAccessible, expectFits, openPage, startResetd, startSite } from './harness.mjs'

after(closeBrowser)

const require = createRequire(import.meta.url)
const folder = fileURLToPath(new URL('../../../docs/examples/html', import.meta.url))
const account = 'hello@example.com'
const told = 'If an account exists for that address, a password reset email is on its way.'

/** Opens forgot-password.html with the endpoint of a resetd, or of a server in its place. */
async function openForm(t, { url, endpoint }, expected) {
	const site = await startSite(t, folder, (text) => {
		const edited = text.replace('http://localhost:8080/api/auth/send-password-reset', endpoint)
		assert.notEqual(edited, text)
		return edited
	})
	const { page } = await openPage(t, { origins: [site.url, url], expected })
	await page.goto(`${site.url}/forgot-password.html`)
	return {
		site, page,
		button: page.getByRole('button'), email: page.getByLabel('Email address'), error: page.locator('#email-error'),
		async send(email) {
			await page.getByLabel('Email address').fill(email)
			await page.getByRole('button').click()
		},
		async expectSaid(text) {
			await page.locator('#status').filter({ hasText: text }).waitFor()
		},
	}
}

test('the plain form says what is wrong beside the field, and the same for every address', async (t) => {
	const resetd = await startResetd(t, 'dev')
	const form = await openForm(t, resetd, [/status of 400/])
	await expectAccessible(form.page, 'the empty form')
	await form.send('nobody')
	await form.expectSaid('Check the highlighted fields and try again.')
	assert.equal(await form.error.innerText(), 'Enter a valid email address.')
	assert.equal(await form.email.getAttribute('aria-invalid'), 'true')
	await expectAccessible(form.page, 'an invalid address')
	await expectFits(form.page, 'an invalid address')

	for (const email of [account, 'stranger@example.org']) {
		await form.send(email)
		await form.expectSaid(told)
		assert.equal(await form.error.innerText(), '')
		assert.equal(await form.email.getAttribute('aria-invalid'), 'false')
	}
	const { mails } = await resetd.inbox()
	assert.deepEqual(mails.map((mail) => mail.to), [[account]])
	assert.match(mails[0].text, new RegExp(`\n${form.site.url}/reset-password\\?token_hash=`), 'the link does not lead to the app')
})

test('the plain form says how long to wait, and lets nobody send until then', async (t) => {
	const resetd = await startResetd(t, 'dev', { RATE_LIMIT: '1-H' })
	const form = await openForm(t, resetd, [/status of 429/])
	await form.page.clock.install()
	await form.send(account)
	await form.expectSaid(told)
	await form.send(account)
	await form.expectSaid(/^Too many requests\. Try again in 3[56]\d\d s\.$/)
	assert(await form.button.isDisabled())
	await form.page.clock.pauseAt(await form.page.evaluate(() => Date.now() + 1000))
	await form.page.clock.runFor(3_600_000)
	await form.expectSaid('You can try again now.')
	assert(!await form.button.isDisabled())
})

test('the plain form lets nobody wait for a mail that does not come', async (t) => {
	// These are the answers of openapi.yaml. Other tests check that the real server gives them.
	const { paths } = await (await fetch(`${(await startResetd(t, 'serve')).url}/api/openapi.json`)).json()
	const { responses } = paths['/auth/send-password-reset'].post
	for (const status of ['500', '502', '503']) {
		const [{ value: body }] = Object.values(responses[status].content['application/json'].examples)
		const form = await openForm(t, await startOther(t, Number(status), JSON.stringify(body)), [new RegExp(`status of ${status}`)])
		await form.send(account)
		await form.expectSaid(/^No email can be sent right now, to anybody\. Do not wait for one/)
		assert(!await form.button.isDisabled())
	}
})

test('the plain form says so when something else answers, or nothing, or may not be read', async (t) => {
	for (const [status, body] of [[502, '<h1>Bad Gateway</h1>'], [200, '<h1>Sign in to the network</h1>']]) {
		const form = await openForm(t, await startOther(t, status, body), status === 502 ? [/status of 502/] : [])
		await form.send(account)
		await form.expectSaid(/could not be reached/)
	}
	const resetd = await startResetd(t, 'serve', { CORS_ORIGINS: 'https://elsewhere.example.com' })
	const form = await openForm(t, resetd, [/blocked by CORS policy/, /net::ERR_FAILED/])
	await form.send(account)
	await form.expectSaid(/could not be reached/)
	assert(!await form.button.isDisabled())
})

test('the page behind the link does nothing until it is submitted, and says what is wrong', async (t) => {
	const resetd = await startResetd(t, 'dev', { RESET_PATH: '/reset-password.html' })
	const [, url, key] = await resetd.printed(/URL +(\S+)\n +publishable key +(\S+)\n/)
	const umd = await readFile(require.resolve('@supabase/supabase-js/dist/umd/supabase.js'), 'utf8')
	const site = await startSite(t, folder, (text) => text
		.replace('https://PROJECT.supabase.co', url).replace('sb_publishable_…', key))
	const { page, requests } = await openPage(t, { origins: [site.url, resetd.url], expected: [/status of 403/, /status of 422/] })
	await page.route('**/supabase.js', (route) => route.fulfill({ body: umd, contentType: 'text/javascript' }))
	await fetch(resetd.endpoint, {
		method: 'POST', headers: { 'Content-Type': 'application/json' },
		body: JSON.stringify({ email: account, callback_origin: site.url }),
	})
	const [link] = /http:\S+token_hash=\S+/.exec((await resetd.inbox()).mails[0].text)
	const submit = async (password, text) => {
		await page.getByLabel('New password').fill(password)
		await page.getByRole('button').click()
		await page.locator('#status').filter({ hasText: text }).waitFor()
	}
	for (let opened = 0; opened < 2; opened++) { // a mail scanner, and the user
		await page.goto(link)
		await expectAccessible(page, 'the page behind the link')
	}
	assert.deepEqual(requests.filter((request) => request.startsWith(url)), [], 'it was used up by opening it')
	await submit('short', 'This password is too easy to guess.')
	await submit('correct horse battery staple', 'Your password is changed.')
	assert.equal(new URL(page.url()).search, '', 'the token stays in the address')
	await page.goto(link)
	await submit('another horse battery staple', 'This link is invalid or has expired. Ask for another one.')
})

/** Starts a server in resetd's place that lets every page call, and has one answer. */
async function startOther(t, status, body) {
	const server = createServer((request, response) => {
		response.writeHead(request.method === 'OPTIONS' ? 204 : status, { 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': 'content-type' }).end(body)
	})
	await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
	t.after(() => {
		server.close()
		server.closeAllConnections()
	})
	const url = `http://localhost:${server.address().port}`
	return { url, endpoint: `${url}/api/auth/send-password-reset` }
}
