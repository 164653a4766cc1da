// What users see after these errors. The text of other errors is clear enough.
const words = {
  otp_expired: 'This link is invalid or has expired. Ask for another one.',
  user_banned: 'This account is blocked.',
  weak_password: 'This password is too easy to guess.',
  same_password: 'This is your old password. Choose another one.',
  mfa_verification_failed: 'This code is wrong. Try again with the next one.',
  over_request_rate_limit: 'Too many tries. Wait a few minutes.',
}
const toldOf = (error) => words[error.code] ?? error.message

let token = new URLSearchParams(location.search).get('token_hash')

// Called when the form with the new password is submitted. Returns null, or what to tell the user, who
// may correct it and submit again. askForCode shows a field for the code, and returns what is typed.
export async function setNewPassword(supabase, password, askForCode) {
  if (token) {
    const { error } = await supabase.auth.verifyOtp({ type: 'recovery', token_hash: token })
    if (error) return toldOf(error)
    token = null // it is used up; now the session counts
    history.replaceState(null, '', location.pathname)
  }
  let { error } = await supabase.auth.updateUser({ password })
  if (error?.code === 'insufficient_aal') {
    const factors = await supabase.auth.mfa.listFactors()
    if (factors.error) return toldOf(factors.error)
    const [factor] = factors.data.totp
    if (!factor) return 'This account needs a second factor that this page cannot ask for.'
    const passed = await supabase.auth.mfa.challengeAndVerify({ factorId: factor.id, code: await askForCode() })
    if (passed.error) return toldOf(passed.error)
    ;({ error } = await supabase.auth.updateUser({ password }))
  }
  return error ? toldOf(error) : null
}
