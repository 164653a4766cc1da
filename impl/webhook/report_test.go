package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	webhookKey   = "key-of-this-test"
	webhookToken = "0123456789abcdef0123456789abcdef0123456789abcdef01"
)

var webhookNow = time.Unix(1_770_920_772, 0)

// sign signs by hand, where the room uses a library.
func sign(key, timestamp, token string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(timestamp + token))
	return hex.EncodeToString(mac.Sum(nil))
}

// signature returns the signature of a body, at this distance from now.
func signature(key string, from time.Duration) string {
	timestamp := fmt.Sprint(webhookNow.Add(from).Unix())
	return fmt.Sprintf(`{"timestamp":%q,"token":%q,"signature":%q}`, timestamp, webhookToken, sign(key, timestamp, webhookToken))
}

func signedBody(event string) []byte {
	return fmt.Appendf(nil, `{"signature":%s,"event-data":%s}`, signature(webhookKey, 0), event)
}

// permanent has every member that is read, in the form of Mailgun's examples, and some members that must not
// be read.
const permanent = `{"event":"failed","severity":"permanent","reason":"bounce","log-level":"error","id":"G9Bn5sl1TC6nu79C8C0bwg",
	"timestamp":1770920771.5,"recipient":"Known@Example.com","recipient-domain":"Example.com","tags":["password-reset"],"campaigns":[],
	"delivery-status":{"attempt-no":1,"message":"5.1.1 No such user","code":550,"enhanced-code":"5.1.1","description":"","session-seconds":0.12,"tls":true},
	"flags":{"is-routed":false,"is-authenticated":true,"is-system-test":false,"is-test-mode":false},
	"envelope":{"sender":"no-reply@example.com","transport":"smtp","targets":"Known@Example.com"},
	"message":{"headers":{"to":"Known@Example.com","subject":"Reset your password"},"attachments":[],"size":111},
	"storage":{"url":"https://example.com/key","key":"key"},"user-variables":{}}`

// TestPublishedSignatures: the room accepts the signatures in the tests of Mailgun's PHP client and of Symfony's
// bridge, which others have made.
// https://github.com/mailgun/mailgun-php/blob/master/tests/Api/WebhookTest.php
// https://github.com/symfony/symfony/tree/7.4/src/Symfony/Component/Mailer/Bridge/Mailgun/Tests/Webhook
func TestPublishedSignatures(t *testing.T) {
	for _, published := range []struct {
		key, token, signature string
		timestamp             int64
	}{
		{
			key: "key-3ax6xnjp29jd6fds4gc373sgvjxteol0", token: "5egbgr1vjgqxtrnp65xfznchgdccwh5d6i09vijqi3whgowmn6",
			signature: "9cfc5c41582e51246e73c88d34db3af0a3a2692a76fbab81492842f000256d33", timestamp: 1403645220,
		},
		{
			key: "key-0p6mqbf74lb20gzq9f4dhpn9rg3zyk26", token: "fff0ebc59c0516f4ce0823212a2f45e5c67814420b99fe558b",
			signature: "a0cd251821d8fd56a2130b541becc8e441023574e602fe9829a9ab9fbfdea33f", timestamp: 1661590666,
		},
	} {
		// Mailgun documents a number, and sends a string.
		for _, form := range []string{`"%d"`, `%d`} {
			body := fmt.Appendf(nil, `{"signature":{"timestamp":`+form+`,"token":%q,"signature":%q},"event-data":%s}`,
				published.timestamp, published.token, published.signature, permanent)
			now := time.Unix(published.timestamp, 0)
			if event, err := newVerifier(published.key).read(body, now); err != nil || event.kind != permanentFail {
				t.Errorf("%s: %+v, %v", form, event, err)
			}
			if event, err := newVerifier(published.key+"x").read(body, now); !errors.Is(err, errSignature) {
				t.Errorf("%s: with another key: %+v, %v", form, event, err)
			}
		}
	}
}

