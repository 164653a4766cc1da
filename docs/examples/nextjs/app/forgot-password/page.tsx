'use client'

import { useEffect, useState, type FormEvent } from 'react'
import { requestReset, type Outcome } from '../../lib/request-reset'

export default function ForgotPassword() {
	const [outcome, setOutcome] = useState<Outcome>()
	const [busy, setBusy] = useState(false)
	const left = useCountdown(outcome)

	async function submit(event: FormEvent<HTMLFormElement>) {
		event.preventDefault()
		const email = String(new FormData(event.currentTarget).get('email')).trim()
		setBusy(true)
		setOutcome(undefined)
		setOutcome(await requestReset('/api/password-reset', { email, callback_origin: location.origin }))
		setBusy(false)
	}

	const wrongEmail = outcome?.kind === 'invalid' ? outcome.fields.email : undefined
	return (
		<main>
			<h1>Reset your password</h1>
			<form onSubmit={submit} noValidate>
				<label htmlFor="email">Email address</label>
				<input
					id="email"
					name="email"
					type="email"
					autoComplete="email"
					aria-invalid={wrongEmail !== undefined}
					aria-describedby="email-error"
				/>
				<p id="email-error">{wrongEmail}</p>
				<button disabled={busy || left > 0}>Send the email</button>
				<p role="status">{busy ? 'Sending …' : outcome && told(outcome, left)}</p>
			</form>
		</main>
	)
}

function told(outcome: Outcome, left: number): string {
	switch (outcome.kind) {
		case 'taken':
			return outcome.message
		case 'invalid':
			return outcome.message
		case 'wait':
			return left > 0 ? `Too many requests. Try again in ${left} s.` : 'You can try again now.'
		case 'unavailable':
			return 'No email can be sent right now, to anybody. Do not wait for one; try again later.'
		case 'unreachable':
			return 'The server could not be reached. Try again in a moment.'
	}
}

/** Seconds until a request may be sent again. */
function useCountdown(outcome: Outcome | undefined): number {
	const [left, setLeft] = useState(0)
	useEffect(() => {
		if (outcome?.kind !== 'wait') {
			setLeft(0)
			return
		}
		const end = Date.now() + outcome.seconds * 1000
		const tick = () => setLeft(Math.max(0, Math.ceil((end - Date.now()) / 1000)))
		tick()
		const timer = setInterval(tick, 250)
		return () => clearInterval(timer)
	}, [outcome])
	return left
}
