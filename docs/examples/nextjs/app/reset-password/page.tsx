'use client'

// The page that the link of the mail leads to. It does nothing before the form is submitted: mail scanners
// open links too, and a token works once.
import { createClient } from '@supabase/supabase-js'
import { useState, type FormEvent } from 'react'

export default function ResetPassword() {
	const [told, setTold] = useState('')

	async function submit(event: FormEvent<HTMLFormElement>) {
		event.preventDefault()
		const password = String(new FormData(event.currentTarget).get('password'))
		// Here and not above, because it reads the address of the page, which only the browser has.
		const { setNewPassword } = await import('../../lib/set-new-password')
		const supabase = createClient(process.env.NEXT_PUBLIC_SUPABASE_URL!, process.env.NEXT_PUBLIC_SUPABASE_KEY!)
		const fault = await setNewPassword(supabase, password, async () => prompt('The code of your authenticator app') ?? '')
		setTold(fault ?? 'Your password is changed.')
	}

	return (
		<main>
			<h1>Choose a new password</h1>
			<form onSubmit={submit}>
				<label htmlFor="password">New password</label>
				<input id="password" name="password" type="password" autoComplete="new-password" required />
				<button>Save password</button>
				<p role="status">{told}</p>
			</form>
		</main>
	)
}
