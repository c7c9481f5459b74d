"""Finding out in which encoding names are that do not say so, as those in zips of older Windows do not.

Which encodings make text of all names is seldom one alone. Of these the one is taken whose characters are commonest:
encodings of East Asia have those in an area of their own, and words of alphabets keep to one script and one case.
"""

import re
from collections.abc import Iterable

UNKNOWN = "cp437"  # that of the first zips, in which any bytes are text
ENCODINGS = {"cp932": "Shift-JIS", "gbk": "GBK", "big5": "Big5", "cp949": "cp949", "cp866": "cp866", "cp437": "cp437"}
# The syllables that most Korean words are of: the bytes of any may be Chinese too.
COMMON_SYLLABLES = frozenset(
    "가각간갈감강개거건게견결경계고곡골곰공과관광교구국군귀그근글금급기긴길김꽃끼나난날남내너네노녹농누눈는늘니다단"
    "달닭담당대더도독돌동돼두둥드등디딩딸라락란람랑래량러레력로록료루류르른를름리린림마막만말망매머면명모목몰무문물"
    "미민밀바박반발밥방배백버번벌범법병보복본볼부북분불비빈빛빨빵뿔사산살삼상새색생서석선설성세소속손송수숙순술스습"
    "시식신실심쌀쓰아악안알암앙애야약양어억언얼업에여역연열염영예오옥온올와왕외요용우운원월위유육윤으은을음의이인일"
    "임입잉자작잔잠장재저적전절점정제조족종좌주죽준중즈지직진질집차참창채책천철첫청체초총추축춘출충치침카칸커컵코콜"
    "크키타탁탈태터테토통투트특티파판팔팬퍼페편평포표푸품풍프플피필하학한할함합항해행향허험형호화환황회효후훈휴흑희"
    "흰히힘"
)
# What is less likely than this is no better than any other reading.
LEAST = 0.4
MOST_LOOKED_AT = 5000

_WORD = re.compile(r"[^\W\d_]+")


def guess_encoding(names: Iterable[bytes]) -> str | None:
    """Return the encoding of ENCODINGS in which names, none of them UTF-8, are most likely; None for no names.

    It is UNKNOWN where no other is likely. Each is text in it, whichever it is.
    """
    alive = list(ENCODINGS)
    looked_at: set[bytes] = set()
    is_any = False
    for name in names:
        is_any = True
        for encoding in alive[:-1]:
            try:
                name.decode(encoding)
            except UnicodeDecodeError:
                alive.remove(encoding)
        if len(looked_at) < MOST_LOOKED_AT:
            looked_at.update(run for run in re.split(rb"[\x00-\x2f]+", name) if not run.isascii())
    if not is_any:
        return None
    likely = {encoding: _likelihood(looked_at, encoding) for encoding in alive}
    best = max(likely, key=lambda encoding: likely[encoding])
    return best if likely[best] >= LEAST else UNKNOWN


def _likelihood(runs: set[bytes], encoding: str) -> float:
    """Return how common the characters of some bytes are in an encoding, each counted once: 0 to 1."""
    values: dict[str, float] = {}
    for run in runs:
        text = run.decode(encoding, "replace")
        if encoding in ("cp866", "cp437"):
            values |= _in_alphabet(text, encoding)
        else:
            values |= {letter: _in_east_asia(letter, encoding) for letter in text if not letter.isascii()}
    return sum(values.values()) / len(values) if values else 0.0


def _in_alphabet(text: str, encoding: str) -> dict[str, float]:
    values = {letter: 0.0 for letter in text if not letter.isascii()}
    for word in _WORD.findall(text):
        is_cased = word.islower() or word.isupper() or word.istitle()
        if encoding == "cp866":
            is_word = all("Ѐ" <= letter <= "ӿ" for letter in word)
        else:  # of Latin letters few in a word have accents
            accented = sum(not letter.isascii() for letter in word)
            is_word = all(letter < "Ɛ" for letter in word) and 2 * accented <= len(word)
        if is_cased and is_word:
            likely = 0.95 if len(word) > 2 else 0.55  # any two bytes may be a short word
            values |= {letter: likely for letter in word if not letter.isascii()}
    return values


def _in_east_asia(letter: str, encoding: str) -> float:
    """Return how common a character is, by the area of the encoding that it is in."""
    code = letter.encode(encoding, "replace")
    if len(code) < 2:  # half a width, as in old Japanese names
        return 0.1
    lead, trail = code
    if encoding == "cp932":
        if lead in (0x82, 0x83) or letter == "ー":
            return 0.9 if "ぁ" <= letter <= "ー" else 0.1
        return 0.8 if 0x88 <= lead <= 0x97 else 0.2
    if encoding == "gbk":  # the first level of GB 2312, then its second
        if trail < 0xA1:
            return 0.05
        return 0.75 if 0xB0 <= lead <= 0xD7 else 0.3 if 0xD8 <= lead <= 0xF7 else 0.1
    if encoding == "big5":
        return 0.7 if 0xA4 <= lead <= 0xC6 else 0.2
    if 0xB0 <= lead <= 0xC8 and trail >= 0xA1:
        return 0.9 if letter in COMMON_SYLLABLES else 0.5
    return 0.05
