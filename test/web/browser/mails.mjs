// The mails in impl/message/testdata/golden, and the ways to view them.
import { readdirSync, readFileSync } from 'node:fs'
import { PNG } from 'pngjs'

const folder = new URL('../../../impl/message/testdata/golden/', import.meta.url)

export const goldens = (name) => readFileSync(new URL(name, folder), 'utf8')

/** Languages with golden files. */
export const languages = readdirSync(folder).map((name) => /^full\.(.+)\.html$/.exec(name)?.[1]).filter(Boolean)

export const views = [
	{ name: 'desktop', options: { viewport: { width: 800, height: 900 } } },
	{ name: 'dark', options: { viewport: { width: 800, height: 900 }, colorScheme: 'dark' } },
	{ name: 'forced colours', forced: true, options: { viewport: { width: 800, height: 900 }, forcedColors: 'active' } },
	{ name: 'phone', phone: true, options: { viewport: { width: 375, height: 812 } } },
	{ name: 'small phone, dark', phone: true, options: { viewport: { width: 320, height: 640 }, colorScheme: 'dark' } },
]

/** Draws a logo: a frame and three bars, in one colour, on a transparent ground. */
function logo(width, height, [red, green, blue]) {
	const png = new PNG({ width, height })
	for (let y = 0; y < height; y++) {
		for (let x = 0; x < width; x++) {
			const frame = Math.min(x, y, width - 1 - x, height - 1 - y) < height / 9
			const bars = Math.floor((x * 7) / width) % 2 === 1
			png.data.set([red, green, blue, frame || bars ? 255 : 0], 4 * (y * width + x))
		}
	}
	return PNG.sync.write(png)
}

const logos = {
	'/logo.png': logo(900, 72, [16, 18, 22]), // wider than a phone
	'/logo-dark.png': logo(900, 72, [255, 255, 255]),
}

/** Serves the logo's host in the golden files. */
export async function serveLogos(page) {
	await page.route('https://app.example.com/**', (route) => {
		const body = logos[new URL(route.request().url()).pathname]
		return body ? route.fulfill({ body, contentType: 'image/png' }) : route.abort()
	})
}
