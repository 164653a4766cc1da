import { useEffect, useState } from 'react'
import { Pressable, Text, TextInput, View } from 'react-native'
import { requestReset, type Outcome } from './lib/request-reset'

const endpoint = 'https://reset.example.com/api/auth/send-password-reset'
// An app has no origin. The link should lead to the site whose links open the app (app.config.ts).
const site = 'https://app.example.com'

export function ForgotPassword({ language }: { language: string }) {
	const [email, setEmail] = useState('')
	const [outcome, setOutcome] = useState<Outcome>()
	const [busy, setBusy] = useState(false)
	const left = useCountdown(outcome)

	async function send() {
		setBusy(true)
		setOutcome(undefined)
		const request = { email: email.trim(), callback_origin: site }
		setOutcome(await requestReset(endpoint, request, { 'Accept-Language': language }))
		setBusy(false)
	}

	return (
		<View>
			<TextInput
				accessibilityLabel="Email address"
				autoCapitalize="none"
				autoComplete="email"
				inputMode="email"
				value={email}
				onChangeText={setEmail}
			/>
			{outcome?.kind === 'invalid' && <Text accessibilityLiveRegion="polite">{outcome.fields.email}</Text>}
			<Pressable accessibilityRole="button" disabled={busy || left > 0} onPress={send}>
				<Text>Send the email</Text>
			</Pressable>
			<Text accessibilityLiveRegion="polite">{busy ? 'Sending …' : outcome && told(outcome, left)}</Text>
		</View>
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
