// Takes the pictures of README.md again, into docs/pictures. Run it by hand after a change that they show:
//
//	go build -o bin/resetd ./cmd/resetd
//	npm --prefix test/web run build && ./test/node.sh tsc -p test/web/client/test
//	RESETD=bin/resetd ./test/node.sh node test/web/pictures.mjs
import { after, test } from 'node:test'
import { closeBrowser, openPage, startResetd } from './browser/harness.mjs'

after(closeBrowser)

test('pictures', async (t) => {
	const resetd = await startResetd(t, 'dev')
	const { page } = await openPage(t, { origins: [resetd.url], viewport: { width: 940, height: 640 } })
	const picture = (name) => page.screenshot({ path: new URL(`../../docs/pictures/${name}.png`, import.meta.url).pathname })

	for (const [email, language] of [['ada@example.com', 'ja'], ['Grace.Hopper@example.com', 'ar'], ['hello@example.com', 'en']]) {
		await fetch(resetd.endpoint, {
			method: 'POST', headers: { 'Content-Type': 'application/json', 'Accept-Language': language }, body: JSON.stringify({ email }),
		})
		await resetd.inbox()
	}
	await page.goto(`${resetd.url}/dev/inbox`)
	await page.locator('.mails a').first().click()
	await page.frameLocator('iframe').locator('a.button').waitFor()
	await page.locator('#status[data-state=live]').waitFor()
	await picture('inbox')

	await page.goto(`${resetd.url}/dev/preview?language=de&look=dark&BRAND_NAME=Acme+Inc.&BRAND_COLOR=%23b3261e`)
	await page.frameLocator('iframe').locator('a.button').waitFor()
	await picture('preview')

	await page.goto(`${resetd.url}/api/docs`)
	await page.getByText('With curl').evaluate((title) => title.closest('.card').querySelector('.part').scrollIntoView())
	await page.evaluate(() => scrollBy(0, -8))
	await picture('api')
})
