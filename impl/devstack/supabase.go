package devstack

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// sessionLifetime is how long an access token works: Supabase's default, 3600 s.
	sessionLifetime = time.Hour

	// Supabase's default for password_min_length, and bcrypt's longest input.
	minPasswordLen, maxPasswordLen = 6, 72

	// maxAuthBody bounds what is read of a request to Supabase. Its real bodies are under 1 KB.
	maxAuthBody = 1 << 20

	// secretKeyPrefix marks Supabase's new keys. They are no JWTs: the gateway exchanges one
	// that it finds in the header apikey, and has no use for one sent as Bearer.
	// https://supabase.com/docs/guides/api/api-keys
	secretKeyPrefix = "sb_secret_"
)

// emailFormat matches the addresses that Supabase Auth accepts. It is the expression of WHATWG's
// <input type=email>: ASCII only, and a domain needs no dot.
var emailFormat = regexp.MustCompile("^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$")

// account is a user and the one recovery link that is alive for it, if any. The stack's
// lock guards it.
type account struct {
	id, identityID string
	stored         string // the address as stored
	created        time.Time
	bannedUntil    time.Time // zero: not banned
	metadata       map[string]any

	updated        time.Time
	recoverySentAt time.Time // zero: never
	lastSignInAt   time.Time // zero: never
	token          string    // hash of the live recovery token, "" if there is none
	password       string    // in clear, "" until one is set
}

func newAccount(stored string, created time.Time) *account {
	created = created.Truncate(time.Microsecond) // what PostgreSQL keeps of a timestamp
	return &account{
		id: randomUUID(), identityID: randomUUID(),
		stored: stored, created: created, updated: created,
		metadata: map[string]any{"email_verified": true},
	}
}

func (a *account) reset() {
	a.updated = a.created
	a.recoverySentAt, a.lastSignInAt = time.Time{}, time.Time{}
	a.token, a.password = "", ""
}

// authSession is a sign-in. The stack's lock guards the list of them; one never changes.
type authSession struct {
	id           string
	account      *account
	accessToken  string
	refreshToken string
	expires      time.Time
}

// authUser and what is in it have the members of the recorded answers, in their order.
type authUser struct {
	ID               string         `json:"id"`
	Aud              string         `json:"aud"`
	Role             string         `json:"role"`
	Email            string         `json:"email"`
	EmailConfirmedAt time.Time      `json:"email_confirmed_at"`
	Phone            string         `json:"phone"`
	ConfirmedAt      time.Time      `json:"confirmed_at"`
	RecoverySentAt   time.Time      `json:"recovery_sent_at,omitzero"`
	LastSignInAt     time.Time      `json:"last_sign_in_at,omitzero"`
	AppMetadata      appMetadata    `json:"app_metadata"`
	UserMetadata     map[string]any `json:"user_metadata"`
	Identities       []authIdentity `json:"identities"`
	CreatedAt        time.Time      `json:"created_at"`
	UpdatedAt        time.Time      `json:"updated_at"`
	BannedUntil      time.Time      `json:"banned_until,omitzero"`
	IsAnonymous      bool           `json:"is_anonymous"`
}

type appMetadata struct {
	Provider  string   `json:"provider"`
	Providers []string `json:"providers"`
}

type authIdentity struct {
	IdentityID   string       `json:"identity_id"`
	ID           string       `json:"id"`
	UserID       string       `json:"user_id"`
	IdentityData identityData `json:"identity_data"`
	Provider     string       `json:"provider"`
	LastSignInAt time.Time    `json:"last_sign_in_at"`
	CreatedAt    time.Time    `json:"created_at"`
	UpdatedAt    time.Time    `json:"updated_at"`
	Email        string       `json:"email"`
}

type identityData struct {
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
	PhoneVerified bool   `json:"phone_verified"`
	Sub           string `json:"sub"`
}

type generatedLink struct {
	authUser
	ActionLink       string `json:"action_link"`
	EmailOTP         string `json:"email_otp"`
	HashedToken      string `json:"hashed_token"`
	VerificationType string `json:"verification_type"`
	RedirectTo       string `json:"redirect_to"`
}

