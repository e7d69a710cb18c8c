// Package users writes the people of the tests and the demonstration: Generate gives the records of users.jsonl.
//
// Thirty-two invented people, French and English, say the small everyday things one says to an assistant: reminders, messages,
// shopping, music, recipes, questions. They share constructions, so that one profits from what others taught; each has topics,
// names, places, vocabulary, ways of asking and recurring habits of their own, so that one person's text is a poor teacher for another.
//
// text/fr.txt and text/en.txt hold topics and vocabulary, text/people.txt the people; package phrase puts them together.
// The files are embedded and the source of randomness is PCG with a fixed seed: the same seed gives the same bytes.
//
//	go run ./testdata/users/generate -out testdata/users/users.jsonl
//
// Limitations: nobody real speaks here, and the days have no dates. The order of a person's records is the order in time.
// The test that holds users.jsonl to this package stands in cmd/internal/pretrain, since ./... does not see testdata.
package users
