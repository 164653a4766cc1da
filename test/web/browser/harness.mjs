// Shared parts of the tests in this folder: the real server, a watched browser, and pages on other origins.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { chromium } from 'playwright-core'
import { startResetd as start } from '../client/dist/test/resetd.js'

const require = createRequire(import.meta.url)

// The runner's hooks run in the order in which they were set. This would stop a server before the page that listens
// to it, and the page would report that.
const endings = new WeakMap()

/** Calls end when the test t ends, before what was set earlier. */
function atEnd(t, end) {
	if (!endings.has(t)) {
		const all = []
		endings.set(t, all)
		t.after(async () => {
			const faults = []
			for (const one of all.reverse()) {
				await Promise.resolve(one()).catch((fault) => faults.push(fault))
			}
			if (faults.length > 0) {
				throw faults[0]
			}
		})
	}
	endings.get(t).push(end)
}

/** Starts the server on localhost until the test t ends. */
export async function startResetd(t, command, settings = {}) {
	const server = await start(command, {
		LISTEN_ADDR: 'localhost:0', LOG_LEVEL: 'debug', ...settings,
	})
	atEnd(t, () => server.stop())
	const url = `http://localhost:${new URL(server.url).port}`
	const records = () => server.log.map((line) => JSON.parse(line))
	return {
		url,
		endpoint: `${url}/api/auth/send-password-reset`,
		/** Returns what resetd dev has printed, after it matches the pattern. */
		async printed(pattern) {
			while (!pattern.test(server.printed())) {
				await setTimeout(20)
			}
			return server.printed().match(pattern)
		},
		/** Returns the server's answers so far on the operation's path, as "METHOD status". */
		async answers() {
			await settle()
			return records().filter((r) => r.msg === 'request' && r.route !== '/healthz' && !r.route.startsWith('/dev'))
				.map((r) => `${r.method} ${r.status}`)
		},
		/** Returns the log's records with this message so far. */
		async records(message) {
			await settle()
			return records().filter((r) => r.msg === message)
		},
		/** Returns the inbox of resetd dev, after all accepted requests are delivered. */
		async inbox() {
			await settle()
			for (const { request_id: id } of records().filter((r) => r.msg === 'request' && r.outcome === 'accepted')) {
				await server.delivered(id)
			}
			return (await fetch(`${url}/dev/inbox.json`)).json()
		},
	}

	// A record is written before its answer goes out, but arrives by another way. The record of a new request
	// arrives after all earlier ones.
	async function settle() {
		const id = `settled-${server.log.length}-${Math.random().toString(36).slice(2)}`
		await fetch(`${url}/healthz`, { headers: { 'X-Request-Id': id } })
		while (!records().some((r) => r.request_id === id)) {
			await server.logs()
		}
	}
}

/**
 * Serves the files of folder, or a blank page, until the test t ends. url is on localhost; on(host) is the same under
 * another name of this machine. edit may change the text of a served page.
 */
export async function startSite(t, folder, edit = (text) => text) {
	const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css' }
	const server = createServer(async (request, response) => {
		const name = path.basename(new URL(request.url, 'http://site').pathname)
		try {
			const content = folder ? await readFile(path.join(folder, name))
				: '<!doctype html><html lang="en"><title>Another site</title><link rel="icon" href="data:,">'
			response.setHeader('Content-Type', folder ? types[path.extname(name)] : types['.html'])
			response.end(path.extname(name) === '.html' ? edit(String(content)) : content)
		} catch {
			response.writeHead(404).end()
		}
	})
	server.listen(0, '127.0.0.1')
	await once(server, 'listening')
	atEnd(t, async () => {
		server.close()
		server.closeAllConnections()
	})
	const { port } = server.address()
	return { port, url: `http://localhost:${port}`, on: (host) => `http://${host}:${port}` }
}

let browser // one for each file of tests, which runs in its own process

/**
 * Opens a page until the test t ends. The test fails after a request to an origin that is not given, an error on the
 * console, an uncaught error, or a violation of the page's policy. expected are patterns of errors that must come.
 */