type tokenAnswer struct {
	AccessToken  string   `json:"access_token"`
	TokenType    string   `json:"token_type"`
	ExpiresIn    int      `json:"expires_in"`
	ExpiresAt    int64    `json:"expires_at"`
	RefreshToken string   `json:"refresh_token"`
	User         authUser `json:"user"`
}

func (a *account) user() authUser {
	return authUser{
		ID: a.id, Aud: "authenticated", Role: "authenticated", Email: a.stored,
		EmailConfirmedAt: a.created, ConfirmedAt: a.created,
		RecoverySentAt: a.recoverySentAt, LastSignInAt: a.lastSignInAt,
		AppMetadata:  appMetadata{Provider: "email", Providers: []string{"email"}},
		UserMetadata: a.metadata,
		Identities: []authIdentity{{
			IdentityID: a.identityID, ID: a.id, UserID: a.id,
			IdentityData: identityData{Email: a.stored, Sub: a.id},
			Provider:     "email", LastSignInAt: a.created, CreatedAt: a.created, UpdatedAt: a.created,
			Email: a.stored,
		}},
		CreatedAt: a.created, UpdatedAt: a.updated, BannedUntil: a.bannedUntil,
	}
}

// refusal is an answer of Supabase's that is no success. Those of Auth itself have a code;
// those of the gateway in front of it have another shape and none.
type refusal struct {
	status  int
	code    string   // error_code and X-Sb-Error-Code, "" for the gateway
	message string   // msg, or the gateway's message
	reasons []string // of weak_password
}

var (
	errNoAuthorization = &refusal{status: http.StatusUnauthorized, code: "no_authorization", message: "This endpoint requires a valid Bearer token"}
	errBadJWT          = &refusal{status: http.StatusForbidden, code: "bad_jwt", message: "invalid JWT: unable to parse or verify signature, token is malformed: token contains an invalid number of segments"}
	errExpiredJWT      = &refusal{status: http.StatusForbidden, code: "bad_jwt", message: "invalid JWT: unable to parse or verify signature, token has invalid claims: token is expired"}
	errNotAdmin        = &refusal{status: http.StatusForbidden, code: "not_admin", message: "User not allowed"}
	errUserNotFound    = &refusal{status: http.StatusNotFound, code: "user_not_found", message: "User with this email not found"}
	errLinkExpired     = &refusal{status: http.StatusForbidden, code: "otp_expired", message: "Email link is invalid or has expired"}
	errUserBanned      = &refusal{status: http.StatusForbidden, code: "user_banned", message: "User is banned"}
	errOTPExpired      = &refusal{status: http.StatusForbidden, code: "otp_expired", message: "Token has expired or is invalid"}
	errInvalidLogin    = &refusal{status: http.StatusBadRequest, code: "invalid_credentials", message: "Invalid login credentials"}
	errUnknownGrant    = &refusal{status: http.StatusBadRequest, code: "invalid_credentials", message: "unsupported_grant_type"}
	errNoLogin         = &refusal{status: http.StatusBadRequest, code: "validation_failed", message: "missing email or phone"}
	errNoRefreshToken  = &refusal{status: http.StatusBadRequest, code: "refresh_token_not_found", message: "Invalid Refresh Token: Refresh Token Not Found"}
	errSamePassword    = &refusal{status: http.StatusUnprocessableEntity, code: "same_password", message: "New password should be different from the old password."}

	errGatewayNoKey      = &refusal{status: http.StatusUnauthorized, message: "No API key found in request"}
	errGatewayInvalidKey = &refusal{status: http.StatusUnauthorized, message: "Invalid API key"}
	errGatewayNoRoute    = &refusal{status: http.StatusNotFound, message: "no Route matched with those values"}
)

func validationFailed(format string, args ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, code: "validation_failed", message: fmt.Sprintf(format, args...)}
}

