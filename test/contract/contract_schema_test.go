package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"
)

// This file reads the schema of requests from openapi.yaml: which values it allows, and for each keyword, values
// that break it. An unknown keyword fails the test.

// A value is nil, bool, json.Number, string, rawText, []any or object.
type (
	object []member
	member struct {
		name  string
		value any
	}
	rawText string // goes unchanged into the body
)

func (o object) find(name string) int {
	return slices.IndexFunc(o, func(m member) bool { return m.name == name })
}

// edited returns the value with a change at a path. change gets what is there and the object around it, and
// returns what the object has instead.
func edited(value any, at []string, change func(any) any) any {
	if len(at) == 0 {
		return change(value)
	}
	members, ok := value.(object)
	if !ok {
		return value
	}
	members = slices.Clone(members)
	if i := members.find(at[0]); i >= 0 {
		members[i].value = edited(members[i].value, at[1:], change)
	} else if len(at) == 1 {
		members = append(members, member{at[0], change(nil)})
	}
	return members
}

// violation is one way to break one keyword of the schema.
type violation struct {
	name   string
	blames string // the dotted path of the expected issue; empty for the whole body
	apply  func(t *rapid.T, body any) any
}

// schemaReader finds the violations of a schema, and reports keywords that it does not know.
type schemaReader struct {
	t          testing.TB
	violations []violation
}

// keywordsOf returns the keywords of a part of the document. kin-openapi refuses those that it does not know.
func keywordsOf(t testing.TB, part any) map[string]any {
	text, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	var keywords map[string]any
	if err := json.Unmarshal(text, &keywords); err != nil {
		t.Fatal(err)
	}
	return keywords
}

func (r *schemaReader) read(at []string, schema *openapi3.Schema) {
	path := strings.Join(at, ".")
	for _, keyword := range slices.Sorted(maps.Keys(keywordsOf(r.t, schema))) {
		add := func(detail, blames string, apply func(*rapid.T, any) any) {
			r.violations = append(r.violations, violation{strings.TrimPrefix(path+" ", " ") + keyword + ": " + detail, blames, apply})
		}
		replace := func(detail string, other func(t *rapid.T, old any) any) {
			add(detail, path, func(t *rapid.T, body any) any {
				return edited(body, at, func(old any) any { return other(t, old) })
			})
		}
		switch keyword {
		case "description", "example", "title":
			// these say nothing about values
		case "nullable":
			// it widens the type, as below
		case "type":
			for _, other := range jsonTypes {
				if !schema.Type.Is(other) && (other != "null" || !schema.Nullable) && (other != "integer" || !schema.Type.Is("number")) {
					replace(other, func(t *rapid.T, _ any) any { return ofType(t, other, 3) })
				}
			}
		case "format":
			ways, known := notOfFormat[schema.Format]
			if !known {
				r.t.Errorf("openapi.yaml uses the format %q at %q: teach the generator what breaks it", schema.Format, path)
			}
			for way, broken := range ways {
				replace(way, func(t *rapid.T, old any) any {
					text, isText := old.(string)
					if !isText {
						text = allowed(t, schema).(string)
					}
					return broken(t, text)
				})
			}
		case "minLength":
			replace("too short", func(t *rapid.T, _ any) any { return rapid.StringN(0, int(schema.MinLength)-1, -1).Draw(t, "short") })
		case "maxLength":
			long := rapid.StringN(int(*schema.MaxLength)+1, int(*schema.MaxLength)+100, -1)
			if schema.Format == "email" && *schema.MaxLength < longestMail { // only too long
				long = rapid.Custom(mailbox).Filter(func(s string) bool { return !hasLength(schema, s) })
			}
			replace("too long", func(t *rapid.T, _ any) any { return long.Draw(t, "long") })
		case "pattern":
			pattern := regexp.MustCompile(schema.Pattern)
			replace("another", func(t *rapid.T, _ any) any {
				return rapid.String().Filter(func(s string) bool { return !pattern.MatchString(s) }).Draw(t, "unmatched")
			})
		case "enum":
			replace("another", func(t *rapid.T, _ any) any {
				return rapid.String().Filter(func(s string) bool { return !slices.Contains(schema.Enum, any(s)) }).Draw(t, "unlisted")
			})
		case "required":
			for _, name := range schema.Required {
				add(name+" missing", dotted(at, name), func(_ *rapid.T, body any) any {
					return edited(body, at, func(old any) any {
						return slices.DeleteFunc(slices.Clone(old.(object)), func(m member) bool { return m.name == name })
					})
				})
			}
		case "properties":
			for name, property := range schema.Properties {
				r.read(append(slices.Clone(at), name), property.Value)
				// "a member that differs … only by upper and lower case" is an error
				add(name+" also in another case", dotted(at, name), func(t *rapid.T, body any) any {
					return edited(body, at, func(old any) any {
						more := member{otherCase(t, name), anyValue(t, 2)}
						return slices.Insert(slices.Clone(old.(object)), rapid.IntRange(0, len(old.(object))).Draw(t, "where"), more)
					})
				})
				add(name+" in another case", dotted(at, name), func(t *rapid.T, body any) any {
					return edited(body, at, func(old any) any {
						members := slices.Clone(old.(object))
						if i := members.find(name); i >= 0 {
							members[i].name = otherCase(t, name)
						} else {
							members = append(members, member{otherCase(t, name), anyValue(t, 2)})
						}
						return members
					})
				})
			}
		default:
			r.t.Errorf("openapi.yaml uses the keyword %q at %q: teach the generator what breaks it", keyword, path)
		}
	}
}

