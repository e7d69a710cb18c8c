// Package prose writes the text that the tiny base model reads: Generate gives stories, letters, notices about animals, towns and
// trades, recipes and local news, in French and in English.
//
// It knows the words of everyday life but not the way people speak to an assistant: nobody is asked for anything. What the users of
// testdata/users say is therefore new to the base, which is what federated training is to teach; a test holds the two texts apart.
//
// Limitations: sentences follow patterns and stories lead nowhere. The base is there to be adapted, not to be read.
package prose
