package main

import (
	"encoding/json"
	"io"
	"strings"
)

// checkReport is what `resetd check --json` prints. docs/operations.md documents it; members may be added.
type checkReport struct {
	Status  string  `json:"status"` // the worst of the checks: failed, warning or ok
	Version string  `json:"version"`
	Checks  []entry `json:"checks"`
}

type entry struct {
	Name    string `json:"name"`   // what it is about
	Status  string `json:"status"` // ok, warning, failed, skipped or note
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"` // what to do; where something is wrong
}

func (r *checkReport) add(f finding) {
	message, advice, _ := strings.Cut(f.text, ". What to do: ")
	r.Checks = append(r.Checks, entry{Name: f.about, Status: strings.ToLower(f.verdict), Message: message, Advice: advice})
}

// addMistakes adds what stops the start.
func (r *checkReport) addMistakes(wrong mistakes) {
	for _, mistake := range wrong {
		r.Checks = append(r.Checks, entry{Name: aboutSettings, Status: strings.ToLower(bad), Message: mistake, Advice: "correct it, or resetd serve will not start"})
	}
}

// write prints the report, also where nothing could be checked.
func (r *checkReport) write(w io.Writer) error {
	r.Version, r.Status = version, good
	for _, entry := range r.Checks {
		switch {
		case entry.Status == strings.ToLower(bad):
			r.Status = entry.Status
		case entry.Status == risky && r.Status == good:
			r.Status = risky
		}
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