func dotted(at []string, name string) string {
	return strings.Join(append(slices.Clone(at), name), ".")
}

// otherCase returns a name that differs only by case, by Unicode's rules too, where K may be a Kelvin sign.
func otherCase(t *rapid.T, name string) string {
	return rapid.Custom(func(t *rapid.T) string {
		letters := []rune(name)
		for i := range letters {
			if !rapid.Bool().Draw(t, "flip") {
				continue
			}
			switch c := letters[i]; c {
			case 'k':
				letters[i] = rapid.SampledFrom([]rune{'K', '\u212a'}).Draw(t, "k")
			case 's':
				letters[i] = rapid.SampledFrom([]rune{'S', '\u017f'}).Draw(t, "s")
			default:
				letters[i] = []rune(strings.ToUpper(string(c)))[0]
			}
		}
		return string(letters)
	}).Filter(func(other string) bool { return other != name }).Draw(t, "other case")
}

// allowed draws a value that the schema allows.
func allowed(t *rapid.T, schema *openapi3.Schema) any {
	switch {
	case schema.Type.Is("object"):
		var members object
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			if slices.Contains(schema.Required, name) || rapid.Bool().Draw(t, "with "+name) {
				members = append(members, member{name, allowed(t, schema.Properties[name].Value)})
			}
		}
		// "Unknown members of the body are ignored"
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 4}).Draw(t, "unknown members") {
			name := unknownName(t, schema, members)
			members = append(members, member{name, anyValue(t, 4)})
		}
		return rapid.Permutation(members).Draw(t, "order")
	case schema.Type.Is("string"):
		text := rapid.String()
		switch {
		case len(schema.Enum) > 0:
			return rapid.SampledFrom(schema.Enum).Draw(t, "enum")
		case schema.Format == "email":
			text = rapid.Custom(mailbox)
		case schema.Pattern != "":
			text = rapid.StringMatching(schema.Pattern)
		}
		return text.Filter(func(s string) bool { return hasLength(schema, s) }).Draw(t, "string")
	}
	for _, jsonType := range jsonTypes {
		if schema.Type.Is(jsonType) {
			return ofType(t, jsonType, 3)
		}
	}
	t.Fatalf("openapi.yaml has a schema of the type %v", schema.Type)
	return nil
}

// hasLength counts characters and not bytes, as JSON Schema does.
func hasLength(schema *openapi3.Schema, text string) bool {
	n := uint64(utf8.RuneCountInString(text))
	return n >= schema.MinLength && (schema.MaxLength == nil || n <= *schema.MaxLength)
}

// unknownName draws a name that the object does not have, and that differs from its names in more than case.
func unknownName(t *rapid.T, schema *openapi3.Schema, members object) string {
	return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "captcha", "e-mail", "emails", "__proto__", "email.", "$ref", "0"})).
		Filter(func(name string) bool {
			for property := range schema.Properties {
				if strings.EqualFold(property, name) {
					return false
				}
			}
			return members.find(name) < 0
		}).Draw(t, "unknown name")
}

// jsonTypes are the types of a schema, and null.
var jsonTypes = []string{"null", "boolean", "integer", "number", "string", "array", "object"}

