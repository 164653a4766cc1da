// What the page behind the link does with the token in the link.
import type { AuthError, SupabaseClient } from '@supabase/supabase-js'

// What users see after these errors. The text of other errors is clear enough.
const words: Record<string, string> = {
	otp_expired: 'This link is invalid or has expired. Ask for another one.',
	user_banned: 'This account is blocked.',
	weak_password: 'This password is too easy to guess.',
	same_password: 'This is your old password. Choose another one.',
	mfa_verification_failed: 'This code is wrong. Try again with the next one.',
	over_request_rate_limit: 'Too many tries. Wait a few minutes.',
}
const toldOf = (error: AuthError) => words[error.code ?? ''] ?? error.message

/**
 * Takes the token of a link. Call what it returns when the form with the new password is
 * submitted, and not before: it returns null, or what to tell the user, who may submit again.
 */
export function passwordSetter(supabase: SupabaseClient, tokenHash: string) {
	let verified = false
	return async (password: string, askForCode: () => Promise<string>): Promise<string | null> => {
		if (!verified) {
			const { error } = await supabase.auth.verifyOtp({ type: 'recovery', token_hash: tokenHash })
			if (error) return toldOf(error)
			verified = true // the token is used up; now the session counts
		}
		let { error } = await supabase.auth.updateUser({ password })
		if (error?.code === 'insufficient_aal') {
			const factors = await supabase.auth.mfa.listFactors()
			if (factors.error) return toldOf(factors.error)
			const [factor] = factors.data.totp
			if (!factor) return 'This account needs a second factor that this app cannot ask for.'
			const passed = await supabase.auth.mfa.challengeAndVerify({ factorId: factor.id, code: await askForCode() })
			if (passed.error) return toldOf(passed.error)
			;({ error } = await supabase.auth.updateUser({ password }))
		}
		return error ? toldOf(error) : null
	}
}
