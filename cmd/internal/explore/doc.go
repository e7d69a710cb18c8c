// Package explore goes through every way in which a round's opening, vote and reveal can go, under a lying leader, lying
// members, crashes and restored backups, and holds each against the invariants of secure-aggregation.md, section 8: 1 to 5
// and 9. Run is its one verb.
//
// # What is real
//
// Every honest member is a coordinator.Member on a folder of its own, with its round.Machine and its epoch's vote file.
// What a member does is a function of the log that it was shown and of what lies on its disk; so the real program runs
// once for each such pair, from opening the folder to closing it, and what it wrote and said is remembered. At each
// statement that leaves it, and each time it makes its applied index durable, the folder is read: that is what a crash at
// this moment leaves.
//
// # What a lying leader may do
//
// The last member leads and lies; up to f lie. Raft orders and authorises nothing, so the leader shows each honest member
// any log it likes: one of two configs of one seq, a list of four contributions or of three, Closes of several M, Acks in
// which a liar refuses a candidate or does not, votes, reveals, expiries, results and ticks, in any order that can matter. So
// members may decide for set A, for set B or for DEAD. What an honest member has signed is in a pool, from which liars
// bring anything to anybody; what liars sign they sign at will, and twice. A member that crashes comes back with its
// log, or with no more of it than its disk says it had applied (the guard of the log), and is shown another one from there;
// or from a backup that holds nothing that it wrote, after which it may say nothing in this round.
//
// # What a state is
//
// A pool: what each honest member has signed. For each the search keeps, per member, the set of states that it may be in,
// and what it would sign next in one of them; a member meets the others only through the pool, so nothing is lost by looking
// at one member at a time. It is more than what can happen: a member's states are found as if all that is in the pool
// had been there from the start, its own words aside. Properties of more states than can be reached hold for those that can.
//
// Logs that leave a member with the same duties are one (class): indices, times, who else stands in a certificate, and what
// the decision has made irrelevant are forgotten. Entries between which a member owes nothing come together (chunk). Votes
// come with the Close at the earliest, since no duty before it asks for them. A torn last record of a vote file is opened
// for itself, and has to give the file without it. The member's own look at the log (witness) is not counted as
// making anything durable: only what an ack or a signature rests on is.
//
// # What is not modelled
//
// Uploads and receipts: every member holds every contribution (the lab's affair). Sums over the mesh: no member gets another's, so no
// honest Result is made; a published round is shown with Results that the package signs. Sums are on the disk as soon as they
// were ever folded. A member's clock stands still: epochs do not end. Key packages of a second epoch are not listed by a
// second config: a member that lost its keys may then sign a second config of a seq, which splits a cohort and opens nothing
// twice (SA 2.3, Opening).
//
// Sizes beyond (4,1) are walked at random, under a seed, without any of the reductions but classes and chunks. Of four walks
// one leans towards set A, one towards B, one towards death, one nowhere: without that hardly any comes to a certificate of a set.
package explore
