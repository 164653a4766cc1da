// The preview of resetd dev: the mail before it is sent, with switches, and templates that change while somebody
// looks.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { closeBrowser, expectAccessible, expectFits, openPage, startResetd } from './harness.mjs'

after(closeBrowser)

for (const [name, look] of Object.entries({
	'a desk': {},
	'a phone in the dark': { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, colorScheme: 'dark' },
	'a browser without scripts': { javaScriptEnabled: false },
})) {
	test(`the preview has switches, on ${name}`, async (t) => {
		const resetd = await startResetd(t, 'dev', { BRAND_NAME: 'Acme Inc.' })
		const { page } = await openPage(t, { origins: [resetd.url], ...look })
		const scripts = look.javaScriptEnabled !== false
		const changed = async (choose) => {
			const read = page.waitForEvent('load')
			await choose()
			if (!scripts) {
				await page.getByRole('button', { name: 'Show' }).click()
			}
			await read
		}
		const checked = async (state) => {
			if (scripts) { // axe runs in the page
				await expectAccessible(page, state)
				await expectFits(page, state)
			}
		}
		const frame = page.frameLocator('iframe[title="HTML of the mail"]')
		const ground = async () => (await frame.locator('body').evaluate((body) => getComputedStyle(body).backgroundColor))

		await page.goto(`${resetd.url}/dev/inbox`)
		await page.getByRole('link', { name: 'Preview' }).click()
		const row = page.locator('.listed')
		assert.match(await row.innerText(), /^Acme Inc\.\s+Reset your Acme Inc\. password The link works once and is valid for 1 hour\.$/)
		await frame.getByRole('heading', { name: 'Reset your password' }).waitFor()
		assert.equal(await ground(), 'rgb(243, 244, 246)')
		await checked('the preview')

		await changed(() => page.getByLabel('Language').selectOption('ar'))
		assert.equal(await frame.locator('html').getAttribute('dir'), 'rtl')
		assert.equal(await row.locator('> span').evaluate((span) => getComputedStyle(span).direction), 'rtl')
		await changed(() => page.getByLabel('Look').selectOption('dark'))
		assert.equal(await ground(), 'rgb(16, 18, 22)')
		await changed(() => page.getByLabel('Width').selectOption('phone'))
		const width = await page.locator('iframe').evaluate((element) => element.getBoundingClientRect().width)
		assert(width <= 375 && width > 300, String(width))
		await checked('the preview, in Arabic, dark and narrow')

		await page.locator('summary').click()
		await changed(async () => {
			const colour = page.getByLabel('BRAND_COLOR')
			await colour.fill('#b3261e')
			if (scripts) {
				await colour.press('Enter')
			}
		})
		assert.equal(await frame.locator('a.button').evaluate((a) => getComputedStyle(a).backgroundColor), 'rgb(179, 38, 30)')
		assert.equal(await page.getByLabel('Language').inputValue(), 'ar')

		await changed(() => page.getByLabel('Part').selectOption('text'))
		assert.match(await page.locator('pre.text').innerText(), /token_hash=0{56}/)
		await checked('the text part')
		await page.getByRole('link', { name: 'As it is set' }).click()
		await frame.locator('a.button').waitFor()
		assert.equal(await frame.locator('a.button').evaluate((a) => getComputedStyle(a).backgroundColor), 'rgb(31, 86, 216)')
	})
}

test('an edited template shows by itself, and its mistakes too', async (t) => {
	const folder = mkdtempSync(path.join(tmpdir(), 'resetd-templates-'))
	t.after(() => rmSync(folder, { recursive: true }))
	const resetd = await startResetd(t, 'dev', { TEMPLATES_DIR: folder })
	const { page } = await openPage(t, { origins: [resetd.url], expected: [/status of 422/] })
	await page.goto(`${resetd.url}/dev/preview`)
	const write = (subject) => writeFileSync(path.join(folder, 'en.tmpl'), `{{define "subject"}}${subject}{{end}}`)
	write('Forgot something?')
	await page.locator('.listed').getByText('Forgot something?').waitFor()
	write('{{.Nonsense}}')
	await page.getByRole('heading', { name: 'The mail cannot be written' }).waitFor()
	assert.match(await page.getByRole('alert').innerText(), /TEMPLATES_DIR: .*en\.tmpl/)
	await expectAccessible(page, 'mistakes')
	write('Once more')
	await page.locator('.listed').getByText('Once more').waitFor()
})
