// The API reference page at /api/docs, in a browser.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { closeBrowser, expectAccessible, expectFits, openPage, startResetd } from './harness.mjs'

after(closeBrowser)

const looks = {
	'a desk': { viewport: { width: 1280, height: 900 } },
	'a phone': { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
	'a phone in the dark': { viewport: { width: 360, height: 740 }, colorScheme: 'dark' },
	'a narrow window': { viewport: { width: 320, height: 640 } }, // WCAG 2.2, 1.4.10
	'a browser without scripts': { viewport: { width: 360, height: 740 }, javaScriptEnabled: false },
}

for (const [name, look] of Object.entries(looks)) {
	test(`the reference is readable on ${name}`, async (t) => {
		const resetd = await startResetd(t, 'serve')
		const document = await (await fetch(`${resetd.url}/api/openapi.json`)).json()
		const { page, requests } = await openPage(t, { origins: [resetd.url], ...look })
		const answer = await page.goto(`${resetd.url}/api/docs`)
		assert.equal(answer.status(), 200)

		assert.equal(await page.locator('h1').count(), 1)
		await expectVisible(page.getByRole('heading', { name: 'Send password reset email' }))
		await expectVisible(page.getByText('POST /api/auth/send-password-reset', { exact: true }))
		await expectVisible(page.getByText('First-party recovery email via admin generateLink'))
		const request = document.components.schemas.SendPasswordResetRequest
		for (const member of Object.keys(request.properties)) {
			await expectVisible(page.locator('dt').getByText(member, { exact: true }))
		}
		await expectVisible(page.locator('pre').getByText(/^curl -i https:\/\/example\.com\/api\/auth\/send-password-reset/))
		const { examples } = document.paths['/auth/send-password-reset'].post.requestBody.content['application/json']
		await expectVisible(page.getByText(examples.app.summary))
		const { responses } = document.paths['/auth/send-password-reset'].post
		assert(Object.keys(responses).length >= 8)
		for (const status of Object.keys(responses)) {
			const part = page.getByRole('article', { name: new RegExp(`^${status} \\w+`) })
			await expectVisible(part)
			await expectVisible(part.locator('pre').first())
			const link = page.getByRole('navigation').getByRole('link', { name: new RegExp(`^${status}`) })
			await link.click()
			assert.equal(new URL(page.url()).hash, `#sendPasswordReset-${status}`)
			assert(await isInView(part), `the link to ${status} does not lead there`)
		}
		assert.deepEqual(requests, [`${resetd.url}/api/docs`], 'the page loads more than itself')
		if (look.javaScriptEnabled !== false) { // axe runs in the page
			assert.equal(await page.evaluate(() => getComputedStyle(document.body).maxWidth), '832px', 'the style was refused')
			await expectFits(page, name)
			await expectAccessible(page, name)
		}
	})
}

test('the reference links to the document that it was written from', async (t) => {
	const resetd = await startResetd(t, 'serve')
	const { page } = await openPage(t, { origins: [resetd.url] })
	for (const entry of ['/api/docs', '/api/docs/']) {
		await page.goto(resetd.url + entry)
		assert.equal(page.url(), `${resetd.url}/api/docs`)
		await page.getByRole('link', { name: 'openapi.json' }).click()
		await page.waitForURL(`${resetd.url}/api/openapi.json`)
		assert.match(await page.locator('body').innerText(), /"openapi":\s*"3\.0\.3"/)
	}
})

test('every link within the reference leads somewhere', async (t) => {
	const resetd = await startResetd(t, 'serve')
	const { page } = await openPage(t, { origins: [resetd.url] })
	await page.goto(`${resetd.url}/api/docs`)
	const { links, dead } = await page.evaluate(() => {
		const links = [...document.querySelectorAll('a[href^="#"]')]
		return { links: links.length, dead: links.filter((a) => !document.getElementById(a.hash.slice(1))).map((a) => a.hash) }
	})
	assert(links > 10)
	assert.deepEqual(dead, [])
})

test('the policy of the reference holds against what gets into it', async (t) => {
	const resetd = await startResetd(t, 'serve')
	const { page } = await openPage(t, {
		origins: [resetd.url],
		expected: [
			/^policy: script-src-elem refused inline$/, /^policy: script-src-attr refused inline$/,
			/^policy: style-src-attr refused inline$/, /^policy: style-src-elem refused inline$/,
			/^policy: connect-src refused/, /^policy: form-action refused/, /^policy: base-uri refused/,
			/Content Security Policy/,
		],
	})
	await page.goto(`${resetd.url}/api/docs`)
	const after = await page.evaluate(async () => {
		const add = (name, attributes, text) => {
			const element = document.createElement(name)
			for (const [key, value] of Object.entries(attributes)) {
				element.setAttribute(key, value)
			}
			element.textContent = text
			document.body.append(element)
			return element
		}
		add('script', {}, 'window.ran = "script"')
		add('button', { onclick: 'window.ran = "attribute"', style: 'position: fixed' }, 'press').click()
		add('style', {}, 'h1 { display: none }')
		add('form', { action: 'https://elsewhere.example/', method: 'post' }, '').submit()
		add('base', { href: 'https://elsewhere.example/' }, '')
		await fetch('/api/auth/send-password-reset', { method: 'POST' }).catch(() => {})
		return {
			ran: window.ran,
			button: getComputedStyle(document.querySelector('button')).position,
			heading: getComputedStyle(document.querySelector('h1')).display,
			base: document.baseURI,
		}
	})
	assert.deepEqual(after, { ran: undefined, button: 'static', heading: 'block', base: `${resetd.url}/api/docs` })
	assert.equal(page.url(), `${resetd.url}/api/docs`)
	assert.deepEqual(await resetd.answers(), ['GET 200'])
})

test('no other page can put the reference into a frame', async (t) => {
	const resetd = await startResetd(t, 'serve')
	const { page } = await openPage(t, { origins: [resetd.url], expected: [/frame-ancestors 'none'/] })
	await page.goto(`${resetd.url}/api/openapi.json`) // also on a page of the same origin
	await page.evaluate((src) => new Promise((loaded) => {
		const frame = document.createElement('iframe')
		frame.addEventListener('load', loaded)
		frame.src = src
		document.body.append(frame)
	}), `${resetd.url}/api/docs`)
	assert.doesNotMatch(await page.frames()[1].content(), /Send password reset email/)
})

test('API_DOCS=off leaves nothing of it', async (t) => {
	const resetd = await startResetd(t, 'serve', { API_DOCS: 'off' })
	const { page } = await openPage(t, { origins: [resetd.url], expected: [/status of 404.* at .*\/api\/docs$/] })
	const answer = await page.goto(`${resetd.url}/api/docs`)
	assert.equal(answer.status(), 404)
	assert.equal((await answer.json()).code, 'not_found')
})

async function expectVisible(locator) {
	assert(await locator.first().isVisible(), `${locator} is not to be seen`)
}

async function isInView(locator) {
	const box = await locator.boundingBox()
	const { height } = locator.page().viewportSize()
	return box.y < height && box.y + box.height > 0
}
