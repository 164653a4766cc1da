package message

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// The grounds of layout.html, and the darkest text.
var (
	lightGround = rgb{0xff, 0xff, 0xff}
	darkGround  = rgb{0x1a, 0x1d, 0x23}
	ink         = rgb{0x10, 0x12, 0x16}
)

const (
	defaultColor = "#1f56d8"

	// The contrasts that WCAG 2.2 wants: of text (1.4.3), and of what shows
	// where a control is (1.4.11).
	minText, minShape = 4.5, 3.0
)

// palette has the colours of the mail, made from the brand's colour. The button has that colour as it is, with
// white or black words, whichever can be read. Links are darkened or lightened until they can be read on their
// ground, and so is the button's edge where the button would not stand out. No brand's colour is refused.
type palette struct {
	Button, ButtonText string
	Edge, EdgeDark     string // of the button, on the light ground and on the dark one
	Link, LinkDark     string
}

func newPalette(color string) palette {
	brand, err := parseColor(color)
	if err != nil { // none is set
		brand, _ = parseColor(defaultColor)
	}
	p := palette{Button: brand.String(), ButtonText: lightGround.String()}
	if contrast(brand, lightGround) < minText {
		p.ButtonText = ink.String()
		if contrast(brand, ink) < minText { // none is: 4.5 to one of the two holds for every colour
			p.ButtonText = "#000000"
		}
	}
	link, linkDark := brand.until(lightGround, rgb{}), brand.until(darkGround, lightGround)
	p.Link, p.LinkDark = link.String(), linkDark.String()
	p.Edge, p.EdgeDark = p.Button, p.Button
	if contrast(brand, lightGround) < minShape {
		p.Edge = p.Link
	}
	if contrast(brand, darkGround) < minShape {
		p.EdgeDark = p.LinkDark
	}
	return p
}

// note says how the brand's colour was changed for the light ground. On the dark ground nearly every colour is
// changed.
func (p palette) note() string {
	if p.Link == p.Button {
		return ""
	}
	brand, _ := parseColor(p.Button)
	return fmt.Sprintf("BRAND_COLOR %s has a contrast of %.1f to white, and links need %.1f: they are %s; the words of the button are %s",
		p.Button, contrast(brand, lightGround), minText, p.Link, p.ButtonText)
}

type rgb [3]uint8

func (c rgb) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

var colorForm = regexp.MustCompile(`^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)

func parseColor(text string) (c rgb, err error) {
	if !colorForm.MatchString(text) {
		return c, errors.New("must be a colour like #1f56d8")
	}
	digits := text[1:]
	if len(digits) == 3 {
		digits = strings.Join([]string{digits[:1], digits[:1], digits[1:2], digits[1:2], digits[2:], digits[2:]}, "")
	}
	for i := range c {
		n, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
		if err != nil {
			return c, err
		}
		c[i] = uint8(n)
	}
	return c, nil
}

// until mixes the colour with another one, by as little as makes it readable on a ground.
func (c rgb) until(ground, other rgb) rgb {
	const steps = 100
	for i := range steps {
		var mixed rgb
		for k := range mixed {
			mixed[k] = uint8((int(c[k])*(steps-i) + int(other[k])*i) / steps) //nolint:gosec // between two bytes
		}
		if contrast(mixed, ground) >= minText {
			return mixed
		}
	}
	return other
}

// contrast returns WCAG's contrast ratio, from 1 to 21.
// https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
func contrast(a, b rgb) float64 {
	light, dark := a.luminance(), b.luminance()
	if light < dark {
		light, dark = dark, light
	}
	return (light + 0.05) / (dark + 0.05)
}

func (c rgb) luminance() float64 {
	linear := func(v uint8) float64 {
		s := float64(v) / 255
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}