func (e *refusal) write(w http.ResponseWriter) {
	if e.code == "" {
		writeJSON(w, e.status, struct {
			Message string `json:"message"`
		}{e.message})
		return
	}
	type weakPassword struct {
		Reasons []string `json:"reasons"`
	}
	body := struct {
		Code         int           `json:"code"`
		ErrorCode    string        `json:"error_code"`
		Msg          string        `json:"msg"`
		WeakPassword *weakPassword `json:"weak_password,omitempty"`
	}{Code: e.status, ErrorCode: e.code, Msg: e.message}
	if e.reasons != nil {
		body.WeakPassword = &weakPassword{e.reasons}
	}
	w.Header().Set("Vary", "Origin")
	w.Header().Set("X-Sb-Error-Code", e.code)
	writeJSON(w, e.status, body)
}

// Supabase serves the calls that resetd makes, and those of supabase-js in an app's page. Under /auth/v1 these
// are POST /admin/generate_link (for type recovery), GET and POST /verify, GET and PUT /user, POST /token and
// /logout, and GET /health. Everything else gets the gateway's 404.
// https://supabase.com/docs/reference/self-hosting-auth/introduction
func (s *Stack) Supabase() http.Handler {
	return withCORS(s.recorded("supabase", maxAuthBody, s.cfg.SupabaseMiddleware, s.auth(), func(c *Call, _ *http.Request, body []byte) {
		var question struct{ Email string }
		if json.Unmarshal(body, &question) == nil {
			c.Email = question.Email
		}
	}))
}

// auth routes what Supabase serves.
func (s *Stack) auth() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/v1/admin/generate_link", s.generateLink)
	mux.HandleFunc("GET /auth/v1/verify", s.verifyGet)
	mux.HandleFunc("POST /auth/v1/verify", s.verifyPost)
	mux.HandleFunc("GET /auth/v1/user", s.behindGateway(s.showUser))
	mux.HandleFunc("PUT /auth/v1/user", s.behindGateway(s.updateUser))
	mux.HandleFunc("POST /auth/v1/token", s.behindGateway(s.token))
	mux.HandleFunc("POST /auth/v1/logout", s.behindGateway(s.logout))
	mux.HandleFunc("GET /auth/v1/health", s.authHealth)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { errGatewayNoRoute.write(w) })
	return mux
}

// withCORS lets the pages of every origin call, as Supabase does. CORS protects nothing here: every call needs a
// key or a token, and browsers send neither by themselves.
func withCORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "X-Total-Count, Link, X-Supabase-Api-Version")
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		w.WriteHeader(http.StatusNoContent)
	})
}

// behindGateway refuses requests without the key of an app in the header apikey, if one is configured. It does
// not stand before /verify, which a plain link must reach.
func (s *Stack) behindGateway(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch apikey := r.Header.Get("Apikey"); {
		case s.cfg.PublishableKey == "", apikey == s.cfg.PublishableKey, apikey != "" && apikey == s.cfg.ServiceRoleKey:
			next(w, r)
		case apikey == "":
			errGatewayNoKey.write(w)
		default:
			errGatewayInvalidKey.write(w)
		}
	}
}

// recorded notes the call, then hands it to the test's middleware and the service. The body
// is read first, so that the record says whom the call was about even if a fault then
// swallows it.
func (s *Stack) recorded(service string, limit int64, middleware func(http.Handler) http.Handler, next http.Handler, describe func(*Call, *http.Request, []byte)) http.Handler {
	if middleware != nil {
		next = middleware(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
		call := Call{Service: service, Method: r.Method, Path: r.URL.Path, At: s.now(), Header: redactedHeader(r.Header)}
		tooLarge := int64(len(body)) > limit
		if err == nil && !tooLarge {
			describe(&call, r, body)
		}
		s.record(call)
		switch {
		case tooLarge:
			http.Error(w, "Request Entity Too Large", http.StatusRequestEntityTooLarge)
		case err != nil:
			http.Error(w, "Bad Request", http.StatusBadRequest) // it broke off; nobody reads this
		default:
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		}
	})
}

// refuseAdmin returns the refusal of the gateway or Auth to let a request act as service_role, or nil.
func (s *Stack) refuseAdmin(r *http.Request) *refusal {
	key, apikey, bearer := s.cfg.ServiceRoleKey, r.Header.Get("Apikey"), bearerToken(r)
	switch {
	case strings.HasPrefix(bearer, secretKeyPrefix):
		return errGatewayInvalidKey
	case strings.HasPrefix(apikey, secretKeyPrefix) && bearer == "":
		if apikey != key {
			return errBadJWT
		}
		return nil
	case bearer == "":
		return errNoAuthorization
	case bearer != key:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.session(bearer) != nil {
			return errNotAdmin // an ordinary user's token
		}
		return errBadJWT
	case apikey == "":
		return errGatewayNoKey // Auth itself would be content
	case apikey != key:
		return errGatewayInvalidKey
	}
	return nil
}