// ofType draws a value of a type.
func ofType(t *rapid.T, jsonType string, depth int) any {
	switch jsonType {
	case "boolean":
		return rapid.Bool().Draw(t, "bool")
	case "integer":
		return json.Number(strconv.Itoa(rapid.Int().Draw(t, "int")))
	case "number":
		return rapid.SampledFrom([]json.Number{"0", "-0", "1", "0.5", "-1e-7", "1e400", "12345678901234567890123456789"}).Draw(t, "number")
	case "string":
		return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "{}", "known@example.com", "\x00", "\u2028"})).Draw(t, "text")
	case "array":
		values := make([]any, rapid.IntRange(0, 3).Draw(t, "length"))
		for i := range values {
			values[i] = anyValue(t, depth-1)
		}
		return values
	case "object":
		return anyObject(t, depth)
	}
	return nil
}

func anyObject(t *rapid.T, depth int) object {
	members := object{}
	for range rapid.IntRange(0, 3).Draw(t, "members") {
		if name := rapid.StringN(0, 5, -1).Draw(t, "name"); members.find(name) < 0 {
			members = append(members, member{name, anyValue(t, depth-1)})
		}
	}
	return members
}

func anyValue(t *rapid.T, depth int) any {
	types := jsonTypes
	if depth <= 0 {
		types = types[:5] // no array, no object
	}
	return ofType(t, rapid.SampledFrom(types).Draw(t, "type"), depth)
}

// These describe an address as openapi.yaml does, in another form than the server: by the rule of HTML's
// <input type=email>, which Supabase Auth uses.
const (
	localPart   = "[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]"
	longestMail = 255
)

var (
	mailboxForm = regexp.MustCompile(`^` + localPart + `+@(?:` + hostLabel + `\.)*` + hostLabel + `$`)
	hostLabel   = `[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?`
)

func isMailbox(address string) bool {
	return mailboxForm.MatchString(address) && len(address) <= longestMail
}

// mailbox draws an address, sometimes an account's, and often one at a limit.
func mailbox(t *rapid.T) string {
	if rapid.IntRange(0, 9).Draw(t, "known") == 0 {
		return rapid.SampledFrom([]string{knownEmail, "KNOWN@Example.Com", otherKnown, unknownEmail}).Draw(t, "account")
	}
	short := func() string {
		return rapid.StringMatching(`[A-Za-z0-9](?:[A-Za-z0-9-]{0,8}[A-Za-z0-9])?`).Draw(t, "label")
	}
	local := rapid.StringMatching(localPart+`{1,40}`).Draw(t, "local part")
	domain := short()
	for range rapid.IntRange(0, 3).Draw(t, "labels") {
		domain += "." + short()
	}
	switch rapid.SampledFrom([]string{"", "", "local", "label", "all"}).Draw(t, "longest") {
	case "local":
		local += strings.Repeat("l", longestMail-len(local)-1-len(domain))
	case "label":
		domain = rapid.StringMatching(`[a-z0-9][a-z0-9-]{61}[a-z0-9]`).Draw(t, "long label") + "." + domain
	case "all":
		letters := bytes.Repeat([]byte("d"), longestMail-len(local)-1)
		for i := 50; i < len(letters)-1; i += 51 {
			letters[i] = '.'
		}
		domain = string(letters)
	}
	return local + "@" + domain
}

// notOfFormat has the ways to break each format that openapi.yaml uses. Each way gets a value of the format.
var notOfFormat = map[string]map[string]func(t *rapid.T, valid string) string{
	"email": {
		"nothing":       func(*rapid.T, string) string { return "" },
		"no at":         func(_ *rapid.T, valid string) string { return strings.ReplaceAll(valid, "@", "") },
		"two ats":       between("@"),
		"no local part": func(_ *rapid.T, valid string) string { return valid[strings.IndexByte(valid, '@'):] },
		"no domain":     func(_ *rapid.T, valid string) string { return valid[:strings.IndexByte(valid, '@')+1] },
		"a space":       anywhere(" ", "\t", "\n", "\r\nBcc: evil@x.yz", "\u00a0", "\v"),
		"a control":     anywhere("\x00", "\x01", "\x1b", "\x7f", "\u0085"),
		"a special":     anywhere(`"`, "(", ")", ",", ":", ";", "<", ">", "[", "]", `\`),
		"beyond ASCII":  anywhere("ä", "\u200b", "。", "＠", "\u212a", "\ufffd", "😀", "\u0131"),
		"more of them":  func(_ *rapid.T, valid string) string { return valid + "," + valid },
		"a name":        func(_ *rapid.T, valid string) string { return "Somebody <" + valid + ">" },
		"in brackets":   func(_ *rapid.T, valid string) string { return "<" + valid + ">" },
		"a URL":         func(_ *rapid.T, valid string) string { return "mailto:" + valid },
		"quoted":        func(_ *rapid.T, valid string) string { return strings.Replace(`"`+valid, "@", `"@`, 1) },
		"a literal":     func(_ *rapid.T, valid string) string { return valid[:strings.IndexByte(valid, '@')+1] + "[127.0.0.1]" },
		"dot last":      func(_ *rapid.T, valid string) string { return valid + "." },
		"dot after at":  func(_ *rapid.T, valid string) string { return strings.Replace(valid, "@", "@.", 1) },
		"two dots":      func(_ *rapid.T, valid string) string { return strings.Replace(valid, "@", "@a..", 1) },
		"hyphen first":  func(_ *rapid.T, valid string) string { return strings.Replace(valid, "@", "@-", 1) },
		"hyphen last":   func(_ *rapid.T, valid string) string { return valid + "-" },
		"not of a host": func(t *rapid.T, valid string) string {
			return valid + rapid.SampledFrom(strings.Split("! # $ % & ' * + / = ? ^ _ ` { | } ~", " ")).Draw(t, "sign")
		},
		"long label": func(_ *rapid.T, valid string) string {
			return valid[:strings.IndexByte(valid, '@')+1] + strings.Repeat("d", 64) + ".com"
		},
		"long": func(t *rapid.T, _ string) string {
			label := strings.Repeat("d", 61) + "." // 4 of them are 248 bytes
			extra := rapid.IntRange(1, 55).Draw(t, "too long by")
			return "locals@" + strings.Repeat(label, 4) + strings.Repeat("d", extra)
		},
	},
}