// TestWebhookEvents: these parts of a signed event are read.
func TestWebhookEvents(t *testing.T) {
	replace := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(permanent, pairs[i]) {
				t.Fatalf("the example lacks %q", pairs[i])
			}
		}
		return strings.NewReplacer(pairs...).Replace(permanent)
	}
	failed := event{kind: permanentFail, recipient: "Known@Example.com", code: 550}
	delayed := event{kind: temporaryFail, recipient: "Known@Example.com", code: 452}
	uncoded := event{kind: permanentFail, recipient: "Known@Example.com"}
	other := event{kind: other}
	for name, c := range map[string]struct {
		event string
		want  event
	}{
		"permanent":              {permanent, failed},
		"temporary":              {replace(`"permanent"`, `"temporary"`, `:550`, `:452`), delayed},
		"complained":             {`{"event":"complained","recipient":"a@b.co","tags":["x","password-reset"],"flags":{"is-test-mode":false}}`, event{kind: complained, recipient: "a@b.co"}},
		"a message in test mode": {replace(`"is-test-mode":false`, `"is-test-mode":true`), other},
		"another's":              {replace(`password-reset`, `newsletter`), other},
		"a longer tag":           {replace(`password-reset`, `password-reset-2`), other},
		"no tags":                {replace(`"tags":["password-reset"],`, ``), other},
		"tags null":              {replace(`["password-reset"]`, `null`), other},
		"an unknown severity":    {replace(`"permanent"`, `"eternal"`), other},
		"no severity":            {replace(`"severity":"permanent",`, ``), other},
		"delivered":              {replace(`"failed"`, `"delivered"`), other},
		"unheard of":             {replace(`"failed"`, `"</script>\u0000"`), other},
		"Mailgun's own code":     {replace(`:550`, `:605`), event{kind: permanentFail, recipient: "Known@Example.com", code: 605}},
		"code 0":                 {replace(`:550`, `:0`), uncoded},
		"code 99":                {replace(`:550`, `:99`), uncoded},
		"code 100":               {replace(`:550`, `:100`), event{kind: permanentFail, recipient: "Known@Example.com", code: 100}},
		"code 999":               {replace(`:550`, `:999`), event{kind: permanentFail, recipient: "Known@Example.com", code: 999}},
		"code 1000":              {replace(`:550`, `:1000`), uncoded},
		"code negative":          {replace(`:550`, `:-550`), uncoded},
		"code huge":              {replace(`:550`, `:1e400`), uncoded},
		"code in words":          {replace(`:550`, `:"five fifty"`), uncoded},
		"no status":              {replace(`"delivery-status"`, `"status"`), uncoded},
		"status of new form":     {replace(`"delivery-status":{`, `"delivery-status":[1],"x":{`), uncoded},
		"flags of new form":      {replace(`"flags":{`, `"flags":"none","x":{`), failed},
		"a tag of new form":      {replace(`["password-reset"]`, `[{"name":"x"},"password-reset"]`), failed},
		"a quoted recipient":     {replace(`"recipient":"Known@Example.com"`, `"recipient":"\"a..b\"@docomo.example"`), event{kind: permanentFail, recipient: "a..b@docomo.example", code: 550}},
		"a bare odd one":         {replace(`"recipient":"Known@Example.com"`, `"recipient":"a..b@docomo.example"`), event{kind: permanentFail, recipient: "a..b@docomo.example", code: 550}},
		"no recipient":           {replace(`"recipient":"Known@Example.com",`, ``), event{kind: permanentFail, code: 550}},
	} {
		event, err := newVerifier(webhookKey).read(signedBody(c.event), webhookNow)
		c.want.id = fmt.Sprint(webhookNow.Unix()) + webhookToken
		if err != nil || event != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, event, err, c.want)
		}
	}
}

