// The example form of ../client, as built in dist/ by `npm run build`, on another origin.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { closeBrowser, expectAccessible, expectFits, openPage, startResetd, startSite } from './harness.mjs'

after(closeBrowser)

const dist = fileURLToPath(new URL('../client/dist', import.meta.url))
const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }

async function openForm(t, settings = {}, { expected, ...look } = {}) {
	assert(existsSync(`${dist}/form.js`), 'the form is not built: npm run build in test/web')
	const site = await startSite(t, dist)
	const resetd = await startResetd(t, 'dev', { CORS_ORIGINS: site.url, ...settings })
	const opened = await openPage(t, { origins: [site.url, resetd.url], expected, ...look })
	const { page } = opened
	const form = {
		resetd, page,
		email: page.locator('#email'), error: page.locator('#email-error'),
		submit: page.locator('#submit'), status: page.locator('#form-status'),
		/** Waits until the form is ready for the next request, and returns what it says. */
		async said() {
			await page.waitForFunction(() => !/^(Sending.*)?$/.test(document.querySelector('#form-status').textContent))
			return form.status.innerText()
		},
	}
	await page.goto(`${site.url}/form.html?api=${encodeURIComponent(`${resetd.url}/api`)}`)
	await page.waitForFunction(() => document.querySelector('form').noValidate) // its script has run
	return form
}

for (const [name, look] of Object.entries({ 'a desk': {}, 'a phone': phone })) {
	test(`the form says what is wrong beside the field, and what was done, on ${name}`, async (t) => {
		const { page, resetd, ...form } = await openForm(t, {}, { expected: [/status of 400/], ...look })
		assert.equal(await form.error.isVisible(), false)
		await expectAccessible(page, 'the empty form')
		await expectFits(page, 'the empty form')

		await form.email.fill('nobody')
		await form.submit.click()
		await form.error.waitFor()
		assert.equal(await form.error.innerText(), 'Enter a valid email address.')
		assert.equal(await form.email.getAttribute('aria-invalid'), 'true')
		assert.equal(await form.email.getAttribute('aria-describedby'), 'email-error')
		const [field, error, button] = await Promise.all([form.email, form.error, form.submit].map((part) => part.boundingBox()))
		assert(error.y >= field.y + field.height && error.y + error.height <= button.y, 'the error is not between the field and the button')
		assert.match(await form.said(), /\w/)
		assert.equal(await form.status.getAttribute('role'), 'alert')
		assert(await form.email.evaluate((input) => input === document.activeElement), 'the field does not have the focus')
		await expectAccessible(page, 'an invalid address')
		await expectFits(page, 'an invalid address')
		assert.deepEqual((await resetd.inbox()).mails, [])

		await form.email.fill('hello@example.com')
		await form.submit.click()
		await form.error.waitFor({ state: 'hidden' })
		assert.match(await form.said(), /^If an account exists for that address/)
		assert.equal(await form.status.getAttribute('role'), 'status')
		assert.equal(await form.email.getAttribute('aria-invalid'), null)
		assert.equal(await form.email.inputValue(), '')
		await expectAccessible(page, 'an acknowledged request')
		await expectFits(page, 'an acknowledged request')
		const { mails } = await resetd.inbox()
		assert.deepEqual(mails.map((mail) => mail.to), [['hello@example.com']])
	})
}

test('the form says how long to wait, and lets nobody send until then', async (t) => {
	const { page, resetd, ...form } = await openForm(t, { RATE_LIMIT: '1-H' }, { expected: [/status of 429/] })
	await page.clock.install()
	await form.email.fill('hello@example.com')
	await form.submit.click()
	await form.said()
	await form.email.fill('hello@example.com')
	await form.submit.click()
	await page.waitForFunction(() => /Too many requests/.test(document.querySelector('#form-status').textContent))
	const left = async () => Number(/^Too many requests\. Try again in (\d+) seconds\.$/.exec(await form.status.innerText())?.[1])
	const wait = await left()
	assert(wait > 3500 && wait <= 3600, `a wait of ${wait} s`)
	assert.equal(await form.submit.getAttribute('aria-disabled'), 'true')
	await expectAccessible(page, 'a wait')
	await expectFits(page, 'a wait')

	// From here on, only runFor advances the page's time.
	await page.clock.pauseAt(await page.evaluate(() => Date.now() + 1000))
	const before = await resetd.answers()
	const then = await left()
	await form.submit.click({ force: true })
	await form.email.press('Enter')
	await page.clock.runFor(60_000)
	assert.equal(await left(), then - 60)
	assert.deepEqual(await resetd.answers(), before, 'it was sent before the time')
	await page.clock.runFor((then - 60) * 1000 + 250)
	assert.equal(await form.status.innerText(), 'You can try again now.')
	assert.equal(await form.submit.getAttribute('aria-disabled'), 'false')
	await page.clock.resume()
	await expectAccessible(page, 'the end of a wait')
})

test('the form works by keyboard alone', async (t) => {
	const { page, ...form } = await openForm(t, {}, { expected: [/status of 400/] })
	const focused = () => page.evaluate(() => document.activeElement.id)
	const outlined = () => page.evaluate(() => {
		const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement)
		return outlineStyle !== 'none' && parseFloat(outlineWidth) > 0
	})
	await page.keyboard.press('Tab')
	assert.equal(await focused(), 'email')
	assert(await outlined(), 'the focus is not to be seen')
	await page.keyboard.type('nobody')
	await page.keyboard.press('Tab')
	assert.equal(await focused(), 'submit')
	assert(await outlined(), 'the focus is not to be seen')
	await page.keyboard.press('Space')
	await form.error.waitFor()
	assert.equal(await focused(), 'email')
	await page.keyboard.press('ControlOrMeta+a')
	await page.keyboard.type('hello@example.com')
	await page.keyboard.press('Enter')
	await form.error.waitFor({ state: 'hidden' })
	assert.match(await form.said(), /^If an account exists/)
	assert.equal(await focused(), 'email')
})

test('the form says so when there is no server', async (t) => {
	const { page, resetd, ...form } = await openForm(t, {}, { expected: [/net::ERR_FAILED/] })
	await page.route(`${resetd.url}/**`, (route) => route.abort('failed'))
	await form.email.fill('hello@example.com')
	await form.submit.click()
	assert.match(await form.said(), /could not be reached/)
	assert.equal(await form.submit.getAttribute('aria-disabled'), 'false')
	await expectAccessible(page, 'no answer')
	await expectFits(page, 'no answer')
})