// between and anywhere insert a part into a text; between never at an end.
func between(what ...string) func(*rapid.T, string) string {
	return func(t *rapid.T, valid string) string {
		i := rapid.IntRange(1, len(valid)-1).Draw(t, "where")
		return valid[:i] + rapid.SampledFrom(what).Draw(t, "what") + valid[i:]
	}
}

func anywhere(what ...string) func(*rapid.T, string) string {
	return func(t *rapid.T, valid string) string {
		i := rapid.IntRange(0, len(valid)).Draw(t, "where")
		return valid[:i] + rapid.SampledFrom(what).Draw(t, "what") + valid[i:]
	}
}

// written returns a value as JSON, with random white space and escapes.
func written(t *rapid.T, value any) string {
	w := &writer{t: t}
	w.spaces = rapid.SampledFrom([][]string{{""}, {"", " "}, {"", " ", "\n", "\r\n", "\t"}}).Draw(t, "white space")
	w.escapes = rapid.SampledFrom([]string{"needed", "needed", "some", "all"}).Draw(t, "escapes")
	w.space()
	w.write(value)
	w.space()
	return w.text.String()
}

type writer struct {
	t       *rapid.T
	text    bytes.Buffer
	spaces  []string
	escapes string
}

func (w *writer) space() {
	if len(w.spaces) > 1 {
		w.text.WriteString(rapid.SampledFrom(w.spaces).Draw(w.t, "space"))
	}
}

func (w *writer) write(value any) {
	switch value := value.(type) {
	case nil:
		w.text.WriteString("null")
	case bool:
		fmt.Fprint(&w.text, value)
	case json.Number:
		w.text.WriteString(value.String())
	case rawText:
		w.text.WriteString(string(value))
	case string:
		w.quote(value)
	case []any:
		w.text.WriteByte('[')
		for i, element := range value {
			if i > 0 {
				w.text.WriteByte(',')
			}
			w.space()
			w.write(element)
			w.space()
		}
		w.text.WriteByte(']')
	case object:
		w.text.WriteByte('{')
		for i, member := range value {
			if i > 0 {
				w.text.WriteByte(',')
			}
			w.space()
			w.quote(member.name)
			w.space()
			w.text.WriteByte(':')
			w.space()
			w.write(member.value)
			w.space()
		}
		w.text.WriteByte('}')
	default:
		w.t.Fatalf("a generated %T", value)
	}
}

// quote escapes what RFC 8259, section 7, requires, and as many others as w.escapes says.
func (w *writer) quote(text string) {
	w.text.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			w.text.WriteByte('\\')
			w.text.WriteRune(c)
		case c >= 0x10000 && w.escapes == "all":
			c -= 0x10000
			fmt.Fprintf(&w.text, `\u%04x\u%04X`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		case c < 0x20, w.escapes == "all", w.escapes == "some" && c < 0x10000 && rapid.Bool().Draw(w.t, "escape"):
			fmt.Fprintf(&w.text, `\u%04x`, c)
		case c == '/' && w.escapes == "some":
			w.text.WriteString(`\/`)
		default:
			w.text.WriteRune(c)
		}
	}
	w.text.WriteByte('"')
}
