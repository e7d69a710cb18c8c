package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// plot draws newcomers' and participants' loss by round as SVG, with the base and the best single adapter as lines.
func plot(r *Report) string {
	const w, h, left, right, top, bottom = 720.0, 420.0, 64.0, 190.0, 44.0, 48.0
	n := max(len(r.Loss.Newcomers.Rounds), 1)
	newcomers := append([]float64{r.Loss.Newcomers.Base}, r.Loss.Newcomers.Rounds...)
	participants := append([]float64{r.Loss.Participants.Base}, r.Loss.Participants.Rounds...)
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range append(append(append([]float64{}, newcomers...), participants...), r.Loss.Newcomers.AloneBest) {
		if v > 0 {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	if !(lo < hi) {
		lo, hi = lo-0.5, lo+0.5
	}
	margin := (hi - lo) * 0.06
	lo, hi = lo-margin, hi+margin
	x := func(i int) float64 { return left + (w-left-right)*float64(i)/float64(n) }
	y := func(v float64) float64 { return top + (h-top-bottom)*(hi-v)/(hi-lo) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="13">`+"\n", w, h)
	fmt.Fprintf(&b, `<title>Loss by round</title><rect width="%g" height="%g" fill="#fff"/>`+"\n", w, h)
	fmt.Fprintf(&b, `<text x="%g" y="22" font-size="15" font-weight="bold">Loss on text nobody trained on, by round (nats per token)</text>`+"\n", left)
	step := niceStep((hi - lo) / 6)
	for v := math.Ceil(lo/step) * step; v <= hi; v += step {
		fmt.Fprintf(&b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%g" y="%.1f" text-anchor="end" fill="#555">%.2f</text>`+"\n", left, w-right, y(v), y(v), left-8, y(v)+4, v)
	}
	for i := 0; i <= n; i += max(1, n/10) {
		name := fmt.Sprint(i)
		if i == 0 {
			name = "base"
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%g" text-anchor="middle" fill="#555">%s</text>`+"\n", x(i), h-bottom+20, name)
	}
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle" fill="#555">round</text>`+"\n", left+(w-left-right)/2, h-10)
	var names []caption
	level := func(v float64, color, name string) {
		if v <= 0 {
			return
		}
		fmt.Fprintf(&b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="6 4"/>`+"\n", left, w-right, y(v), y(v), color)
		names = append(names, caption{y(v) + 4, color, "normal", fmt.Sprintf("%s %.2f", name, v)})
	}
	level(r.Loss.Newcomers.Base, "#888", "newcomers, base")
	level(r.Loss.Newcomers.AloneBest, "#b8741a", "best single adapter")
	curve := func(values []float64, color, name string) {
		var points []string
		for i, v := range values {
			if v > 0 {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(i), y(v)))
			}
		}
		if len(points) == 0 {
			return
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>`+"\n", strings.Join(points, " "), color)
		for i, v := range values {
			if v > 0 {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s, round %d: %.4f</title></circle>`+"\n", x(i), y(v), color, name, i, v)
			}
		}
		if end := values[len(values)-1]; end > 0 {
			names = append(names, caption{y(end) + 4, color, "bold", fmt.Sprintf("%s %.2f", name, end)})
		}
	}
	curve(participants, "#2f6f9f", "participants")
	curve(newcomers, "#a3262a", "newcomers")
	for _, c := range apart(names, 16) {
		fmt.Fprintf(&b, `<text x="%g" y="%.1f" fill="%s" font-weight="%s">%s</text>`+"\n", w-right+8, c.y, c.color, c.weight, c.text)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// caption is a name at the right end of a line.
type caption struct {
	y                   float64
	color, weight, text string
}

// apart moves captions down until none is closer to the one above than gap.
func apart(list []caption, gap float64) []caption {
	slices.SortFunc(list, func(a, b caption) int { return cmp.Compare(a.y, b.y) })
	for i := 1; i < len(list); i++ {
		list[i].y = max(list[i].y, list[i-1].y+gap)
	}
	return list
}

// niceStep rounds a step to 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*p {
			return m * p
		}
	}
	return 10 * p
}
