package setting

import (
	"fmt"
	"slices"
	"strings"
)

// Mistake is what is wrong with a setting, and what to do. It repeats nothing of the value.
type Mistake struct{ Setting, Text string }

// Mistakes are all that is wrong with some settings.
type Mistakes []Mistake //nolint:errname // a mistake is what the house calls it

// Lines returns each mistake with the name of its setting, sorted.
func (m Mistakes) Lines() []string {
	lines := make([]string, len(m))
	for i, one := range m {
		lines[i] = one.Setting + ": " + one.Text
	}
	slices.Sort(lines)
	return lines
}

func (m Mistakes) Error() string {
	return "these settings are wrong:\n  " + strings.Join(m.Lines(), "\n  ")
}

// Has says whether a setting is named already.
func (m Mistakes) Has(setting string) bool {
	return slices.ContainsFunc(m, func(named Mistake) bool { return named.Setting == setting })
}

// Add adds a mistake, unless its setting has one already: the second often follows from the first.
func (m *Mistakes) Add(setting, format string, args ...any) {
	m.Merge(Mistakes{{setting, fmt.Sprintf(format, args...)}})
}

// Judge adds what the owner of a rule says about the value of a setting. A nil error is no mistake.
func (m *Mistakes) Judge(setting string, err error) {
	if err != nil {
		m.Add(setting, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// Merge adds what the owner of several settings says of those that are not named yet.
func (m *Mistakes) Merge(more Mistakes) {
	named := *m
	for _, one := range more {
		if !named.Has(one.Setting) {
			*m = append(*m, one)
		}
	}
}
