// Package phrase turns a template into a sentence: Expand fills slots, chooses among alternatives and lets French articles agree.
//
// A template is plain text with two marks. [a|b|] chooses one alternative, which may hold further marks.
// {slot} asks the caller for an entry, {form:slot} sets an article or a preposition before it:
//
//	le un mon ton son ce quel   articles and determiners that agree in French: le lait, l'ail, la farine, les œufs
//	du                          de + le, and the partitive: du lait, de l'ail, de la farine, des œufs
//	au                          à + le: au marché, à l'école, à la gare, aux halles
//	de que à                    elision or contraction before a bare word: d'Anna, qu'Anna, du client, au client
//	a the some my               English: a cake, an onion, some milk
//
// {n:2-9} is a number and {=slot} repeats the last entry of that slot. An entry carries its grammar behind a slash, lait/m, farine/f,
// œufs/mp, écharpes/fp, in English milk/u
// (no article), eggs/p and Lime Street/n (a name); a star in front forbids elision (*haricots/mp).
//
// Assumptions: templates and entries come with the program, so a malformed one is an error of ours, reported by name.
// The same templates, entries and source of randomness give the same text.
package phrase
