import type { SupabaseClient } from '@supabase/supabase-js'
import { useEffect, useMemo, useState } from 'react'
import { Linking, Pressable, Text, TextInput, View } from 'react-native'
import { passwordSetter } from './lib/set-new-password'

/** The token of the link that opened the app, or that came while it was open. It is not used yet. */
export function useTokenHash(): string | undefined {
	const [link, setLink] = useState<string | null | undefined>()
	useEffect(() => {
		void Linking.getInitialURL().then(setLink)
		const listening = Linking.addEventListener('url', ({ url }) => setLink(url))
		return () => listening.remove()
	}, [])
	return link?.match(/[?&]token_hash=([0-9a-zA-Z_-]+)/)?.[1]
}

export function ResetPassword({ supabase, tokenHash, askForCode }: {
	supabase: SupabaseClient
	tokenHash: string
	askForCode: () => Promise<string>
}) {
	const [password, setPassword] = useState('')
	const [told, setTold] = useState('')
	const setNewPassword = useMemo(() => passwordSetter(supabase, tokenHash), [supabase, tokenHash])

	async function submit() {
		setTold((await setNewPassword(password, askForCode)) ?? 'Your password is changed.')
	}

	return (
		<View>
			<TextInput
				accessibilityLabel="New password"
				autoComplete="new-password"
				secureTextEntry
				value={password}
				onChangeText={setPassword}
			/>
			<Pressable accessibilityRole="button" onPress={submit}>
				<Text>Save password</Text>
			</Pressable>
			<Text accessibilityLiveRegion="polite">{told}</Text>
		</View>
	)
}
