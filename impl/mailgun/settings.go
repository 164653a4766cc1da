package mailgun

import (
	"errors"
	"strings"

	"github.com/resetd/resetd/impl/setting"
)

// The addresses of Mailgun's regions. A domain is in one of them, and unknown in the other.
// https://documentation.mailgun.com/docs/mailgun/api-reference/api-overview#mailgun-regions
const (
	BaseUS = "https://api.mailgun.net"
	BaseEU = "https://api.eu.mailgun.net"
)

// CheckKey judges MAILGUN_API_KEY. It cannot tell a webhook signing key from an API key: the signing key
// in Mailgun's reference begins with key- too.
// https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/account-management
func CheckKey(key string) error {
	if strings.HasPrefix(key, "pubkey-") {
		return errors.New("is the public validation key, which sends nothing: give a sending key of the domain")
	}
	return setting.CheckKey(key)
}

// CheckSigningKey judges MAILGUN_WEBHOOK_SIGNING_KEY.
func CheckSigningKey(key string) error {
	if strings.HasPrefix(key, "pubkey-") {
		return errors.New("is the public validation key, which signs nothing: give the HTTP webhook signing key of the account")
	}
	return setting.CheckKey(key)
}

// CheckBase judges MAILGUN_API_BASE. It judges the path only at Mailgun's own hosts, because a proxy may have
// paths of its own.
func CheckBase(base string) error {
	u, err := setting.ParseURL(base)
	if err != nil {
		return err
	}
	switch host := strings.ToLower(u.Hostname()); {
	case host != "api.mailgun.net" && host != "api.eu.mailgun.net":
		if host == "mailgun.com" || host == "mailgun.org" || host == "mailgun.net" ||
			strings.HasSuffix(host, ".mailgun.com") || strings.HasSuffix(host, ".mailgun.org") || strings.HasSuffix(host, ".mailgun.net") {
			return errors.New("is an address of Mailgun's that takes no messages: write " + BaseUS + ", or " + BaseEU + " for a domain in the EU")
		}
	case u.Scheme != "https":
		return errors.New("must begin with https://, or the key can be read on the way")
	case apiRoot(u.Path) != "":
		return errors.New("must end after the host: write https://" + host)
	}
	return nil
}

// apiRoot removes the version that Mailgun's examples and other programs have at the end of the address.
func apiRoot(base string) string {
	return strings.TrimSuffix(strings.TrimRight(base, "/"), "/v3")
}
