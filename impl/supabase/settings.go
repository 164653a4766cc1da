package supabase

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/resetd/resetd/impl/setting"
)

const secretKeyPrefix = "sb_secret_"

// IsSecretKey reports whether a key is one of the newer secret keys. These are no JWTs, so they have no claims.
func IsSecretKey(key string) bool { return strings.HasPrefix(key, secretKeyPrefix) }

// CheckKey judges SUPABASE_SERVICE_ROLE_KEY. It refuses only what cannot be a key of the admin API: which roles
// may use that is a setting of a self-hosted Supabase Auth (GOTRUE_JWT_ADMIN_ROLES).
func CheckKey(key string) error {
	const instead = ": give the service_role key or a secret key (sb_secret_…)"
	if err := setting.CheckKey(key); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(key, "sb_publishable_"):
		return errors.New("is a publishable key" + instead)
	case strings.HasPrefix(key, "sbp_"):
		return errors.New("is a personal access token (sbp_…), for Supabase's management" + instead)
	case !strings.HasPrefix(key, "eyJ"): // {" in base64: what every JWT begins with
		return nil
	}
	switch claims, err := ReadClaims(key); {
	case err != nil:
		return errors.New("is no whole JWT, a part was lost in copying" + instead)
	case claims.Role == "anon":
		return errors.New("is the anon key, a JWT with the role anon" + instead)
	case claims.Role == "authenticated":
		return errors.New("is a user's access token, a JWT with the role authenticated" + instead)
	}
	return nil
}

// Claims are the claims of a key that is a JWT. They are not verified.
type Claims struct {
	Role    string
	Project string    // the project's reference, with which its address begins; may be empty
	Expires time.Time // may be zero
}

// ErrNoJWT says that a key is no complete JWT.
var ErrNoJWT = errors.New("the key is no JWT")

// ReadClaims reads the claims of a key. Its error is ErrNoJWT.
func ReadClaims(key string) (Claims, error) {
	parts := strings.Split(key, ".")
	if len(parts) != 3 {
		return Claims{}, ErrNoJWT
	}
	var said struct {
		Role    string  `json:"role"`
		Ref     string  `json:"ref"`
		Expires float64 `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &said) != nil {
		return Claims{}, ErrNoJWT
	}
	claims := Claims{Role: said.Role, Project: said.Ref}
	if said.Expires > 0 {
		claims.Expires = time.Unix(int64(said.Expires), 0)
	}
	return claims, nil
}

// CheckURL judges SUPABASE_URL. A path is allowed, since a gateway may be below one.
func CheckURL(address string) error {
	const instead = ": write the project's address, "
	if scheme, _, _ := strings.Cut(address, ":"); strings.EqualFold(scheme, "postgres") || strings.EqualFold(scheme, "postgresql") {
		return errors.New("is the address of the database" + instead + projectAddress(address))
	}
	u, err := setting.ParseURL(address)
	if err != nil {
		return err
	}
	if api := apiPath.FindStringSubmatch(u.Path); api != nil {
		return errors.New("must end before " + api[1] + ", which is no part of the project's address")
	}
	switch host := strings.ToLower(u.Hostname()); {
	case host == "supabase.com", host == "api.supabase.com", host == "app.supabase.com", host == "app.supabase.io":
		return errors.New("is an address of Supabase's own, and not of the project" + instead + projectAddress(address))
	case !isHosted(host):
	case strings.HasPrefix(host, "db."):
		return errors.New("is the address of the database" + instead + projectAddress(address))
	case u.Scheme != "https":
		return errors.New("must begin with https://, or the key can be read on the way")
	case strings.Trim(u.Path, "/") != "":
		return errors.New("must end after the host" + instead + "https://" + host)
	}
	return nil
}

// CheckAuthURL judges SUPABASE_AUTH_URL.
func CheckAuthURL(address string) error {
	u, err := setting.ParseURL(address)
	if err != nil {
		return err
	}
	if !isHosted(u.Hostname()) {
		return nil
	}
	if u.Scheme != "https" || strings.TrimRight(u.Path, "/") != "/auth/v1" {
		return errors.New("must be left out where SUPABASE_URL is https://PROJECT.supabase.co: it is for a Supabase Auth elsewhere")
	}
	return nil
}

// apiPath finds the path of a project's API, which people copy with the project's address.
var apiPath = regexp.MustCompile(`(/(?:auth|rest|storage|functions|realtime|graphql)/v1)(?:/|$)`)

// Project returns the reference of the project that an address belongs to, and false for an address outside of
// Supabase's own domains.
func Project(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || !isHosted(u.Hostname()) {
		return "", false
	}
	project, _, _ := strings.Cut(strings.ToLower(u.Hostname()), ".")
	return project, true
}

func isHosted(host string) bool {
	host = strings.ToLower(host)
	return strings.HasSuffix(host, ".supabase.co") || strings.HasSuffix(host, ".supabase.in")
}

// reference finds a project's reference in the addresses of its dashboard and its database. It is no secret,
// since every app has it. It never matches in the password of a database, which comes after a colon.
var reference = regexp.MustCompile(`(?i)(?:^https?://[^@]*/project/|^[a-z]+://postgres\.|^[a-z]+://(?:[^/]*@)?db\.)([a-z]{20})(?:[/?#:.]|$)`)

// projectAddress guesses the address of a project from the address of its dashboard or its database.
func projectAddress(of string) string {
	if found := reference.FindStringSubmatch(of); found != nil {
		return "https://" + strings.ToLower(found[1]) + ".supabase.co"
	}
	return "https://PROJECT.supabase.co"
}

// AllowListEntry writes a page as it belongs on Supabase's allow-list of redirects: that is compared without
// the fragment (utilities.IsRedirectURLValid of v2.196).
func AllowListEntry(page string) string {
	withoutFragment, _, _ := strings.Cut(page, "#")
	return withoutFragment
}
