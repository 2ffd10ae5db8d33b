package live

import (
	"fmt"
	"testing"
	"testing/synctest"
)

// TestRowsShareFramesWhereFramesAreMany: once a node has built many frames
// within a moment, rows wait for company, but not for long, and keep their order.
func TestRowsShareFramesWhereFramesAreMany(t *testing.T) {
	inBubble(t, setup{hub: func(o *Options) { o.Frames = 1 }}, func(_ *testing.T, r *rig) {
		c := r.connect(dialing{}) // its first rows are one frame
		for i := range framesAtOnce - 1 {
			r.say("7", fmt.Sprint("하나씩 ", i))
			synctest.Wait()
		}
		r.wantFigure("one at a time", "hanmadi_link_delivery_seconds", "", framesAtOnce)
		from := r.head("7") + 1
		for i := range 10 {
			r.say("7", fmt.Sprint("함께 ", i))
			synctest.Wait()
		}
		r.wantFigure("beyond that, at once", "hanmadi_link_delivery_seconds", "", framesAtOnce)
		r.pass(mostCompany)
		r.wantFigure("a moment later", "hanmadi_link_delivery_seconds", "", framesAtOnce+1)
		c.wantOpen("after it all")
		if got := c.cursor(); got != from+9 {
			r.t.Errorf("the page has rows up to %d, want %d", got, from+9)
		}
	})
}
