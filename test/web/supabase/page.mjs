// Runs the page of README.md with a real Supabase Auth, for test/supabase:
//
//	node page.mjs AUTH-URL KEY LINK {"password":…,"code":…}…
//
// Each submission of its form is one argument; for each it prints, as JSON, what the user is told.
import { readFileSync } from 'node:fs'
import { AuthClient } from '@supabase/auth-js'

const [url, apikey, link, ...submissions] = process.argv.slice(2)
const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8')
const page = readme.match(/^```js\n(.*?)^```$/ms)[1]

globalThis.location = new URL(link)
globalThis.history = {
  replaceState(_state, _title, path) {
    globalThis.location = new URL(path, globalThis.location)
  },
}
const { setNewPassword } = await import(`data:text/javascript,${encodeURIComponent(page)}`)

// This is supabase.auth of supabase-js, which would call URL/auth/v1, a path that a bare Supabase Auth does not have.
const supabase = { auth: new AuthClient({ url, headers: { apikey }, autoRefreshToken: false, persistSession: false }) }
for (const submission of submissions) {
  const { password, code } = JSON.parse(submission)
  console.log(JSON.stringify(await setNewPassword(supabase, password, async () => code)))
}
