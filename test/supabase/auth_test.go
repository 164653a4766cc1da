//go:build supabase

package supabase

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// auth is a real Supabase Auth.
type auth struct {
	url, key string // of the admin API

	// These are nil if the server is not the tests' own. Such a server is neither stopped nor inspected.
	database *postgres
	bin      string
	environ  []string
	server   *exec.Cmd
	log      *os.File
}

var errNoAuth = errors.New(`there is no Supabase Auth to test with. Give one of:
	SUPABASE_AUTH_URL and SUPABASE_SERVICE_ROLE_KEY  of a running server, which may be filled with accounts of test.example
	SUPABASE_AUTH_BIN                                a binary of it, with PostgreSQL from Debian's packages
	Docker                                           make e2e then takes both from what is published`)

// openAuth finds the Supabase Auth that the environment names, or starts one. Its result must be closed, also
// after an error.
func openAuth(dir string) (*auth, error) {
	if url := os.Getenv("SUPABASE_AUTH_URL"); url != "" {
		key := os.Getenv("SUPABASE_SERVICE_ROLE_KEY")
		if key == "" {
			return nil, errors.New("SUPABASE_AUTH_URL is set, and SUPABASE_SERVICE_ROLE_KEY is not")
		}
		return &auth{url: strings.TrimRight(url, "/"), key: key}, nil
	}
	bin := os.Getenv("SUPABASE_AUTH_BIN")
	if bin == "" {
		return nil, errNoAuth
	}
	database, err := openPostgres(dir)
	if err != nil {
		return &auth{database: database}, err
	}
	port, err := freePort()
	if err != nil {
		return &auth{database: database}, err
	}
	const secret = "a-secret-of-these-tests-of-32-letters"
	a := &auth{
		url: "http://127.0.0.1:" + port, key: serviceRole(secret), database: database, bin: bin,
		environ: []string{
			"PATH=" + os.Getenv("PATH"),
			"GOTRUE_JWT_SECRET=" + secret, "GOTRUE_JWT_AUD=authenticated", "GOTRUE_JWT_DEFAULT_GROUP_NAME=authenticated",
			"GOTRUE_JWT_ADMIN_ROLES=supabase_admin,service_role", "GOTRUE_JWT_EXP=3600",
			"GOTRUE_DB_DRIVER=postgres", "DB_NAMESPACE=auth", "DATABASE_URL=" + database.url("supabase_auth_admin"),
			"GOTRUE_DB_MAX_POOL_SIZE=20", "GOTRUE_DB_MAX_IDLE_POOL_SIZE=20", // as in docs/operations.md
			"API_EXTERNAL_URL=http://127.0.0.1:" + port, "GOTRUE_API_HOST=127.0.0.1", "PORT=" + port,
			"GOTRUE_SITE_URL=" + site, "GOTRUE_URI_ALLOW_LIST=" + site + "/reset-password",
			"GOTRUE_MAILER_AUTOCONFIRM=true", "GOTRUE_EXTERNAL_EMAIL_ENABLED=true", "GOTRUE_EXTERNAL_PHONE_ENABLED=true",
			"GOTRUE_EXTERNAL_ANONYMOUS_USERS_ENABLED=true", "GOTRUE_MFA_ENABLED=true",
			"GOTRUE_MAILER_URLPATHS_RECOVERY=/verify", "GOTRUE_LOG_LEVEL=error",
		},
	}
	if a.log, err = os.Create(filepath.Join(dir, "auth.log")); err != nil {
		return a, err
	}
	migrate := exec.Command(bin, "migrate")
	migrate.Dir, migrate.Env = dir, a.environ
	if out, err := migrate.CombinedOutput(); err != nil {
		return a, fmt.Errorf("%s migrate: %w\n%s", bin, err, out)
	}
	return a, a.start()
}

