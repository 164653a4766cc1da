// What the page behind the link does with the token in the link.
import 'package:supabase_flutter/supabase_flutter.dart';

// What users see after these errors. The text of other errors is clear enough.
const _words = {
  'otp_expired': 'This link is invalid or has expired. Ask for another one.',
  'user_banned': 'This account is blocked.',
  'weak_password': 'This password is too easy to guess.',
  'same_password': 'This is your old password. Choose another one.',
  'mfa_verification_failed': 'This code is wrong. Try again with the next one.',
  'over_request_rate_limit': 'Too many tries. Wait a few minutes.',
};

/// The token of a link that has opened the app. It is not used before the user submits.
String? tokenHashOf(Uri link) => link.queryParameters['token_hash'];

class PasswordSetter {
  PasswordSetter(this._auth, this._tokenHash);
  final GoTrueClient _auth;
  final String _tokenHash;
  bool _verified = false;

  /// To be called when the form with the new password is submitted, and not before. Returns null, or
  /// what to tell the user, who may submit again.
  Future<String?> set(String password, Future<String> Function() askForCode) async {
    try {
      if (!_verified) {
        await _auth.verifyOTP(type: OtpType.recovery, tokenHash: _tokenHash);
        _verified = true; // the token is used up; now the session counts
      }
      try {
        await _auth.updateUser(UserAttributes(password: password));
      } on AuthException catch (error) {
        if (error.code != 'insufficient_aal') rethrow;
        final factors = await _auth.mfa.listFactors();
        if (factors.totp.isEmpty) return 'This account needs a second factor that this app cannot ask for.';
        await _auth.mfa.challengeAndVerify(factorId: factors.totp.first.id, code: await askForCode());
        await _auth.updateUser(UserAttributes(password: password));
      }
      return null;
    } on AuthException catch (error) {
      return _words[error.code] ?? error.message;
    }
  }
}
