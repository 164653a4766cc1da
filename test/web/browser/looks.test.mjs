// How the mail looks, in every language, in Chromium: on a desktop, on phones, on a dark ground, in forced colours,
// and without pictures.
//
// Nothing is compared with pictures from other machines, which show the fonts of those machines. The tests measure
// the page. Where only a picture can tell, they compare two pictures of the same browser. `make mails` compares all
// pictures with those of an earlier revision.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { caniemail } from 'caniemail'
import pixelmatch from 'pixelmatch'
import { PNG } from 'pngjs'
import { closeBrowser, expectAccessible, expectFits, openPage } from './harness.mjs'
import { goldens, languages, serveLogos, views } from './mails.mjs'

after(closeBrowser)

/** Checks what every mail must have, by measuring. */
function measure() {
	const box = (element) => element?.getBoundingClientRect().toJSON()
	const button = document.querySelector('.button')
	const words = document.createRange()
	words.selectNodeContents(button)
	const card = document.querySelector('.card')
	const inner = box(card)
	const { paddingLeft, paddingRight, borderLeftWidth: border } = getComputedStyle(card)
	const heading = document.createRange()
	heading.selectNodeContents(document.querySelector('h1'))
	const clipped = [...document.querySelectorAll('p, h1, td, a')].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
	return {
		lines: new Set([...words.getClientRects()].filter((r) => r.width > 1).map((r) => Math.round(r.top))).size,
		button: box(button), cell: box(button.closest('td')),
		inside: { left: inner.left + parseFloat(border) + parseFloat(paddingLeft), right: inner.right - parseFloat(border) - parseFloat(paddingRight) },
		heading: heading.getBoundingClientRect().toJSON(),
		dir: document.documentElement.dir,
		clipped: clipped.map((e) => e.outerHTML.slice(0, 100)),
	}
}

for (const view of views) {
	test(`every language, ${view.name}`, async (t) => {
		const { page } = await openPage(t, { origins: ['https://app.example.com'], ...view.options })
		await serveLogos(page)
		for (const language of languages) {
			const state = `${language}, ${view.name}`
			await page.setContent(goldens(`full.${language}.html`), { waitUntil: 'load' })
			await expectFits(page, state)
			const seen = await page.evaluate(measure)
			const most = page.viewportSize().width < 375 ? 2 : 1
			assert(seen.lines >= 1 && seen.lines <= most, `${state}: the button has ${seen.lines} lines`)
			assert.deepEqual(seen.clipped, [], `${state}: text is cut off`)
			// The button's whole cell is a link, large enough for a thumb.
			assert(Math.abs(seen.button.width - seen.cell.width) < 1 && Math.abs(seen.button.height - seen.cell.height) < 1, `${state}: the link does not fill the button`)
			assert(seen.button.height >= 44, `${state}: the button is ${seen.button.height} px high`)
			if (view.phone) {
				assert(Math.abs(seen.button.left - seen.inside.left) < 1 && Math.abs(seen.button.right - seen.inside.right) < 1, `${state}: the button is not as wide as the text`)
			}
			const rtl = language === 'ar'
			assert.equal(seen.dir, rtl ? 'rtl' : 'ltr', state)
			const edge = rtl ? seen.inside.right - seen.heading.right : seen.heading.left - seen.inside.left
			assert(Math.abs(edge) < 2, `${state}: the heading begins ${edge} px away from where lines begin`)
			if (!view.forced) {
				await expectAccessible(page, state, ['color-contrast', 'target-size', 'link-name', 'image-alt', 'html-has-lang', 'valid-lang', 'document-title'])
			}
		}
	})
}

/** Returns the picture of an element, and how many of its pixels differ from another picture. */
const picture = async (locator) => PNG.sync.read(await locator.screenshot({ animations: 'disabled' }))
function differing(a, b) {
	assert.deepEqual([a.width, a.height], [b.width, b.height], 'pictures of two sizes')
	return pixelmatch(a.data, b.data, undefined, a.width, a.height, { threshold: 0.1 })
}

// Parts of the mail that some mail programs do not support, by caniemail.com, and how the mail works without. The
// test fails if a program lacks any other part.
const missing = {
	'color-scheme CSS property': 'asks Apple Mail not to change colours by itself; where it is not known, that happens',
	'color-scheme meta tag': 'likewise',
	'<bdi> element': 'sets the name apart, which Unicode characters beside it do as well',
	'@media': 'dark colours and a phone\'s margins are additions',
	'<style> element': 'likewise',
	'Class selector': 'likewise',
	'<body> element': 'its ground is that of the table in it as well',
	'display:none': 'the preheader is 1 pixel high, and in the colour of its ground',
	overflow: 'likewise',
	'max-height property': 'likewise; the logo has an attribute for its height',
	'border-radius': 'corners are square then',
	'overflow-wrap': 'Korean words are shorter than a line',
	'word-break': 'a long link widens its cell',
	'height property': 'the rule is a little higher',
	'aria-label attribute': 'the heading says the same',
	'role attribute': 'tables are read out as tables there, with one cell each',
}