// start starts the server, and waits until it answers.
func (a *auth) start() error {
	a.server = exec.Command(a.bin, "serve")
	a.server.Env, a.server.Dir, a.server.Stdout, a.server.Stderr = a.environ, filepath.Dir(a.log.Name()), a.log, a.log
	if err := a.server.Start(); err != nil {
		return err
	}
	return patiently("Supabase Auth does not start; see its log", func() bool {
		response, err := http.Get(a.url + "/health")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func (a *auth) stop() {
	if a.server == nil {
		return
	}
	_ = a.server.Process.Signal(syscall.SIGTERM)
	_ = a.server.Wait()
	a.server = nil
}

func (a *auth) close() {
	if a == nil {
		return
	}
	a.stop()
	if a.database != nil {
		a.database.stop()
	}
}

// printLog prints the end of the server's log.
func (a *auth) printLog() {
	if a.log == nil {
		return
	}
	text, _ := os.ReadFile(a.log.Name())
	fmt.Fprintf(os.Stderr, "e2e: the end of Supabase Auth's log:\n%s\n", text[max(0, len(text)-4<<10):])
}

// answer is an answer of the server.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func (a answer) String() string {
	body, _ := json.Marshal(a.body)
	return fmt.Sprintf("%d %.300s", a.status, body)
}

func (a answer) text(member string) string {
	text, _ := a.body[member].(string)
	return text
}

// call sends a request with a token, and follows no redirect.
func (a *auth) call(t *testing.T, method, path, token string, body any) answer {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	url := path
	if strings.HasPrefix(path, "/") {
		url = a.url + path
	}
	request, err := http.NewRequest(method, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Apikey", a.key) // Supabase's gateway requires it for every request
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	got := answer{status: response.StatusCode, header: response.Header, body: map[string]any{}}
	_ = json.Unmarshal(text, &got.body) // a redirect has a page
	return got
}

// must is call for requests that must succeed.
func (a *auth) must(t *testing.T, method, path, token string, body any) answer {
	t.Helper()
	got := a.call(t, method, path, token, body)
	if got.status != http.StatusOK {
		t.Fatalf("%s %s: %v", method, path, got)
	}
	return got
}

// serviceRole makes the service_role key of a Supabase Auth with this JWT secret.
func serviceRole(secret string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(fmt.Appendf(nil, `{"role":"service_role","iss":"supabase","exp":%d}`, time.Now().Add(24*time.Hour).Unix()))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// postgres is a PostgreSQL that the tests have started.
type postgres struct {
	bin, dir, port string
	owner          *syscall.SysProcAttr // PostgreSQL refuses to run as root
	server         *exec.Cmd
}

// openPostgres makes a cluster with the role and the schema that Supabase Auth needs.
func openPostgres(dir string) (*postgres, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	if path, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		found = []string{path}
	}
	if len(found) == 0 {
		return nil, errors.New("SUPABASE_AUTH_BIN needs PostgreSQL's initdb, as in Debian's package postgresql")
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &postgres{bin: filepath.Dir(found[len(found)-1]), dir: filepath.Join(dir, "postgres"), port: port}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return p, err
	}
	if os.Getuid() == 0 {
		if p.owner, err = asPostgres(dir, p.dir); err != nil {
			return p, err
		}
	}
	initdb := p.command("initdb", "--pgdata", p.dir, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return p, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := p.start(); err != nil {
		return p, err
	}
	return p, p.exec(`CREATE USER supabase_auth_admin NOINHERIT CREATEROLE LOGIN NOREPLICATION;
		CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
		GRANT CREATE ON DATABASE postgres TO supabase_auth_admin;
		ALTER USER supabase_auth_admin SET search_path = 'auth';`)
}

// version returns the version in /usr/lib/postgresql/VERSION/bin/initdb.
func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// asPostgres makes the user of Debian's package the owner of dir, with access to it.
func asPostgres(parent, dir string) (*syscall.SysProcAttr, error) {
	owner, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	if err := errors.Join(os.Chmod(parent, 0o755), os.Chown(dir, uid, gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(p.bin, name), args...)
	command.SysProcAttr, command.Dir = p.owner, p.dir
	return command
}

func (p *postgres) url(role string) string {
	return "postgres://" + role + "@127.0.0.1:" + p.port + "/postgres?sslmode=disable"
}

func (p *postgres) start() error {
	p.server = p.command("postgres", "-D", p.dir, "-p", p.port, "-k", p.dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
	log, err := os.OpenFile(filepath.Join(filepath.Dir(p.dir), "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.server.Stdout, p.server.Stderr = log, log
	if err := p.server.Start(); err != nil {
		return err
	}
	var last error
	if patiently("", func() bool { last = p.exec("SELECT 1"); return last == nil }) != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("PostgreSQL does not start: %w\n%s", last, said)
	}
	return nil
}

// stop also ends all sessions.
func (p *postgres) stop() {
	if p == nil || p.server == nil {
		return
	}
	_ = p.server.Process.Signal(syscall.SIGINT)
	_ = p.server.Wait()
	p.server = nil
}

// exec runs statements as the superuser.
func (p *postgres) exec(statements string) error {
	out, err := p.psql(context.Background(), statements).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (p *postgres) psql(ctx context.Context, statements string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(p.bin, "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", p.url("postgres"), "--command", statements)
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// patience is longer than anything here takes, except an outage.
const patience = 30 * time.Second

func patiently(complaint string, done func() bool) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return errors.New(complaint)
}
