// The way of a user: the mail arrives in the inbox of resetd dev, its link leads to a page, and the password is set
// once.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { closeBrowser, expectAccessible, expectFits, openPage, startResetd } from './harness.mjs'

after(closeBrowser)

const account = 'hello@example.com'

async function ask(resetd, email) {
	const answer = await fetch(resetd.endpoint, {
		method: 'POST', headers: { 'Content-Type': 'application/json' },
		body: JSON.stringify({ email, callback_origin: 'example' }),
	})
	assert.equal(answer.status, 200)
}

for (const [name, look] of Object.entries({
	'a desk': {},
	'a phone': { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
})) {
	test(`a mail arrives, and its link sets a password once, on ${name}`, async (t) => {
		const resetd = await startResetd(t, 'dev')
		const { page, context } = await openPage(t, {
			origins: [resetd.url], ...look,
			expected: [/status of 403.* at .*\/dev\/reset-password$/],
		})
		await page.goto(`${resetd.url}/dev/inbox`)
		await page.getByRole('heading', { name: 'Waiting for the first mail' }).waitFor()
		await page.locator('#status[data-state=live]').waitFor()
		await expectAccessible(page, 'an empty inbox')
		await expectFits(page, 'an empty inbox')

		await ask(resetd, account)
		const row = page.locator('.mails a')
		await row.waitFor() // it appears without a reload
		assert.match(await row.innerText(), new RegExp(account))
		await expectAccessible(page, 'an inbox')
		await expectFits(page, 'an inbox')

		await row.click()
		const mail = page.frameLocator('iframe[title="HTML of the message"]')
		const link = mail.getByRole('link').filter({ hasText: /password/i }).first()
		await link.waitFor()
		await expectFits(page, 'an open mail')
		const [tab] = await Promise.all([context.waitForEvent('page'), link.click()])
		await tab.getByRole('heading', { name: 'Choose a new password' }).waitFor()
		const address = tab.url()
		assert.match(address, new RegExp(`^${resetd.url}/dev/reset-password\\?token_hash=[0-9a-f]{56}&type=recovery$`))
		await tab.reload() // like a mail scanner, which does not use the link up
		assert.equal(await tab.evaluate(() => document.referrer), '')
		await expectAccessible(tab, 'a new password')
		await expectFits(tab, 'a new password')

		const password = tab.getByLabel('New password')
		await password.fill('12345')
		await password.press('Enter')
		assert.equal(await password.evaluate((field) => field.validity.tooShort), true)
		assert.equal(tab.url(), address, 'too short a password was sent')
		await password.fill('correct horse battery staple')
		await password.press('Enter')
		await tab.getByRole('heading', { name: 'Your password is changed' }).waitFor()
		await expectAccessible(tab, 'a changed password')

		const again = await context.newPage()
		await again.goto(address)
		await again.getByLabel('New password').fill('correct horse battery staple 2')
		await again.getByRole('button').click()
		await again.getByRole('heading', { name: 'This link is invalid or has expired' }).waitFor()
		assert.equal(await again.locator('input').count(), 0)
		await expectAccessible(again, 'a link that is used up')
		await expectFits(again, 'a link that is used up')
	})
}

test('the page stands in for a hash router\'s, too, and a password that is too easy may be corrected', async (t) => {
	const resetd = await startResetd(t, 'dev')
	const { page } = await openPage(t, { origins: [resetd.url], expected: [/status of 422/] })
	await ask(resetd, account)
	const [link] = /token_hash=\S+/.exec((await resetd.inbox()).mails[0].text)
	await page.goto(`${resetd.url}/reset-password#/reset?${link}`)
	await page.getByRole('heading', { name: 'Choose a new password' }).waitFor()
	assert.equal(page.url(), `${resetd.url}/dev/reset-password`, 'the token stays in the address')
	const password = page.getByLabel('New password')
	await password.evaluate((field) => field.removeAttribute('minlength'))
	await password.fill('short')
	await password.press('Enter')
	await page.getByText('Password should be at least 6 characters.').waitFor()
	assert.equal(await page.locator('#email').innerText(), account)
	await expectAccessible(page, 'a refused password')
	await password.fill('correct horse battery staple')
	await password.press('Enter')
	await page.getByRole('heading', { name: 'Your password is changed' }).waitFor()
})

test('a second mail makes the link of the first one invalid', async (t) => {
	const resetd = await startResetd(t, 'dev')
	const { page } = await openPage(t, { origins: [resetd.url], expected: [/status of 403/] })
	await ask(resetd, account)
	await resetd.inbox() // a second request replaces an undelivered one
	await ask(resetd, account)
	const links = (await resetd.inbox()).mails.map((mail) => /http:\S+token_hash=\S+/.exec(mail.text)[0])
	assert.equal(new Set(links).size, 2)
	const [newest, oldest] = links
	for (const [link, said] of [[oldest, 'This link is invalid or has expired'], [newest, 'Your password is changed']]) {
		await page.goto(link)
		await page.getByLabel('New password').fill('correct horse battery staple')
		await page.getByRole('button').click()
		await page.getByRole('heading', { name: said }).waitFor()
	}
})

test('for an address without an account nothing is delivered, and the inbox says why', async (t) => {
	const resetd = await startResetd(t, 'dev')
	const { page } = await openPage(t, { origins: [resetd.url] })
	await page.goto(`${resetd.url}/dev/inbox`)
	await page.locator('#status[data-state=live]').waitFor()
	await ask(resetd, 'nobody@example.org')
	const { mails, tests } = await resetd.inbox()
	assert.deepEqual(mails, [])
	assert.equal(tests.length, 1) // the first request starts the test message
	await page.getByText('An address without an account gets no mail.').waitFor()
	assert.doesNotMatch(await page.locator('body').innerText(), /nobody@example\.org/)

	await page.getByRole('link', { name: 'Never delivered' }).click()
	const row = page.locator('.mails a')
	await row.waitFor()
	assert.match(await row.innerText(), /no-reply@mg\.example\.com/)
	assert.doesNotMatch(await page.locator('body').innerText(), /nobody@example\.org/)
	await expectAccessible(page, 'the test messages')
	await expectFits(page, 'the test messages')
})
