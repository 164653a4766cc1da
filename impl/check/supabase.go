package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/supabase"
	"github.com/resetd/resetd/impl/upstream"
)

// supabase asks for a link for an address that cannot exist. Only Supabase Auth's own "no such user" is good: the
// server counts any other answer as an outage.
func (c *checker) supabase(ctx context.Context) (found findings) {
	if !c.Supabase.Set() {
		found.add(skipped, aboutSupabase, "it is not configured")
		return found
	}
	began := time.Now()
	err := c.links.CheckUnknown(ctx, c.redirectTo)
	took := time.Since(began)
	refused := errors.Is(err, impl.ErrAuthNotConfigured)
	if refused {
		// Hosted Supabase sometimes refuses good keys. The server does not believe one refusal either.
		began = time.Now()
		err = c.links.CheckUnknown(ctx, c.redirectTo)
		took = time.Since(began)
	}
	doubt, advice := c.keyDoubt(time.Now())
	switch {
	case err == nil && refused:
		found.add(risky, aboutSupabase, "the key was refused, and accepted when asked again. What to do: nothing if it stays at that, the server asks again too; if not, ask Supabase's support")
	case err == nil:
		found.add(good, aboutSupabase, "the key is accepted, and an address without an account is answered as such (%s)", millis(took))
		if away, err := c.links.Distance(ctx); err == nil {
			found.add(noted, aboutSupabase, "Supabase Auth is %s away, there and back", millis(away))
		}
		if doubt := c.otherProject(); doubt != "" {
			found.add(risky, aboutSupabase, "the key is accepted, though %s. What to do: %s", doubt, advice)
		}
	case errors.Is(err, impl.ErrAuthNotConfigured):
		found.add(bad, aboutSupabase, "the key is refused, twice (%s)%s. What to do: %s", supabaseCause(err), doubt, advice)
	default:
		wrong := "an address without an account gets no clear answer"
		var unreached *supabase.StatusError
		if !errors.As(err, &unreached) && !isFalseAuth(err) && !isBusy(err) {
			wrong = "Supabase Auth cannot be reached"
		}
		found.add(bad, aboutSupabase, "%s: %s. What to do: %s", wrong, supabaseCause(err), supabaseAdvice(err))
		if doubt != "" {
			found.add(risky, aboutSupabase, "besides, the key looks wrong%s. What to do: %s", doubt, advice)
		}
	}
	return found
}

// supabaseCause returns an error without the sentinel that is for the server.
func supabaseCause(err error) string {
	text := plainCause(err)
	for _, known := range []string{impl.ErrAuthUnavailable.Error(), impl.ErrAuthNotConfigured.Error(), "the key was refused"} {
		text = strings.ReplaceAll(text, known+": ", "")
	}
	return text
}

// isFalseAuth says whether the answer was 200, but not from a Supabase Auth.
func isFalseAuth(err error) bool {
	return errors.Is(err, supabase.ErrLinkForNobody) || errors.Is(err, supabase.ErrNotAuth)
}

// isBusy says whether Supabase answers 429, and how long to wait.
func isBusy(err error) bool { return errors.As(err, new(*upstream.BusyError)) }

const waitAdvice = "wait, and see who else uses the project's admin API so much"

func supabaseAdvice(err error) string {
	const ownURL = "check that SUPABASE_URL is the project's API address, https://PROJECT.supabase.co (self-hosted: the gateway's; where Auth is elsewhere, SUPABASE_AUTH_URL)"
	var status *supabase.StatusError
	switch isStatus := errors.As(err, &status); {
	case errors.Is(err, supabase.ErrRewritten):
		return "let the proxy in front of Supabase pass its error answers on as they are: without their error_code every request is answered 503"
	case isFalseAuth(err):
		return "something else answers there: " + ownURL
	case isBusy(err):
		return waitAdvice
	case !isStatus:
		return ownURL + ", and whether this machine may connect to it (DNS, firewall, HTTPS_PROXY, certificates)"
	case status.Status >= 300 && status.Status < 400:
		return "give the address that it redirects to, https:// most likely: redirects are not followed, since they would carry the key elsewhere"
	case status.Status == http.StatusNotFound, status.Status == http.StatusMethodNotAllowed:
		return ownURL + "; that a proxy in front passes Supabase's error answers on as they are; and that a self-hosted Supabase Auth is 2.145 or later"
	case status.Status == http.StatusTooManyRequests:
		return waitAdvice
	case status.Status >= 500:
		return "see whether the project is paused (540) or Supabase has an incident (status.supabase.com); self-hosted: look at its logs"
	}
	return "every address would be answered so: " + ownURL + "; self-hosted: look at its logs"
}

