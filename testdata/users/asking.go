package users

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/ruche-federation/ruche/testdata/users/phrase"
)

// frenchVerbs gives the imperatives: infinitive, to a friend, to a stranger.
const frenchVerbs = `
aider aide aidez/ajouter ajoute ajoutez/allumer allume allumez/annuler annule annulez/appeler appelle appelez/apprendre apprends apprenez
arrêter arrête arrêtez/baisser baisse baissez/bloquer bloque bloquez/chercher cherche cherchez/commander commande commandez
compter compte comptez/conseiller conseille conseillez/continuer continue continuez/convertir convertis convertissez
corriger corrige corrigez/couper coupe coupez/créer crée créez/demander demande demandez/dire dis dites/donner donne donnez
doubler double doublez/décaler décale décalez/déplacer déplace déplacez/encourager encourage encouragez/enlever enlève enlevez
envoyer envoie envoyez/expliquer explique expliquez/faire fais faites/fermer ferme fermez/garder garde gardez/indiquer indique indiquez
interroger interroge interrogez/inventer invente inventez/jouer joue jouez/lancer lance lancez/lire lis lisez/mettre mets mettez
monter monte montez/noter note notez/ouvrir ouvre ouvrez/partager partage partagez/passer passe passez/prendre prends prenez
proposer propose proposez/préparer prépare préparez/prévenir préviens prévenez/raconter raconte racontez/rappeler rappelle rappelez
redire redis redites/reformuler reformule reformulez/relancer relance relancez/relire relis relisez/reprendre reprends reprenez
retrouver retrouve retrouvez/rédiger rédige rédigez/régler règle réglez/répondre réponds répondez/réserver réserve réservez
résumer résume résumez/réveiller réveille réveillez/supprimer supprime supprimez/traduire traduis traduisez/trouver trouve trouvez
vider vide videz/vérifier vérifie vérifiez/écrire écris écrivez/éteindre éteins éteignez/être sois soyez`

type imperative struct{ friend, stranger string }

func readVerbs() map[string]imperative {
	verbs := map[string]imperative{}
	for entry := range strings.FieldsFuncSeq(frenchVerbs, func(r rune) bool { return r == '/' || r == '\n' }) {
		f := strings.Fields(entry)
		verbs[f[0]] = imperative{f[1], f[2]}
	}
	return verbs
}

// clitics lists the pronouns before an infinitive and what becomes of them behind an imperative.
var clitics = []struct{ before, behind string }{
	{"me le ", "-le-moi"}, {"me la ", "-la-moi"}, {"me ", "-moi"}, {"m'", "-moi"}, {"le ", "-le"}, {"la ", "-la"},
}

// frames are the ways to ask, around an infinitive. %s is the request; one that ends with ? is a question.
var frames = map[string]string{
	"fr peux": "tu peux %s ?", "fr peuxtu": "peux-tu %s ?", "fr pourrais": "tu pourrais %s ?", "fr tupourrais": "tu pourrais %s ?",
	"fr estce": "est-ce que tu peux %s ?", "fr pense": "pense à %s", "fr oublie": "n'oublie pas de %s", "fr faudrait": "il faudrait %s",
	"fr pouvez": "pouvez-vous %s ?", "fr pourriez": "pourriez-vous %s ?", "fr veuillez": "veuillez %s", "fr merci": "merci de %s", "fr prie": "je vous prie de %s",
	"en imp": "%s", "en please": "please %s", "en can": "can you %s?", "en could": "could you %s?", "en couldplease": "could you please %s?",
	"en would": "I'd like you to %s", "en wouldyou": "would you %s?", "en need": "I need you to %s", "en goahead": "go ahead and %s", "en dear": "be a dear and %s",
}

// otherWays maps a way of asking to its nearest in the other language, for people who speak both.
var otherWays = map[string]string{
	"fr can": "peux", "fr could": "pourrais", "fr couldplease": "pourrais", "fr please": "imp", "fr would": "pourrais", "fr goahead": "imp",
	"en peux": "can", "en peuxtu": "can", "en pourrais": "could", "en tupourrais": "could", "en estce": "can", "en pense": "imp", "en oublie": "imp",
	"en pouvez": "can", "en pourriez": "could", "en vimp": "please", "en faudrait": "imp",
}

// ask puts a request, written in the infinitive, in the speaker's way. It returns the sentence and whether it is a question.
func ask(verbs map[string]imperative, lang, way, request string) (string, bool, error) {
	if _, ok := frames[lang+" "+way]; !ok && way != "imp" && way != "vimp" {
		way = otherWays[lang+" "+way]
	}
	if lang == "fr" && (way == "imp" || way == "vimp") {
		s, err := command(verbs, request, way == "vimp")
		return s, false, err
	}
	frame, ok := frames[lang+" "+way]
	if !ok {
		return "", false, fmt.Errorf("no way of asking %q in %s", way, lang)
	}
	frame, question := strings.CutSuffix(strings.TrimSuffix(frame, "?"), " ")
	question = question || strings.HasSuffix(frames[lang+" "+way], "?")
	if before, ok := strings.CutSuffix(frame, "de %s"); ok && lang == "fr" {
		elided, err := phrase.Form("de", request)
		return before + elided, question, err
	}
	return strings.Replace(frame, "%s", request, 1), question, nil
}

// command turns "me rappeler de" into "rappelle-moi de".
func command(verbs map[string]imperative, request string, stranger bool) (string, error) {
	behind := ""
	for _, c := range clitics {
		if rest, ok := strings.CutPrefix(request, c.before); ok {
			request, behind = rest, c.behind
			break
		}
	}
	end := strings.IndexFunc(request, func(r rune) bool { return !unicode.IsLetter(r) })
	if end < 0 {
		end = len(request)
	}
	v, ok := verbs[request[:end]]
	if !ok {
		return "", fmt.Errorf("no imperative for %q", request[:end])
	}
	form := v.friend
	if stranger {
		form = v.stranger
	}
	return form + behind + request[end:], nil
}