// TestWebhookRefusals: an event without a valid signature is refused, whatever it says, and the error repeats
// nothing of it.
func TestWebhookRefusals(t *testing.T) {
	good := signature(webhookKey, 0)
	timestamp := fmt.Sprint(webhookNow.Unix())
	hexes := sign(webhookKey, timestamp, webhookToken)
	body := func(signature, event string) string {
		return fmt.Sprintf(`{"signature":%s,"event-data":%s}`, signature, event)
	}
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"nothing":                {``, errMalformed},
		"no JSON":                {`signature=` + hexes, errMalformed},
		"null":                   {`null`, errMalformed},
		"a list":                 {`[]`, errMalformed},
		"cut off":                {strings.TrimSuffix(body(good, permanent), "}"), errMalformed},
		"two values":             {body(good, permanent) + `{}`, errMalformed},
		"deep":                   {body(good, strings.Repeat(`[`, 100_000)+strings.Repeat(`]`, 100_000)), errMalformed},
		"no signature":           {`{"event-data":` + permanent + `}`, errMalformed},
		"signature of text":      {body(`"`+hexes+`"`, permanent), errMalformed},
		"no token":               {body(strings.Replace(good, webhookToken, ``, 1), permanent), errMalformed},
		"a long token":           {body(strings.Replace(good, webhookToken, strings.Repeat("a", 251), 1), permanent), errMalformed},
		"token of number":        {body(strings.Replace(good, `"`+webhookToken+`"`, `7`, 1), permanent), errMalformed},
		"no timestamp":           {body(strings.Replace(good, timestamp, ``, 1), permanent), errMalformed},
		"timestamp of fractions": {body(strings.Replace(good, timestamp, timestamp+".5", 1), permanent), errMalformed},
		"timestamp in words":     {body(strings.Replace(good, timestamp, `now`, 1), permanent), errMalformed},
		"no event":               {`{"signature":` + good + `}`, errMalformed},
		"event null":             {body(good, `null`), errMalformed},
		"event of text":          {body(good, `"failed"`), errMalformed},
		"event without a name":   {body(good, `{"severity":"permanent"}`), errMalformed},
		"name of a number":       {body(good, `{"event":1,"severity":"permanent"}`), errMalformed},

		"signed by another":     {body(signature("another", 0), permanent), errSignature},
		"signed with no key":    {body(signature("", 0), permanent), errSignature},
		"not signed":            {body(strings.Replace(good, hexes, ``, 1), permanent), errSignature},
		"no hex":                {body(strings.Replace(good, hexes, `zz`+hexes[2:], 1), permanent), errSignature},
		"half a signature":      {body(strings.Replace(good, hexes, hexes[:32], 1), permanent), errSignature},
		"one bit of it":         {body(strings.Replace(good, hexes, flip(hexes), 1), permanent), errSignature},
		"another time":          {body(strings.Replace(good, timestamp, fmt.Sprint(webhookNow.Unix()+1), 1), permanent), errSignature},
		"another token":         {body(strings.Replace(good, webhookToken, flip(webhookToken), 1), permanent), errSignature},
		"parent's by another":   {body(strings.Replace(signature("another", 0), `}`, `,"parent-signature":"`+flip(hexes)+`"}`, 1), permanent), errSignature},
		"badly signed, no JSON": {`{"signature":` + signature("another", 0) + `,"event-data":{}`, errMalformed},

		"a second too old":   {body(signature(webhookKey, -maxWebhookAge-time.Second), permanent), errExpired},
		"ages ago":           {body(signature(webhookKey, -100*365*24*time.Hour), permanent), errExpired},
		"a second too early": {body(signature(webhookKey, maxWebhookSkew+time.Second), permanent), errEarly},
		"in an age":          {body(signature(webhookKey, 200*365*24*time.Hour), permanent), errEarly},
		// Digits are moved between the time and the token, in both directions.
		"moved to the token": {body(strings.NewReplacer(`"`+timestamp, `"`+timestamp[:9], `"`+webhookToken, `"`+timestamp[9:]+webhookToken).Replace(good), permanent), errExpired},
		"moved to the time":  {body(strings.NewReplacer(timestamp, timestamp+webhookToken[:1], webhookToken, webhookToken[1:]).Replace(good), permanent), errEarly},
		"by a leading zero":  {body(strings.Replace(good, timestamp, `0`+timestamp, 1), permanent), errMalformed},
	} {
		event, err := newVerifier(webhookKey).read([]byte(c.body), webhookNow)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, event, err, c.want)
		}
		if event.kind != "" || event.recipient != "" || event.code != 0 {
			t.Errorf("%s: refused, and yet %+v", name, event)
		}
		if err != nil && strings.ContainsAny(err.Error(), `0123456789"@{`) {
			t.Errorf("%s: the error may repeat what came: %v", name, err)
		}
	}
}

