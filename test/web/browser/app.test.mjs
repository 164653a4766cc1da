// An app in development: its page on another port requests the mail from resetd dev, the link leads back to it, and
// supabase-js uses the link at the stand-in, with the code in README.md.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { closeBrowser, openPage, startResetd, startSite } from './harness.mjs'

after(closeBrowser)

const require = createRequire(import.meta.url)
const account = 'ada@example.com'

const folder = mkdtempSync(path.join(tmpdir(), 'resetd-app-'))
after(() => rmSync(folder, { recursive: true }))
const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8')
writeFileSync(path.join(folder, 'page.js'), readme.match(/^```js\n(.*?)^```$/ms)[1])
writeFileSync(path.join(folder, 'supabase.js'), readFileSync(require.resolve('@supabase/supabase-js/dist/umd/supabase.js')))
writeFileSync(path.join(folder, 'reset.html'), `<!doctype html><html lang="en"><title>The app</title><link rel="icon" href="data:,">
<script src="supabase.js"></script>
<script type="module">
	import { setNewPassword } from './page.js'
	window.setNewPassword = setNewPassword
</script>`)

/** Returns what resetd dev prints about its Supabase: the URL and the keys. */
async function keys(resetd) {
	const [, url, publishable, serviceRole] = await resetd.printed(/URL +(\S+)\n +publishable key +(\S+)\n +service_role key +(\S+)\n/)
	return { url, publishable, serviceRole }
}

test('the page of an app, on another port, with the real supabase-js', async (t) => {
	const app = await startSite(t, folder)
	const resetd = await startResetd(t, 'dev', { RESET_PATH: '/reset.html' })
	const { url, publishable } = await keys(resetd)
	assert.equal(url, resetd.url)
	const { page } = await openPage(t, { origins: [app.url, resetd.url], expected: [/status of 403/, /status of 422/, /status of 400/] })

	await page.goto(`${app.url}/reset.html`)
	const status = await page.evaluate(async ([endpoint, email]) => {
		const response = await fetch(endpoint, {
			method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ email, callback_origin: location.origin }),
		})
		return response.status
	}, [resetd.endpoint, account])
	assert.equal(status, 200)
	const [link] = /http:\S+token_hash=\S+/.exec((await resetd.inbox()).mails[0].text)
	assert(link.startsWith(`${app.url}/reset.html?token_hash=`), link)

	const opened = () => page.evaluate(([url, key]) => {
		window.client = window.supabase.createClient(url, key)
	}, [url, publishable])
	await page.goto(link)
	await opened()
	const submit = (password) => page.evaluate((password) => window.setNewPassword(window.client, password), password)
	assert.equal(await submit('short'), 'This password is too easy to guess.')
	assert.equal(await submit('correct horse battery staple'), null)
	const session = () => page.evaluate(async () => {
		const { data, error } = await window.client.auth.getUser()
		return data.user?.email ?? error.name
	})
	assert.equal(await session(), account)
	await page.evaluate(() => window.client.auth.refreshSession())
	assert.equal(await session(), account)
	await page.evaluate(() => window.client.auth.signOut())
	assert.equal(await session(), 'AuthSessionMissingError')
	const signIn = (password) => page.evaluate(async ([email, password]) => {
		const { data, error } = await window.client.auth.signInWithPassword({ email, password })
		return data.user?.email ?? error.code
	}, [account, password])
	assert.equal(await signIn('another horse'), 'invalid_credentials')
	assert.equal(await signIn('correct horse battery staple'), account)

	await page.goto(link)
	await opened()
	assert.equal(await submit('another horse battery staple'), 'This link is invalid or has expired. Ask for another one.')
})

test('the service_role key makes a link, as on the server of an app', async (t) => {
	const resetd = await startResetd(t, 'dev')
	const { url, publishable, serviceRole } = await keys(resetd)
	const { createClient } = require('@supabase/supabase-js')
	// Node 20 has no WebSocket, which the client needs.
	const make = (key) => createClient(url, key, { auth: { persistSession: false }, realtime: { transport: class {} } }).auth.admin.generateLink({ type: 'recovery', email: account })
	const { data, error } = await make(serviceRole)
	assert.equal(error, null)
	assert.equal(data.properties.verification_type, 'recovery')
	const refused = await make(publishable)
	assert.equal(refused.data.properties, null)
})
