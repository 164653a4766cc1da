// Asks for a password-reset mail, and reads the answer. It needs package:http: copy it.
import 'dart:convert';

import 'package:http/http.dart' as http;

/// The result of a request.
sealed class Outcome {
  const Outcome();
}

/// 200: accepted. The message is the same for every address, whether or not it has an account.
class Taken extends Outcome {
  const Taken(this.message);
  final String message;
}

/// 400: what is wrong, by field. Show it beside the field.
class Invalid extends Outcome {
  const Invalid(this.message, this.fields);
  final String message;
  final Map<String, String> fields;
}

/// 429: too many requests. No request can be sent before [seconds] have passed.
class Wait extends Outcome {
  const Wait(this.seconds);
  final int seconds;
}

/// 500, 502, 503: the server accepts no request, for any address. There is no mail to wait for.
class Unavailable extends Outcome {
  const Unavailable();
}

/// No readable answer: no network, or a proxy in between.
class Unreachable extends Outcome {
  const Unreachable();
}

/// Never throws. [language] is the language of the mail, as in Accept-Language (`de-CH, de;q=0.9`).
Future<Outcome> requestReset(
  http.Client client,
  Uri endpoint, {
  required String email,
  String? callbackOrigin,
  String? language,
}) async {
  try {
    final response = await client
        .post(
          endpoint,
          headers: {
            'Content-Type': 'application/json',
            if (language != null) 'Accept-Language': language,
          },
          body: jsonEncode({
            'email': email,
            if (callbackOrigin != null) 'callback_origin': callbackOrigin,
          }),
        )
        .timeout(const Duration(seconds: 30));
    final body = jsonDecode(utf8.decode(response.bodyBytes)) as Map<String, dynamic>;
    switch (response.statusCode) {
      case 200:
        return Taken(body['message'] as String);
      case 400:
        final fields = body['fieldErrors'] as Map<String, dynamic>? ?? {};
        return Invalid(body['error'] as String, fields.cast<String, String>());
      case 429:
        return Wait((body['retryAfter'] as num).ceil());
      case 500:
      case 502:
      case 503:
        return const Unavailable();
    }
  } catch (_) {
    // The page of a proxy, or no answer.
  }
  return const Unreachable();
}
