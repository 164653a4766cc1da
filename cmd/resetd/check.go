package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/check"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/setting"
)

// checkSettings tries the settings, or with --explain-client says who the client of a request would be.
func checkSettings(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	var address, language string
	send := false
	format := check.Format{Version: version}
	var client explainClient
	args = client.takeHeaders(args)
	settings, err := readSettings("check", args, environ, stderr, client.addFlag, func(flags *flag.FlagSet) {
		flags.BoolVar(&format.JSON, "json", false, "print one JSON object, for programs: docs/operations.md says what is in it")
		flags.Func("send-to", "send a real mail to this `ADDRESS`: with an account, with a real link, which makes earlier ones of that account invalid", func(value string) error {
			address, send = value, true
			return nil
		})
		flags.StringVar(&language, "language", "", "the `TAG` of the language that --send-to writes in, like fr; without it, the default one")
	})
	if err == nil && send && impl.CheckAddress(address) != nil {
		err = setting.Mistakes{{Setting: "--send-to", Text: "must be one address, like me@example.com"}}
	}
	if err == nil && language != "" && (!send || !slices.Contains(settings.writer.Languages(), language)) {
		err = setting.Mistakes{{Setting: "--language", Text: "must be one of " + strings.Join(settings.writer.Languages(), ", ") + ", and goes with --send-to"}}
	}
	var wrong setting.Mistakes
	switch {
	case format.JSON && errors.As(err, &wrong):
		return errors.Join(err, check.WriteMistakes(wrong.Lines(), version, stdout))
	case err != nil:
		return err
	case client.asked:
		return client.print(settings, stdout)
	}
	config := settings.checked()
	config.SendTo, config.Language = address, language
	return check.Run(ctx, config, format, stdout)
}

// checked returns the settings for the check.
func (s *settings) checked() check.Config {
	c := check.Config{
		Supabase: s.supabase(), SupabaseURL: s.SupabaseURL, SupabaseAuthURL: s.SupabaseAuthURL,
		Mailgun: s.mailgun(), WebhookKey: s.WebhookKey.Reveal(), Redis: s.redis, Platform: s.platform,
		Pages: s.pages, Writer: s.writer, LinkMode: delivery.LinkMode(s.LinkMode),
		LinkExpiresIn: s.LinkExpiresIn, DeliveryTimeout: s.DeliveryTimeout, RateLimit: s.RateLimit, RecipientLimit: s.RecipientLimit,
		ProbesMail: s.MailProbe != "off", TrustsProxies: s.clientIP.Set(),
	}
	for _, name := range s.missing() {
		for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
			if field.Tag.Get("env") == name {
				c.Missing = append(c.Missing, check.Missing{Name: name, Help: field.Tag.Get("help")})
			}
		}
	}
	return c
}