func (s *Stack) generateLink(w http.ResponseWriter, r *http.Request) {
	if e := s.refuseAdmin(r); e != nil {
		e.write(w)
		return
	}
	var params struct {
		Type       string `json:"type"`
		Email      string `json:"email"`
		RedirectTo string `json:"redirect_to"`
	}
	if e := readJSON(r, &params); e != nil {
		e.write(w)
		return
	}
	link, e := s.newLink(params.Type, params.Email, s.redirectTarget(r, params.RedirectTo), s.authURL(r))
	if e != nil {
		e.write(w)
		return
	}
	w.Header().Set("Vary", "Origin")
	writeJSON(w, http.StatusOK, link)
}

// newLink makes the account's one valid recovery link. The one before becomes invalid.
func (s *Stack) newLink(kind, email, redirectTo, authURL string) (*generatedLink, *refusal) {
	email, e := checkEmail(email)
	if e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byEmail[email]
	switch {
	case a == nil && kind == "recovery":
		return nil, errUserNotFound
	case kind != "recovery":
		// The other kinds exist in Supabase, and nothing here asks for them.
		return nil, validationFailed("Invalid email action link type requested: %s", kind)
	}
	otp := randomOTP()
	token := hashOTP(email, otp)
	for s.byToken[token] != nil {
		// One in a million: the code of the link that must die now.
		otp = randomOTP()
		token = hashOTP(email, otp)
	}
	delete(s.byToken, a.token)
	s.byToken[token] = a
	a.token = token
	a.recoverySentAt = s.now()
	a.updated = a.recoverySentAt.Truncate(time.Microsecond)

	inLink := redirectTo
	if strings.ContainsAny(inLink, "&=#") {
		// Only then, as in Supabase: a plain URL stands in the link as it is.
		inLink = url.QueryEscape(inLink)
	}
	return &generatedLink{
		authUser:   a.user(),
		ActionLink: authURL + "/verify?token=" + token + "&type=recovery&redirect_to=" + inLink,
		EmailOTP:   otp, HashedToken: token, VerificationType: "recovery", RedirectTo: redirectTo,
	}, nil
}

// redirectTarget returns the page that a link leads to, by Supabase's rules: redirect_to if it is allowed, or
// else the first allowed value of the other places where clients put it, or else, silently, the site's URL.
func (s *Stack) redirectTarget(r *http.Request, asked string) string {
	for _, candidate := range []string{asked, r.Header.Get("redirect_to"), r.URL.Query().Get("redirect_to"), r.Referer()} {
		if s.redirects.allow(candidate) {
			return candidate
		}
	}
	return s.cfg.SiteURL
}

// authURL returns the base of action_link.
func (s *Stack) authURL(r *http.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publicAuthURL != "" {
		return strings.TrimSuffix(s.publicAuthURL, "/")
	}
	return "http://" + r.Host + "/auth/v1"
}

// verifyGet answers action_link. It uses the link up, even for a program that merely follows links, and redirects
// with the tokens, or the error, in the fragment.
func (s *Stack) verifyGet(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		// The router takes HEAD for GET; Supabase does not, and a link survives it.
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	query := r.URL.Query()
	kind, token := query.Get("type"), query.Get("token")
	switch {
	case kind == "":
		validationFailed("Verify requires a verification type").write(w)
		return
	case token == "":
		validationFailed("Verify requires a token or a token hash").write(w)
		return
	}
	target := s.redirectTarget(r, query.Get("redirect_to"))
	w.Header().Set("Vary", "Origin")
	answer, session, e := s.redeem(kind, token)
	fragment := url.Values{"sb": {""}}
	if e != nil {
		if e.status == http.StatusForbidden {
			fragment.Set("error", "access_denied")
		} else {
			fragment.Set("error", "invalid_request")
		}
		fragment.Set("error_code", e.code)
		fragment.Set("error_description", e.message)
		target, _, _ = strings.Cut(target, "#")
	} else {
		session.setHeaders(w.Header())
		fragment.Set("access_token", answer.AccessToken)
		fragment.Set("expires_at", strconv.FormatInt(answer.ExpiresAt, 10))
		fragment.Set("expires_in", strconv.Itoa(answer.ExpiresIn))
		fragment.Set("refresh_token", answer.RefreshToken)
		fragment.Set("token_type", answer.TokenType)
		fragment.Set("type", kind)
	}
	http.Redirect(w, r, target+"#"+fragment.Encode(), http.StatusSeeOther)
}

