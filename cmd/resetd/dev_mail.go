package main

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/devstack"
	"github.com/resetd/resetd/impl/message"
	"github.com/resetd/resetd/impl/setting"
)

// brand are the settings that people can try in the preview of dev.
func (s *settings) brand() []struct {
	name  string
	value *string
} {
	return []struct {
		name  string
		value *string
	}{
		{"BRAND_NAME", &s.BrandName}, {"BRAND_COLOR", &s.BrandColor},
		{"BRAND_LOGO_URL", &s.BrandLogoURL}, {"BRAND_LOGO_DARK_URL", &s.BrandLogoDark},
		{"SUPPORT_EMAIL", &s.SupportEmail}, {"SUPPORT_URL", &s.SupportURL},
	}
}

// rewritten returns the settings with another brand, and with the templates read again. It checks them as the start
// does.
func (s *settings) rewritten(brand map[string]string) (*settings, error) {
	again := *s
	for _, of := range again.brand() {
		if value, given := brand[of.name]; given {
			*of.value = value
		}
	}
	var wrong setting.Mistakes
	again.checkMail(&wrong)
	again.readTemplates(&wrong)
	if len(wrong) > 0 {
		return nil, wrong
	}
	return &again, nil
}

// live renders mail from templates that may be edited at any time.
type live struct {
	settings *settings
	logger   *slog.Logger
	last     atomic.Pointer[message.Renderer] // the last one without mistakes
}

func newLive(s *settings, logger *slog.Logger) *live {
	l := &live{settings: s, logger: logger}
	l.last.Store(s.writer)
	return l
}

// renderer reads the templates again. While they have mistakes, it returns the last renderer without mistakes.
func (l *live) renderer() *message.Renderer {
	if again, err := l.settings.rewritten(nil); err == nil {
		l.last.Store(again.writer)
	} else {
		l.logger.Error("the mail is written with the templates as they were", "error", err.Error())
	}
	return l.last.Load()
}

// preview returns what the page /dev/preview shows.
func (l *live) preview() *devstack.Preview {
	preview := &devstack.Preview{
		Languages: func() []string { return l.last.Load().Languages() },
		Write: func(language string, brand map[string]string) (devstack.Mail, error) {
			again, err := l.settings.rewritten(brand)
			var wrong setting.Mistakes
			if errors.As(err, &wrong) {
				return devstack.Mail{}, errors.New(strings.Join(wrong.Lines(), "\n"))
			}
			l.last.Store(again.writer)
			// This is an invented link of the length of a real one. It opens nothing.
			link := delivery.LinkMode(l.settings.LinkMode).URL(&delivery.Link{
				TokenHash: strings.Repeat("0", 56), ActionLink: l.settings.authURL + "/verify?token=" + strings.Repeat("0", 56),
			}, l.settings.pages.Site())
			mail, err := again.writer.Render(language, "", link)
			return devstack.Mail{From: again.from.String(), Subject: mail.Subject, Text: mail.Text, HTML: mail.HTML}, err
		},
	}
	for _, of := range l.settings.brand() {
		preview.Settings = append(preview.Settings, devstack.PreviewSetting{Name: of.name, Value: *of.value})
	}
	return preview
}