test('mail programs know what the mail has', () => {
	const clients = ['apple-mail.*', 'gmail.*', 'outlook.*', 'samsung-email.*', 'yahoo.*']
	for (const language of ['en', 'ar', 'ko']) {
		const { issues } = caniemail({ clients, html: goldens(`full.${language}.html`) })
		const news = new Set()
		for (const [client, found] of issues.errors) {
			for (const { title } of found.filter((issue) => !(issue.title in missing))) {
				news.add(`${client}: ${title}`)
			}
		}
		assert.deepEqual([...news], [], language)
		assert(issues.errors.size > 3, 'caniemail finds nothing at all')
	}
})

test('in forced colours the button keeps its shape', async (t) => {
	const { page } = await openPage(t, { origins: ['https://app.example.com'], forcedColors: 'active' })
	await serveLogos(page)
	await page.setContent(goldens('full.en.html'))
	const cell = page.locator('.action')
	const shaped = await picture(cell)
	await page.addStyleTag({ content: '.button { border-color: Canvas !important; forced-color-adjust: none; background: Canvas !important; color: LinkText !important }' })
	const without = await picture(cell)
	const around = 2 * (shaped.width + shaped.height)
	assert(differing(shaped, without) > around, 'nothing is around the words of the button')
})

test('a logo keeps its ratio, and is seen on a dark ground', async (t) => {
	for (const colorScheme of ['light', 'dark']) {
		for (const width of [800, 375, 320]) {
			const { page } = await openPage(t, { origins: ['https://app.example.com'], colorScheme, viewport: { width, height: 700 } })
			await serveLogos(page)
			for (const [kind, shown] of [['full', colorScheme === 'dark' ? 'logo-dark.png' : 'logo.png'], ['brand', 'logo.png']]) {
				const state = `${kind}, ${colorScheme}, ${width} px`
				await page.setContent(goldens(`${kind}.en.html`), { waitUntil: 'load' })
				const logo = page.locator('img:visible')
				assert.equal(await logo.count(), 1, `${state}: logos`)
				assert.match(await logo.getAttribute('src'), new RegExp(`/${shown}$`), state)
				const { ratio, natural, height } = await logo.evaluate((img) => {
					const style = getComputedStyle(img)
					const inner = { width: img.clientWidth - parseFloat(style.paddingLeft) * 2, height: img.clientHeight - parseFloat(style.paddingTop) * 2 }
					return { ratio: inner.width / inner.height, height: inner.height, natural: img.naturalWidth / img.naturalHeight }
				})
				assert(Math.abs(ratio / natural - 1) < 0.03, `${state}: its ratio is ${ratio}, of the file ${natural}`)
				assert(height <= 36, `${state}: ${height} px high`)
				// The file is black, or white for dark grounds, and transparent, so what is behind makes it visible.
				const seen = await picture(logo)
				await logo.evaluate((img) => { img.style.objectPosition = '-9999px'; img.style.objectFit = 'none' })
				assert(differing(seen, await picture(logo)) > seen.width * seen.height / 10, `${state}: it cannot be seen`)
			}
		}
	}
})

test('without pictures the name is read in their place', async (t) => {
	for (const colorScheme of ['light', 'dark']) {
		const { page } = await openPage(t, { origins: ['https://app.example.com'], colorScheme, expected: [/Failed to load resource/] })
		await page.route('https://app.example.com/**', (route) => route.abort())
		for (const kind of ['full', 'brand']) {
			await page.setContent(goldens(`${kind}.en.html`))
			const header = page.locator('.text').first()
			const named = await picture(header)
			await page.addStyleTag({ content: 'img[src][alt] { color: transparent !important }' })
			assert(differing(named, await picture(header)) > 50, `${kind}, ${colorScheme}: no name is read`)
		}
	}
})

test('without styles it reads from the top, and the link is there', async (t) => {
	const { page } = await openPage(t, { origins: ['https://app.example.com'] })
	await serveLogos(page)
	for (const language of languages) {
		const stripped = goldens(`full.${language}.html`).replace(/<style>.*?<\/style>/gs, '').replace(/ style="[^"]*"/g, '')
		await page.setContent(stripped)
		await expectFits(page, `${language}, without styles`)
		assert.equal(await page.locator('a[href^="https://app.example.com/reset-password"]').count(), 2)
	}
})

test('the name keeps its own direction', async (t) => {
	const { page } = await openPage(t, { origins: ['https://app.example.com'] })
	await serveLogos(page)
	await page.setContent(goldens('brand.ar.html'))
	// In a line from right to left, the full stop of "Acme Inc." is on the right of its last letter.
	const order = await page.evaluate(() => {
		const name = document.querySelector('p bdi').firstChild
		const at = (from) => {
			const range = document.createRange()
			range.setStart(name, from)
			range.setEnd(name, from + 1)
			return range.getBoundingClientRect().left
		}
		return [...name.data].map((_, i) => at(i))
	})
	assert.deepEqual(order, [...order].sort((a, b) => a - b))
})