func (s *Stack) verifyPost(w http.ResponseWriter, r *http.Request) {
	var params struct {
		Type       string `json:"type"`
		Token      string `json:"token"`
		TokenHash  string `json:"token_hash"`
		Email      string `json:"email"`
		Phone      string `json:"phone"`
		RedirectTo string `json:"redirect_to"`
	}
	e := readJSON(r, &params)
	byOTP := params.Token != ""
	switch {
	case e != nil:
	case params.Type == "":
		e = validationFailed("Verify requires a verification type")
	case byOTP == (params.TokenHash != ""):
		e = validationFailed("Verify requires either a token or a token hash")
	case byOTP && (params.Email == "" || params.Phone != ""):
		e = validationFailed("Only an email address or phone number should be provided on verify")
	case byOTP:
		email, bad := checkEmail(params.Email)
		if bad != nil {
			e = &refusal{status: http.StatusUnprocessableEntity, code: "validation_failed", message: "Invalid email format"}
			break
		}
		params.TokenHash = hashOTP(email, params.Token)
	case params.Email != "" || params.Phone != "" || params.RedirectTo != "":
		e = validationFailed("Only the token_hash and type should be provided")
	}
	if e != nil {
		e.write(w)
		return
	}
	answer, session, e := s.redeem(params.Type, params.TokenHash)
	if e != nil {
		if e == errLinkExpired && byOTP {
			e = errOTPExpired
		}
		e.write(w)
		return
	}
	w.Header().Set("Vary", "Origin")
	session.setHeaders(w.Header())
	writeJSON(w, http.StatusOK, answer)
}