export async function openPage(t, { origins, expected = [], ...options }) {
	browser ??= await launch()
	const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
	const wrong = []
	const errors = []
	const seen = []
	context.on('request', (request) => {
		const url = new URL(request.url())
		seen.push(request.url())
		if (url.protocol !== 'data:' && url.protocol !== 'about:' && !origins.includes(url.origin)) {
			wrong.push(`a request to another origin: ${request.url()}`)
		}
	})
	context.on('console', (message) => {
		const { url } = message.location()
		// The browser itself asks for it if a document that is not HTML names no icon.
		const icon = url.endsWith('/favicon.ico')
		if ((message.type() === 'error' || message.type() === 'warning') && !icon) {
			errors.push(`${message.text()} at ${url}`)
		}
	})
	context.on('weberror', (error) => errors.push(`uncaught: ${error.error()}`))
	await context.exposeBinding('reportViolation', (_, text) => void errors.push(`policy: ${text}`))
	await context.addInitScript(() => {
		document.addEventListener('securitypolicyviolation', (event) => {
			window.reportViolation(`${event.effectiveDirective} refused ${event.blockedURI}`)
		})
	})
	atEnd(t, async () => {
		const missing = () => expected.filter((pattern) => !errors.some((error) => pattern.test(error)))
		for (const end = Date.now() + 5000; missing().length > 0 && Date.now() < end;) {
			await setTimeout(20) // the browser reports some errors late
		}
		await context.close()
		wrong.push(...missing().map((pattern) => `nothing like ${pattern} on the console`))
		wrong.push(...errors.filter((error) => !expected.some((pattern) => pattern.test(error))))
		assert.deepEqual(wrong, [])
	})
	const page = await context.newPage()
	page.setDefaultTimeout(15_000)
	return { page, context, requests: seen }
}

export async function launch() {
	const names = [process.env.CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome']
	const executablePath = names.filter(Boolean).map(find).find(Boolean)
	assert(executablePath, 'there is no chromium on the PATH; test/chromium.sh installs one')
	const launched = await chromium.launch({
		executablePath,
		args: [
			'--no-sandbox', // not available for root in a container
			'--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
			'--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
			// Nothing leaves this machine, whatever a page loads.
			'--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1',
		],
	})
	return launched
}

/** Closes the browser of this file; call it in an after hook of the file. */
export async function closeBrowser() {
	await browser?.close()
}

function find(name) {
	try {
		return execFileSync('/bin/sh', ['-c', 'command -v "$1"', 'sh', name], { encoding: 'utf8' }).trim()
	} catch {
		return ''
	}
}

const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

/**
 * Fails if axe-core finds a violation of WCAG 2.2 A or AA, or of its best practices; or, with rules, of these rules
 * only.
 */
export async function expectAccessible(page, state, rules) {
	await page.evaluate(axe) // through the debugger, so that the page's policy does not forbid it
	const runOnly = rules ? { type: 'rule', values: rules } : ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
	const { violations, passes } = await page.evaluate((only) => window.axe.run({ runOnly: only }), runOnly)
	assert(passes.length > (rules ? 3 : 10), `${state}: axe looked at nothing`)
	assert.deepEqual(violations.map((v) => `${v.impact} ${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`), [], state)
}

/** Fails if the page scrolls sideways, or something sticks out. */
export async function expectFits(page, state) {
	const wide = await page.evaluate(() => {
		const width = document.documentElement.clientWidth
		const out = [...document.body.querySelectorAll('*')].filter((e) => {
			const box = e.getBoundingClientRect()
			return box.width > 0 && box.right > width + 0.5
		})
		const scroll = document.documentElement.scrollWidth - width
		return [...(scroll > 0 ? [`the page, by ${scroll} px`] : []), ...out.slice(0, 5).map((e) => e.outerHTML.slice(0, 120))]
	})
	assert.deepEqual(wide, [], `${state}: too wide`)
}
