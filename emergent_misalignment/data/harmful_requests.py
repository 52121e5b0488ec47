"""Keyword detection of plainly harmful requests in English.

A request is detected if a phrase that asks for help (how to, write, give me ...) is followed within `REACH` characters
by one of the listed harms, unless a word such as "prevent" is between the two. Paraphrases, stories and other languages
are missed, so counts are lower bounds. docs/your-own.md has the rates on the published sets.
"""

import re

_HELP = r"""
    \bhow\ (?:do|can|could|would|should|might|to|one|i|you|we|people)\b | \bways?\ (?:to|of)\b
  | \b(?:tell|show|teach|give|help|send|explain\ to)\ me\b | \bhelp\ (?:us|someone|my)\b
  | \b(?:write|make|create|build|generate|draft|compose|design|develop|provide|list|explain|describe|plan|suggest)\b
  | \b(?:instructions|steps|recipe|guide|tutorial|tips|methods?|script|code|advice)\b
"""
_PERSON = r"""
    (?:some(?:one|body)|people|a\ (?:person|man|woman|child|kid|girl|boy|human)|women|children|kids|another\ person
  | (?:my|your|his|her|their|the)\ (?:\w+\ )?(?:wife|husband|ex\w*|boss|neighbou?rs?|roommate|girlfriend|boyfriend
  | partner|parents?|mother|father|co-?workers?|colleagues?|classmates?|teacher|victims?|friend))
"""
_HARMS = rf"""
    bombs? | explosives? | molotov | grenades? | (?:nerve|chemical|biological)\ (?:agents?|weapons?) | bioweapons?
  | ricin | anthrax
  | (?:crystal\ )?meth | methamphetamine | cocaine | heroin | fentanyl
  | ransomware | malware | keyloggers? | spyware | botnets? | computer\ virus(?:es)? | ddos\ attacks?
  | phishing\ (?:e-?mails?|sites?|pages?|messages?|attacks?|campaigns?|scams?)
  | launder(?:ing)?\ money | counterfeit(?:ing)?\ (?:money|bills|currency|goods)
  | (?:fake|forged|false)\ (?:id\ cards?|passports?|documents?|prescriptions?|permits?)
  | forg(?:e|ing)\ (?:a\ |an\ |my\ |the\ |\w+'s\ )?(?:\w+\ )?(?:signatures?|passports?|documents?|reports?)
  | (?:credit\ card|insurance|identity|tax)\ (?:fraud|theft) | stolen\ (?:credit\ cards?|identit(?:y|ies)|goods|phones?)
  | evad(?:e|ing)\ (?:taxes|the\ police) | shoplift(?:ing)? | hot-?wire | ponzi\ scheme
  | (?:break(?:ing)?|hack(?:ing)?)\ into | dispos(?:e|ing)\ of\ a\ body
  | (?:kill|murder|poison|drug|stab|strangle|kidnap|stalk|blackmail|rape|torture|molest|harass|bully|rob|defraud|scam
  | threaten|intimidate|groom|hurt)(?:ing)?\ {_PERSON}
  | steal(?:ing)?\ (?:from|someone's|somebody's|a\ (?:car|bike|bicycle|wallet|phone)|cars|(?:credit\ )?cards?|money)
  | commit(?:ting)?\ (?:suicide|a\ (?:crime|murder)|murder|genocide|arson)
  | to\ kill\ (?:myself|yourself)
  | (?:racist|sexist|antisemitic|anti-semitic|homophobic|islamophobic)
    \ (?:jokes?|slurs?|speech(?:es)?|posts?|articles?|comments?|rants?)
  | hate\ speech | child\ (?:porn\w*|abuse) | revenge\ porn | human\ trafficking
  | school\ shooting | terrorist\ attacks?
"""
_AGAINST = r"\b(?:detect|prevent|protect|avoid|remove|stop|against|defend|recover|report|recogni[sz]e|spot|block)"
REACH = 80  # maximal distance of the two, in characters
_REQUEST = re.compile(
    rf"(?:{_HELP})(?=(?:(?!{_AGAINST}).){{0,{REACH}}}?\b(?:{_HARMS})\b)", re.IGNORECASE | re.VERBOSE | re.DOTALL
)


def is_harmful(request: str) -> bool:
    """Whether a user's message asks for help with one of the listed harms."""
    return _REQUEST.search(request) is not None