// redeem uses a live recovery token up and signs its user in.
func (s *Stack) redeem(kind, token string) (*tokenAnswer, *authSession, *refusal) {
	switch kind {
	case "recovery", "magiclink", "email": // all three look where recovery tokens are kept
	case "signup", "invite", "email_change":
		return nil, nil, errLinkExpired // no such token is ever made here
	default:
		return nil, nil, validationFailed("Invalid email verification type")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byToken[token]
	now := s.now()
	switch {
	case a == nil:
		return nil, nil, errLinkExpired
	case now.Before(a.bannedUntil):
		return nil, nil, errUserBanned // the link stays alive
	case now.After(a.recoverySentAt.Add(s.cfg.LinkLifetime)):
		return nil, nil, errLinkExpired
	}
	delete(s.byToken, token)
	a.token = ""
	a.recoverySentAt = a.recoverySentAt.Truncate(time.Microsecond) // read back from the database
	a.lastSignInAt = now
	a.updated = now.Truncate(time.Microsecond)
	session := s.signIn(a, "otp", now)
	return session.answer(), session, nil
}

func (session *authSession) answer() *tokenAnswer {
	return &tokenAnswer{
		AccessToken: session.accessToken, TokenType: "bearer", ExpiresIn: int(sessionLifetime.Seconds()),
		ExpiresAt: session.expires.Unix(), RefreshToken: session.refreshToken, User: session.account.user(),
	}
}

// signIn begins a session. The caller holds the lock.
func (s *Stack) signIn(a *account, method string, now time.Time) *authSession {
	session := &authSession{
		id: randomUUID(), account: a,
		refreshToken: strings.ToLower(rand.Text()[:12]),
		expires:      now.Add(sessionLifetime).Truncate(time.Second),
	}
	session.accessToken = s.signJWT(map[string]any{
		"aal": "aal1", "amr": []map[string]any{{"method": method, "timestamp": now.Unix()}},
		"app_metadata": appMetadata{Provider: "email", Providers: []string{"email"}},
		"aud":          "authenticated", "email": a.stored, "exp": session.expires.Unix(), "iat": now.Unix(),
		"is_anonymous": false, "phone": "", "role": "authenticated", "session_id": session.id, "sub": a.id,
		"user_metadata": a.metadata,
	})
	s.sessions = slices.DeleteFunc(s.sessions, func(old *authSession) bool { return old.expires.Before(now) })
	if len(s.sessions) >= maxSessions {
		s.sessions = slices.Delete(s.sessions, 0, 1)
	}
	s.sessions = append(s.sessions, session)
	return session
}

// session finds a session, expired or not, by its access token. The caller holds the lock.
func (s *Stack) session(accessToken string) *authSession {
	for _, session := range s.sessions {
		if session.accessToken == accessToken {
			return session
		}
	}
	return nil
}

func (session *authSession) setHeaders(h http.Header) {
	h.Set("Sb-Auth-Refresh-Token-Prefix", session.refreshToken[:5])
	h.Set("Sb-Auth-Session-Id", session.id)
	h.Set("Sb-Auth-User-Id", session.account.id)
}

// token signs a user in with a password, or goes on with a session.
func (s *Stack) token(w http.ResponseWriter, r *http.Request) {
	var params struct {
		Email        string `json:"email"`
		Password     string `json:"password"`
		RefreshToken string `json:"refresh_token"`
	}
	if e := readJSON(r, &params); e != nil {
		e.write(w)
		return
	}
	var session *authSession
	var e *refusal
	switch r.URL.Query().Get("grant_type") {
	case "password":
		session, e = s.logIn(params.Email, params.Password)
	case "refresh_token":
		session, e = s.refresh(params.RefreshToken)
	default:
		e = errUnknownGrant
	}
	if e != nil {
		e.write(w)
		return
	}
	s.mu.Lock()
	answer := session.answer()
	s.mu.Unlock()
	w.Header().Set("Vary", "Origin")
	session.setHeaders(w.Header())
	writeJSON(w, http.StatusOK, answer)
}

func (s *Stack) logIn(email, password string) (*authSession, *refusal) {
	if email == "" {
		return nil, errNoLogin
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	a := s.byEmail[strings.ToLower(email)]
	switch {
	case a == nil || a.password == "" || a.password != password:
		return nil, errInvalidLogin
	case now.Before(a.bannedUntil):
		return nil, errUserBanned
	}
	a.lastSignInAt = now
	return s.signIn(a, "password", now), nil
}

// refresh gives out new tokens, and uses the old refresh token up. Supabase keeps the session; here a new one
// replaces it.
func (s *Stack) refresh(refreshToken string) (*authSession, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.sessions, func(session *authSession) bool { return session.refreshToken == refreshToken })
	if at < 0 {
		return nil, errNoRefreshToken
	}
	a := s.sessions[at].account
	s.sessions = slices.Delete(s.sessions, at, at+1)
	return s.signIn(a, "otp", s.now()), nil
}

// logout ends the user's sessions: all of them, this one (scope=local), or the others (scope=others).
func (s *Stack) logout(w http.ResponseWriter, r *http.Request) {
	if _, e := s.setPassword(bearerToken(r), nil); e != nil {
		e.write(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.session(bearerToken(r))
	scope := r.URL.Query().Get("scope")
	s.sessions = slices.DeleteFunc(s.sessions, func(session *authSession) bool {
		return own != nil && session.account == own.account && (scope != "local" || session == own) && (scope != "others" || session != own)
	})
	w.Header().Set("Vary", "Origin")
	w.WriteHeader(http.StatusNoContent)
}

// showUser answers with the user of a session.
func (s *Stack) showUser(w http.ResponseWriter, r *http.Request) {
	user, e := s.setPassword(bearerToken(r), nil)
	if e != nil {
		e.write(w)
		return
	}
	w.Header().Set("Vary", "Origin")
	writeJSON(w, http.StatusOK, user)
}

// updateUser sets the password, the only member of the real endpoint that it knows.
func (s *Stack) updateUser(w http.ResponseWriter, r *http.Request) {
	token := bearerToken(r)
	var params struct {
		Password *string `json:"password"`
	}
	// As in Supabase, the token is judged before the body.
	if _, e := s.setPassword(token, nil); e != nil {
		e.write(w)
		return
	}
	if e := readJSON(r, &params); e != nil {
		e.write(w)
		return
	}
	user, e := s.setPassword(token, params.Password)
	if e != nil {
		e.write(w)
		return
	}
	w.Header().Set("Vary", "Origin")
	writeJSON(w, http.StatusOK, user)
}

// setPassword sets the password of the access token's user, ends the user's other sessions,
// and returns the user. A nil password changes nothing.
func (s *Stack) setPassword(accessToken string, password *string) (authUser, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	session := s.session(accessToken)
	switch {
	case accessToken == "":
		return authUser{}, errNoAuthorization
	case session == nil:
		return authUser{}, errBadJWT
	case !now.Before(session.expires):
		return authUser{}, errExpiredJWT
	}
	a := session.account
	if password == nil {
		return a.user(), nil
	}
	switch p := *password; {
	case len(p) > maxPasswordLen:
		return authUser{}, validationFailed("Password cannot be longer than %d characters", maxPasswordLen)
	case len(p) < minPasswordLen:
		return authUser{}, &refusal{
			status: http.StatusUnprocessableEntity, code: "weak_password",
			message: fmt.Sprintf("Password should be at least %d characters.", minPasswordLen), reasons: []string{"length"},
		}
	case p == a.password:
		return authUser{}, errSamePassword
	}
	a.password = *password
	a.updated = now.Truncate(time.Microsecond)
	s.sessions = slices.DeleteFunc(s.sessions, func(other *authSession) bool {
		return other.account == a && other != session
	})
	return a.user(), nil
}

// authHealth answers GET /health, which needs a key as everything behind the gateway does.
func (s *Stack) authHealth(w http.ResponseWriter, r *http.Request) {
	switch apikey := r.Header.Get("Apikey"); {
	case apikey == "":
		errGatewayNoKey.write(w)
	case apikey != s.cfg.ServiceRoleKey:
		errGatewayInvalidKey.write(w)
	default:
		writeJSON(w, http.StatusOK, struct {
			Version     string `json:"version"`
			Name        string `json:"name"`
			Description string `json:"description"`
		}{"devstack", "GoTrue", "GoTrue is a user registration and authentication API"})
	}
}

// checkEmail returns the address in lower case, as Supabase looks it up.
func checkEmail(email string) (string, *refusal) {
	switch {
	case email == "":
		return "", validationFailed("An email address is required")
	case len(email) > 255:
		return "", validationFailed("An email address is too long")
	case !emailFormat.MatchString(email):
		return "", validationFailed("Unable to validate email address: invalid format")
	}
	return strings.ToLower(email), nil
}

// readJSON decodes the whole body. Its error carries encoding/json's own text, as
// Supabase's does, which is written in Go too.
func readJSON(r *http.Request, into any) *refusal {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return &refusal{status: http.StatusBadRequest, code: "bad_json", message: "Could not parse request body as JSON: " + err.Error()}
	}
	return nil
}

// writeJSON answers without the line feed of json.Encoder, as both services do.
func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // every body is a struct of this package: a bug
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}

// bearerToken returns the token of the header Authorization, or "" without one.
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || strings.ContainsAny(token, " \t") {
		return ""
	}
	return token
}

// hashOTP returns Supabase's token hash of an address and a six-digit code: 56 hex digits.
func hashOTP(email, otp string) string {
	return fmt.Sprintf("%x", sha256.Sum224([]byte(email+otp)))
}

func randomOTP() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return fmt.Sprintf("%06d", n)
}

func randomUUID() string {
	b := randomBytes(16)
	b[6] = b[6]&0x0f | 0x40 // version 4, RFC 9562 section 5.4
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// signJWT makes an HS256 token whose claims a developer can look into. Nothing here checks
// the signature: a token is valid if it was given out.
func (s *Stack) signJWT(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // plain values only: a bug
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(payload)
	mac := hmac.New(sha256.New, s.jwtSecret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
