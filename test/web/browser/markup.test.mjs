// The markup of all pages and mails of resetd and the example: valid HTML, with names and structure for screen
// readers.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { HtmlValidate, StaticConfigLoader } from 'html-validate'
import { startResetd } from './harness.mjs'

const sets = ['html-validate:standard', 'html-validate:a11y']

/** Returns what html-validate finds, without the rules that are off. */
async function faults(markup, off = []) {
	const config = { root: true, extends: sets, rules: Object.fromEntries(off.map((rule) => [rule, 'off'])) }
	const { results } = await new HtmlValidate(new StaticConfigLoader(config)).validateString(markup)
	return results.flatMap((r) => r.messages).map((m) => `${m.ruleId} at ${m.line}:${m.column}: ${m.message}`)
}

test('faults are found', async () => {
	for (const [rule, markup] of [
		['close-order', '<p><b>bold</p></b>'], ['no-dup-attr', '<p class="one" class="two">text</p>'],
		['element-permitted-content', '<span><p>text</p></span>'], ['wcag/h37', '<img src="one.png">'],
	]) {
		const found = await faults(markup)
		assert(found.some((fault) => fault.startsWith(`${rule} `)), `${rule} is not among ${found}`)
	}
})

test('the mails', async () => {
	const golden = new URL('../../../impl/message/testdata/golden/', import.meta.url)
	const mails = readdirSync(golden).filter((name) => name.endsWith('.html'))
	assert(mails.length > 0)
	for (const name of mails) {
		// Outlook needs attributes that HTML has removed, and not every mail program knows <article>.
		const found = await faults(readFileSync(new URL(name, golden), 'utf8'), ['no-deprecated-attr', 'prefer-native-element'])
		assert.deepEqual(found, [], name)
	}
})

test('the pages', async (t) => {
	const resetd = await startResetd(t, 'dev')
	await fetch(resetd.endpoint, {
		method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ email: 'hello@example.com' }),
	})
	const { mails: [mail] } = await resetd.inbox()
	const [link] = /http:\S+token_hash=\S+/.exec(mail.text)
	for (const page of [`${resetd.url}/api/docs`, `${resetd.url}/dev/inbox`, `${resetd.url}/dev/inbox?mail=${mail.id}`, `${resetd.url}/dev/preview`, link, `${resetd.url}/dev/reset-password`]) {
		assert.deepEqual(await faults(await (await fetch(page)).text()), [], page)
	}
	assert.deepEqual(await faults(readFileSync(new URL('../client/form.html', import.meta.url), 'utf8')), [], 'form.html')
})