// keyDoubt reads the claims of a key without verifying it. It returns why the key cannot work, or "", and which key
// would. It is a guess: Supabase decides.
func (c *checker) keyDoubt(now time.Time) (doubt, advice string) {
	advice = "give the service_role key or a secret key (sb_secret_…) of this project (Project Settings > API Keys; self-hosted: SERVICE_ROLE_KEY)"
	key := c.Supabase.Key
	if supabase.IsSecretKey(key) {
		if c.SupabaseAuthURL != "" {
			advice += "; or, if SUPABASE_AUTH_URL is Supabase Auth without a gateway, a JWT with the role service_role: only the gateway knows secret keys"
		}
		return "", advice
	}
	claims, err := supabase.ReadClaims(key)
	if err != nil {
		return ": it is neither a JWT nor a secret key", advice + ", not the JWT secret"
	}
	switch {
	case claims.Role != "service_role" && claims.Role != "supabase_admin":
		return ": it is a JWT with the role " + plain(claims.Role), advice
	case c.otherProject() != "":
		return ": " + c.otherProject(), advice
	case !claims.Expires.IsZero() && now.After(claims.Expires):
		return ": it has expired on " + claims.Expires.UTC().Format(time.DateOnly), advice
	}
	return "", advice
}

// otherProject says which projects key and address belong to, if these are two.
func (c *checker) otherProject() string {
	claims, err := supabase.ReadClaims(c.Supabase.Key)
	project, hosted := supabase.Project(c.SupabaseURL)
	if err != nil || !hosted || claims.Project == "" || claims.Project == project {
		return ""
	}
	return fmt.Sprintf("it belongs to the project %s, and SUPABASE_URL to %s", plain(claims.Project), project)
}

var plainClaim = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)

// plain is a claim that may be repeated.
func plain(claim string) string {
	if plainClaim.MatchString(claim) {
		return claim
	}
	return "(not shown)"
}

// sampleLabel stands for a wildcard.
const sampleLabel = "resetd-check"

// redirects asks Supabase, for each page that links may lead to, whether its allow-list has it. Supabase silently
// replaces a page that it does not allow by the project's site URL.
func (c *checker) redirects(ctx context.Context) (found findings) {
	if c.Supabase.AuthURL == "" || c.Pages == nil {
		found.add(skipped, aboutRedirect, "Supabase or SITE_URL is not configured")
		return found
	}
	pages := c.Pages.All()
	for i, page := range pages {
		asked := strings.Replace(page, "://*.", "://"+sampleLabel+".", 1)
		leadsTo, err := c.links.RedirectOrigin(ctx, asked)
		wanted := supabase.AllowListEntry(page)
		if err != nil {
			// This does not depend on the page, so the others would get the same.
			others := ""
			if i < len(pages)-1 {
				others = ", and to the origins after it,"
			}
			found.add(c.redirectVerdict(err), aboutRedirect, "whether Supabase lets links lead to %s%s cannot be told: %s. What to do: %s", wanted, others, plainCause(err), redirectAdvice(err))
			return found
		}
		if u, err := url.Parse(asked); err == nil && leadsTo == u.Scheme+"://"+u.Host {
			found.add(good, aboutRedirect, "Supabase lets links lead to %s", wanted)
			continue
		}
		found = append(found, c.redirectReplaced(wanted, leadsTo))
	}
	return found
}

// redirectReplaced reports a replaced page. In the mode action_link the mail carries the link to the wrong page. In
// the mode token_hash resetd makes the link itself, and the replacement has no effect.
func (c *checker) redirectReplaced(wanted, leadsTo string) finding {
	if u, err := url.Parse(leadsTo); err == nil && u.Host != "" {
		leadsTo = u.Scheme + "://" + u.Host
	} else {
		leadsTo = "the project's site URL, which is none,"
	}
	consequence := "links are not affected, since with LINK_MODE=token_hash resetd makes them itself, but each mail would count as redirect_replaced"
	if c.LinkMode == delivery.ActionLink {
		consequence = "with LINK_MODE=action_link users would end up there"
	}
	return finding{c.redirectVerdict(nil), aboutRedirect, fmt.Sprintf(
		"Supabase does not let links lead to %s, and leads to %s instead: %s. What to do: add %s to the project's redirect URLs (Authentication > URL Configuration; self-hosted: GOTRUE_URI_ALLOW_LIST)",
		wanted, leadsTo, consequence, wanted)}
}

func (c *checker) redirectVerdict(err error) string {
	var status *supabase.StatusError
	if c.LinkMode != delivery.ActionLink || isBusy(err) || errors.As(err, &status) && status.Status == http.StatusTooManyRequests {
		return risky
	}
	return bad
}

func redirectAdvice(err error) string {
	const limited = "try again in five minutes: Supabase limits verifications by address"
	var status *supabase.StatusError
	if isBusy(err) {
		return limited
	}
	if errors.As(err, &status) {
		switch status.Status {
		case http.StatusTooManyRequests:
			return limited
		case http.StatusUnauthorized, http.StatusForbidden:
			return "open /auth/v1/verify in the gateway for requests without a key: the browser in which a link is opened has none"
		}
	}
	return "see what is said of supabase above; if nothing, let GET requests through to /auth/v1/verify"
}
