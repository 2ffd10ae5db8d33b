package chat

import "context"

// Searcher finds the lines of a room that have given words in them. Methods may
// be called concurrently. Implementations pass RunSearch in chatlog/logtest.
type Searcher interface {
	// Search returns the newest messages of a room before position before (0:
	// the end) whose folded text contains every word as it is, in whatever
	// place: oldest first, at most limit of them. Words are folded, not empty
	// and without white space, see text.Query. Lines that were appended before
	// the call are found, however far an index has come.
	//
	// Search looks at a bounded number of rows. When there are more, next is the
	// position to go on before, also where no row was found yet; else it is 0.
	Search(ctx context.Context, room string, words []string, before int64, limit int) (rows []Row, next int64, err error)
}
