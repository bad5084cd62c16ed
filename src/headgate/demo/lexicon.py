"""What the document API knows about words of three languages: stop words, abbreviations, reading speeds.

Tables only. Everything is in lower case; an abbreviation is written without its last full stop, and one that
is written in several pieces ("z. B.") without the spaces ("z.b").
"""

from types import MappingProxyType
from typing import Final, Literal

Language = Literal["en", "de", "fr"]


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


STOP_WORDS: Final = MappingProxyType(
    {
        "en": _words("""
            a about above after again against all also although am an and any are aren't as at be because
            been before being below between both but by can can't cannot could did do does doesn't doing
            don't down during each either every few for from further had has have having he her here hers
            herself him himself his how however i if in into is isn't it it's its itself just may me might
            more most must my myself neither no nor not now of off on once only or other our ours ourselves
            out over own per same shall she should so some still such than that the their theirs them
            themselves then there these they this those through thus to too under until up upon us very was
            wasn't we were what when where whether which while who whom whose why will with within without
            won't would you your yours yourself
        """),
        "de": _words("""
            aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bereits
            bis bitte da dabei dafür damit danach dann daran das dass dazu dein deine dem den denn der deren
            des dessen dich die dies diese diesem diesen dieser dieses dir doch dort du durch ein eine einem
            einen einer eines er es etwa etwas euch euer für gegen habe haben hat hatte hatten hier hin ich
            ihm ihn ihnen ihr ihre ihrem ihren ihrer ihres im in ist ja jede jedem jeden jeder jedes jedoch
            kann kein keine keinem keinen keiner können könnte machen man mehr mein meine meinem meinen
            meiner mich mir mit muss müssen nach nicht nichts noch nun nur ob oder ohne sehr sein seine
            seinem seinen seiner seit sich sie sind so sobald sofern sollte sollten sondern sowie über um
            und uns unser unsere unserem unseren unserer unter vom von vor war waren wegen weil wenn wer
            werde werden wie wieder will wir wird wo worden wurde wurden während zu zum zur zwar zwischen
        """),
        "fr": _words("""
            afin ai ainsi alors après au aucun aucune aussi autre autres aux avant avec avoir avons c'est
            car ce ceci cela celle celles celui ces cet cette ceux chaque chez comme dans de depuis des deux
            doit doivent donc dont du elle elles en encore entre est et eux font fut il ils je jusqu'à la
            laquelle le lequel les lesquels leur leurs lors lorsque lui là ma mais me même mes moi moins mon
            ne ni nos notre nous on ont ou où par parce pas pendant peu peut peuvent plus pour pourquoi puis
            qu que quel quelle quels qui sa sans se selon sera seront ses si soit son sont sous sur ta te
            tes toi ton tous tout toute toutes très tu un une vos votre vous y à été être
        """),
    }
)

ELISIONS: Final = frozenset(("c", "d", "j", "jusqu", "l", "lorsqu", "m", "n", "puisqu", "qu", "s", "t"))
"""What stands before the apostrophe in "l'accord", "qu'elle": a stop word of its own, and French."""

WORDS_PER_MINUTE: Final = MappingProxyType({"en": 228, "de": 179, "fr": 195})
"""Silent reading of texts, Trauzettel-Klosinski and Dietz 2012 (IReST), by language."""

WORDS_PER_MINUTE_UNKNOWN: Final = 184
"""The same study's mean over seventeen languages."""

NEVER_LAST: Final = _words("""
    capt cf col dr drs e.g fr ft gen gov hon hr i.e lt mlle mm mme mmes mr mrs ms mt messrs mgr prof rep rev
    sen sgt sog st ste viz vs bzw ca d.h evtl gem ggf i.d.r inkl insb i.v.m o.g s.o vgl v.a z.b z.hd zzgl
    zzt c.-à-d env p.ex
""")
"""A full stop after one of these does not end a sentence: more of the same sentence has to follow."""

BEFORE_NUMBER: Final = _words("""
    abb abs abt anh app appx art bd ch chap cl eq exh fig figs kap lit no nos nr p para pos pp rn s sec sect
    secs tab tel vol vols ziff
""")
"""A full stop after one of these does not end a sentence where a number follows: "Art. 7"."""

SOMETIMES_LAST: Final = _words("""
    al apr approx aug bros co corp dec dept est etc ext feb inc jan jr jul jun ltd max min mio mrd nov oct
    sep sept sr tsd u.a usf usw str dez okt
""")
"""A full stop after one of these ends a sentence only where the next word opens one: "Acme Inc. The …"."""
