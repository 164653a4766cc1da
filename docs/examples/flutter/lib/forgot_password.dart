import 'dart:async';

import 'package:flutter/material.dart';
import 'package:http/http.dart' as http;

import 'request_reset.dart';

final endpoint = Uri.parse('https://reset.example.com/api/auth/send-password-reset');

// An app has no origin. The link should lead to the site whose links open the app (../../app-links).
const site = 'https://app.example.com';

class ForgotPassword extends StatefulWidget {
  const ForgotPassword({super.key});

  @override
  State<ForgotPassword> createState() => _ForgotPasswordState();
}

class _ForgotPasswordState extends State<ForgotPassword> {
  final _client = http.Client();
  final _email = TextEditingController();
  Outcome? _outcome;
  bool _busy = false;
  DateTime? _until; // no request can be sent before
  Timer? _timer;

  int get _left {
    final until = _until;
    if (until == null) return 0;
    final left = until.difference(DateTime.now());
    return left.isNegative ? 0 : (left.inMilliseconds / 1000).ceil();
  }

  Future<void> _send() async {
    setState(() {
      _busy = true;
      _outcome = null;
    });
    final outcome = await requestReset(
      _client,
      endpoint,
      email: _email.text.trim(),
      callbackOrigin: site,
      language: Localizations.localeOf(context).toLanguageTag(),
    );
    if (!mounted) return;
    setState(() {
      _busy = false;
      _outcome = outcome;
    });
    if (outcome is Wait) {
      _until = DateTime.now().add(Duration(seconds: outcome.seconds));
      _timer?.cancel();
      _timer = Timer.periodic(const Duration(milliseconds: 250), (timer) {
        if (_left == 0) timer.cancel();
        setState(() {});
      });
    }
  }

  String _told(Outcome outcome) => switch (outcome) {
        Taken(:final message) => message,
        Invalid(:final message) => message,
        Wait() => _left > 0 ? 'Too many requests. Try again in $_left s.' : 'You can try again now.',
        Unavailable() => 'No email can be sent right now, to anybody. Do not wait for one; try again later.',
        Unreachable() => 'The server could not be reached. Try again in a moment.',
      };

  @override
  void dispose() {
    _timer?.cancel();
    _email.dispose();
    _client.close();
    super.dispose();
  }

  @override
  Widget build(BuildContext context) {
    final outcome = _outcome;
    return Column(
      children: [
        TextField(
          controller: _email,
          keyboardType: TextInputType.emailAddress,
          autofillHints: const [AutofillHints.email],
          decoration: InputDecoration(
            labelText: 'Email address',
            errorText: outcome is Invalid ? outcome.fields['email'] : null,
          ),
        ),
        FilledButton(
          onPressed: _busy || _left > 0 ? null : _send,
          child: const Text('Send the email'),
        ),
        Semantics(
          liveRegion: true,
          child: Text(_busy ? 'Sending …' : outcome == null ? '' : _told(outcome)),
        ),
      ],
    );
  }
}