// flip changes the last letter.
func flip(text string) string {
	last := byte('0')
	if text[len(text)-1] == last {
		last = '1'
	}
	return text[:len(text)-1] + string(last)
}

// TestWebhookAge: events at the bounds of age are accepted.
func TestWebhookAge(t *testing.T) {
	for _, from := range []time.Duration{-maxWebhookAge, -8 * time.Hour, 0, maxWebhookSkew} {
		body := fmt.Appendf(nil, `{"signature":%s,"event-data":%s}`, signature(webhookKey, from), permanent)
		if _, err := newVerifier(webhookKey).read(body, webhookNow); err != nil {
			t.Errorf("signed at now %+v: %v", from, err)
		}
	}
}

// TestParentSignature: a subaccount's events are also signed with its parent's key.
func TestParentSignature(t *testing.T) {
	timestamp := fmt.Sprint(webhookNow.Unix())
	body := fmt.Appendf(nil, `{"signature":{"timestamp":%q,"token":%q,"signature":%q,"parent-signature":%q},"event-data":%s}`,
		timestamp, webhookToken, sign("of the subaccount", timestamp, webhookToken), sign(webhookKey, timestamp, webhookToken), permanent)
	for _, key := range []string{webhookKey, "of the subaccount"} {
		if event, err := newVerifier(key).read(body, webhookNow); err != nil || event.kind != permanentFail {
			t.Errorf("%s: %+v, %v", key, event, err)
		}
	}
}

// TestNoSigningKey: without a signing key no event is accepted. The library would use the API key, and with an
// empty key anybody could sign.
func TestNoSigningKey(t *testing.T) {
	body := fmt.Appendf(nil, `{"signature":%s,"event-data":%s}`, signature("", 0), permanent)
	if event, err := newVerifier("").read(body, webhookNow); !errors.Is(err, errSignature) {
		t.Errorf("%+v, %v", event, err)
	}
}

// FuzzWebhook reads arbitrary bodies: an accepted event has a signature made with the key, and what is read from
// it is bounded.
func FuzzWebhook(f *testing.F) {
	f.Add(signedBody(permanent))
	f.Add(signedBody(`{"event":"complained","tags":["password-reset"],"recipient":"a@b.co"}`))
	f.Add(signedBody(`{"event":"failed","severity":"temporary","tags":[null,1,{}],"flags":[],"delivery-status":{"code":-1}}`))
	f.Add([]byte(`{"signature":{"timestamp":1770920772,"token":"","parent-signature":null},"event-data":null}`))
	f.Add([]byte(`{"SIGNATURE":{"TimeStamp":"0x1","token":"\ud800"},"signature":[],"event-data":"` + "\xff" + `"}`))
	f.Add(bytes.Repeat([]byte(`[`), 20_000))
	webhooks := newVerifier(webhookKey)
	timestamp := fmt.Sprint(webhookNow.Unix())
	signed := []byte(sign(webhookKey, timestamp, webhookToken))
	f.Fuzz(func(t *testing.T, body []byte) {
		event, err := webhooks.read(body, webhookNow)
		if err != nil {
			for _, known := range []error{errMalformed, errSignature, errExpired, errEarly} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatalf("an error of its own: %v", err)
		}
		if event.id != timestamp+webhookToken {
			t.Fatalf("believed, without the one signature there is: %q", body)
		}
		if !bytes.Contains(bytes.ToLower(body), signed) && !bytes.Contains(body, []byte(`\u`)) {
			t.Fatalf("believed, without a signature: %q", body)
		}
		switch event.kind {
		case permanentFail, temporaryFail, complained:
			if event.code != 0 && (event.code < 100 || event.code > 999) {
				t.Fatalf("code %d", event.code)
			}
		case other:
			if event.recipient != "" || event.code != 0 {
				t.Fatalf("other: %+v", event)
			}
		default:
			t.Fatalf("kind %q", event.kind)
		}
	})
}
