// Takes pictures of the mail in every language and view, and one of all languages together:
//
//	node pictures.mjs FOLDER [REVISION]
//
// With a revision it also compares each with the mail of that revision, drawn by the same browser with the same
// fonts, and writes a picture of the differences.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import pixelmatch from 'pixelmatch'
import { PNG } from 'pngjs'
import { launch } from './harness.mjs'
import { goldens, languages, serveLogos, views } from './mails.mjs'

const [folder, revision] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
const browser = await launch()

/** Returns the mail of the revision; nothing if it did not exist. */
function then(name) {
	try {
		return execFileSync('git', ['show', `${revision}:impl/message/testdata/golden/${name}`], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
	} catch {
		return undefined
	}
}

async function draw(page, mail) {
	await page.setContent(mail, { waitUntil: 'load' })
	return page.screenshot({ fullPage: true, animations: 'disabled' })
}

const kinds = ['full', 'plain', 'brand']
for (const view of views) {
	const context = await browser.newContext(view.options)
	const page = await context.newPage()
	await serveLogos(page)
	for (const kind of kinds) {
		for (const language of languages) {
			const name = `${kind}.${language}.html`
			let mail
			try {
				mail = goldens(name)
			} catch {
				continue // there is no such golden file
			}
			const file = path.join(folder, `${kind}-${language}-${view.name.replace(/\W+/g, '-')}`)
			const now = await draw(page, mail)
			writeFileSync(`${file}.png`, now)
			const before = revision && then(name)
			if (!before || before === mail) {
				continue
			}
			const [a, b] = [PNG.sync.read(await draw(page, before)), PNG.sync.read(now)]
			if (a.height !== b.height) {
				console.log(`${file}: ${a.height} px high at ${revision}, and ${b.height} px now`)
				continue
			}
			const difference = new PNG({ width: a.width, height: a.height })
			const pixels = pixelmatch(a.data, b.data, difference.data, a.width, a.height)
			if (pixels > 0) {
				writeFileSync(`${file}-difference.png`, PNG.sync.write(difference))
				console.log(`${file}: ${pixels} pixels differ from ${revision}`)
			}
		}
	}
	await context.close()
}

/** Draws mails next to each other, each in its own height. */
async function sheet(file, mails, dark, options) {
	const context = await browser.newContext({ viewport: { width: 2700, height: 800 }, colorScheme: dark ? 'dark' : 'light', ...options })
	const page = await context.newPage()
	await serveLogos(page)
	const quoted = (mail) => mail.replaceAll('&', '&amp;').replaceAll('"', '&quot;')
	await page.setContent(`<body style="margin:8px; background:#888; display:flex; flex-wrap:wrap; gap:8px; font:16px sans-serif">
		${mails.map(({ title, mail, width }) => `<div>${title && `<b>${title}</b><br>`}<iframe srcdoc="${quoted(mail)}" style="width:${width}px; border:0; color-scheme:${dark ? 'dark' : 'light'}"></iframe></div>`).join('')}</body>`, { waitUntil: 'load' })
	await page.evaluate(() => {
		for (const frame of document.querySelectorAll('iframe')) {
			frame.style.height = `${frame.contentDocument.documentElement.scrollHeight}px`
		}
	})
	await page.screenshot({ fullPage: true, path: path.join(folder, file) })
	await context.close()
}

// One picture has all languages, on a desktop and on a phone with a dark ground; another is for README.md.
for (const dark of [false, true]) {
	const width = dark ? 375 : 640
	await sheet(`contact-sheet${dark ? '-dark' : ''}.png`, languages.map((language) => ({ title: language, mail: goldens(`full.${language}.html`), width })), dark, { deviceScaleFactor: 0.6 })
}
await sheet('mail.png', ['plain.en.html', 'plain.ar.html'].map((name) => ({ title: '', mail: goldens(name), width: 640 })), false, { viewport: { width: 1304, height: 600 }, deviceScaleFactor: 0.6 })
await browser.close()
console.log(`pictures of ${languages.length} languages are in ${folder}; all together in contact-sheet.png and contact-sheet-dark.png`)
