"""Given names that are frequent in the United States and are no word of medicine or trade.

Two words may be a person or a code's label ("Jane Doe", "Skin Cancer"); a given name tells them
apart. A name that is also a word (Grace, Mark, Rose, Will) is left out, so the list is a tripwire
and no proof.
"""

from typing import Final

GIVEN_NAMES: Final = (
    *("aaron", "abigail", "adam", "alan", "albert", "alexander", "alexis", "alice", "amanda"),
    *("amber", "amy", "andrea", "andrew", "angela", "ann", "anna", "anthony", "arthur", "ashley"),
    *("barbara", "benjamin", "betty", "beverly", "brandon", "brenda", "brian", "brittany"),
    *("bruce", "bryan", "carl", "carlos", "carol", "carolyn", "catherine", "charles", "charlotte"),
    *("cheryl", "christina", "christine", "christopher", "cynthia", "daniel", "danielle", "david"),
    *("deborah", "debra", "denise", "dennis", "diana", "diane", "donald", "donna", "doris"),
    *("dorothy", "douglas", "edward", "elizabeth", "emily", "emma", "eric", "ethan", "eugene"),
    *("evelyn", "frances", "gabriel", "gary", "george", "gerald", "gloria", "gregory", "hannah"),
    *("harold", "heather", "helen", "henry", "isabella", "jack", "jacob", "jacqueline", "james"),
    *("jane", "janet", "janice", "jason", "jean", "jeffrey", "jennifer", "jeremy", "jerry"),
    *("jesse", "jessica", "joan", "joe", "john", "jonathan", "jose", "joseph", "joshua", "joyce"),
    *("juan", "judith", "judy", "julia", "julie", "justin", "karen", "katherine", "kathleen"),
    *("kathryn", "kayla", "keith", "kelly", "kenneth", "kevin", "kimberly", "kyle", "larry"),
    *("laura", "lauren", "lawrence", "linda", "lisa", "logan", "lori", "louis", "madison"),
    *("margaret", "maria", "marie", "marilyn", "martha", "mary", "matthew", "megan", "melissa"),
    *("michael", "michelle", "nancy", "natalie", "nathan", "nicholas", "nicole", "noah", "olivia"),
    *("pamela", "patricia", "patrick", "paul", "peter", "philip", "rachel", "ralph", "raymond"),
    *("rebecca", "richard", "robert", "roger", "ronald", "russell", "ruth", "ryan", "samantha"),
    *("samuel", "sandra", "sara", "sarah", "scott", "sean", "sharon", "shirley", "sophia"),
    *("stephanie", "stephen", "steven", "susan", "teresa", "theresa", "thomas", "timothy"),
    *("tyler", "victoria", "vincent", "virginia", "walter", "wayne", "william", "zachary"),
)
