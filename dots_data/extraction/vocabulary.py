"""What the fast extractor knows of markup: the kinds of elements, and words in class names that tell a part's role.

Everything here becomes small integer tables that compiled code looks up; their order is part of a model's
file format, and `fingerprint` names it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dots_data import automaton

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

# How the scanner treats an element.
INLINE, BLOCK, BREAK, RAW, SKIP, VOID = range(6)

_INLINE = (
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark math nobr "
    "q ruby s samp small span strike strong sub sup time tt u var mi mo mn mrow msub msup "
    "mfrac mtext annotation semantics"
)
_SKIP = "svg template select datalist textarea object audio video canvas map head applet frameset rt rp"
_RAW = "script style iframe noembed noframes xmp plaintext title"
_VOID = "area base basefont bgsound col embed frame img input keygen link meta param source track wbr"
_BREAK = "br hr"

# Roles of elements: a unit's own, its ancestors', each one bit and one feature.
ROLES = (
    "p",
    "h1",
    "h2",
    "h3",
    "h4 h5 h6",
    "li",
    "ul ol dir menu",
    "td th",
    "table tbody thead tfoot tr",
    "dt dd dl",
    "blockquote",
    "pre listing",
    "figcaption caption figure picture",
    "div",
    "section",
    "article",
    "main",
    "header",
    "footer address",
    "nav",
    "aside",
    "form fieldset legend",
    "button option",
    "details summary",
    "noscript",
    "center",
)
# Beyond the elements' own: set by attributes, or for what no role above names.
HIDDEN = len(ROLES)
OTHER = HIDDEN + 1
ROLE_COUNT = OTHER + 1

# Words that name a part's role wherever they stand in a class, an id, a `role` or an `itemprop`; "-" stands for
# whatever is no letter, and for the ends.
WORDS = (
    "article artikel story beitrag articulo",
    "content inhalt entry main contenu contenido",
    "post",
    "text body copy paragraph prose markdown",
    "comment kommentar disqus respond reply replies discuss leserbrief",
    "header masthead topbar -top-",
    "footer bottom colophon legal imprint impressum copyright -foot-",
    "nav menu crumb skip toolbar",
    "sidebar aside widget -rail- secondary complementary -side- margin",
    "share sharing social facebook twitter teilen whatsapp follow",
    "related recommend similar -more- popular trending -also- verwandt weitere readmore -most-",
    "advert anzeige sponsor promo -ad- -ads- outbrain taboola werbung affiliate adslot",
    "cookie consent gdpr privacy overlay modal popup dialog lightbox banner",
    "author byline autor writer vcard -bio- auteur",
    "meta date published datum -info- timestamp -time-",
    "caption credit figure image photo gallery bild media thumb slide carousel",
    "title headline heading -hed- titre titel",
    "lead intro summary teaser excerpt abstract subtitle standfirst vorspann kicker",
    "-tag -tags- category categor topic label keyword schlagwort rubrik",
    "newsletter subscri login signup register -abo- paywall account search form donat signin",
    "list item card grid feed archive tile -row- result",
    "pagin pager prev -next",
    "hidden sr-only screen-reader visually invisible noprint tooltip collapse",
    "quote code highlight table -box note infobox embed video player",
    "forum thread message topic question answer",
    "contentinfo copyright disclaimer policy terms license",
)

# Words of lines that are no main text, or stand at its edges, in the languages that most of the web is written in; "-"
# stands for anything that is no letter, and for the ends.
CUES = (
    "advertis -anzeige werbung sponsor -publicidad -reklama -publicite 广告 推广 廣告",
    "newsletter subscribe abonn suscri -abo- iscriviti registrier -register- -sign-up anmelden 订阅 訂閱 注册",
    "cookie privacy datenschutz gdpr consent -terms- impressum disclaimer agb- 隐私 免责声明",
    "-share -teilen partager compart condivid twitter facebook whatsapp instagram pinterest "
    "linkedin -tweet 分享 微信 微博",
    "-comment kommentar comentari commentair komentar -reply- antworten -repond 评论 留言 回复 評論",
    "-log-in- login -einloggen anmeld -account- passwor passwort 登录 登錄 密码",
    "-copyright- all-rights -rights-reserved alle-rechte -droits 版权 版權 © ®",
    "-photo- -foto -bild- -image- getty reuters -afp- -dpa- -credit -picture -imago- shutterstock 图片 摄影 圖",
    "-tags- -tag- -category -categor -kategorie -topics -filed-under -themen- -schlagw 标签 分类 關鍵",
    "read-more -mehr- weiterlesen weitere lire-aussi leer-mas -read-also lesen-sie -see-also "
    "-also- -auch- 阅读 更多 相关",
    "-related interessieren -interessant te-puede -similar -recommended -popular -empfohlen -passend 推荐 热门 相關",
    "published updated -posted -veröffentlicht publié -publicado aktualisiert -stand- 发布 更新 发表 時間 时间",
    "-author- -by- -von- -autor -auteur- -written-by -redaktion -editor -reporter -par- 作者 编辑 来源 記者 记者",
    "-source -quelle -via- -fuente -fonte- 来源 出处",
    "-home- -menu- -search -suche -startseite -navigation -skip-to -top- -back- -zurück 首页 菜单 搜索",
    "-next- -previous- -prev- -vorherig -nächst -weiter- -page- -seite- suivant siguiente 上一 下一",
    "-contact- -kontakt -contact-us -telefon -phone -e-mail -email -mailto- -address 电话 邮箱 联系",
    "-download -print- -drucken -pdf- -video- -play- -watch- -listen 下载 打印 视频",
    "-buy- -shop- -price -cart- -warenkorb -order- -bestellen -amazon -kaufen- 购买 价格",
    "january february march april- june july august september october november december januar "
    "februar märz -mai- juni juli oktober dezember enero febrero janvier février",
    "-minutes -minuten -min-read -hours-ago -ago- -stunden -uhr- -heute -gestern -days-ago 小时前 分钟",
    "http:// https:// www. @ .com .de-",
    "» › → | • ▶ ►",
    "-follow- -folgen -join- -like- -gefällt -abonnieren -subscribe- -support -donate -spende 关注",
    "-you-may -you-might -dont-miss -more-from -latest -neueste -aktuell -mas-leid -trending -top-stories",
    "-click -klick -here- -hier- -tap- -sign- -advertisement- 点击",
)

_FNV_OFFSET, _FNV_PRIME, _MASK = 2166136261, 16777619, 0xFFFFFFFF


class Vocabulary(NamedTuple):
    """The tables of the scanner.

    `tag_keys` [slots] holds hashes of tag names in an open-addressed table (0: free), `tag_codes` [slots] the
    rows of `kinds`, `roles` and `effects` [codes]. `next_state` [states, 27] and `found` [states] are an
    Aho-Corasick automaton over `symbols` [256] of bytes; `found` is a bit a group of `WORDS`. `next_cue`, `cues` and
    `cue_symbols` are the like for `CUES` in text.
    """

    tag_keys: I64
    tag_codes: I32
    kinds: I32
    roles: I32
    effects: I32
    next_state: I32
    found: I32
    symbols: I32
    next_cue: I32
    cues: I32
    cue_symbols: I32


# What an inline element does to the text inside.
LINK, STRONG, EMPHASIS, CODE, PREFORMATTED, CELL, ROW, ITEM, ROOT = (1 << bit for bit in range(9))
_EFFECTS = {
    LINK: "a",
    STRONG: "b strong",
    EMPHASIS: "em i cite q",
    CODE: "code kbd samp tt var",
    PREFORMATTED: "pre listing",
    CELL: "td th",
    ROW: "tr",
    ITEM: "li",
    ROOT: "html body",
}


def name_hash(name: bytes) -> int:
    """FNV-1a, 32 bits; never 0."""
    value = _FNV_OFFSET
    for byte in name:
        value = ((value ^ byte) * _FNV_PRIME) & _MASK
    return value or 1


@cache
def vocabulary() -> Vocabulary:
    """The tables, made once a process."""
    kind_of = {"unknown-inline": INLINE, "unknown-block": BLOCK}
    for kind, names in ((INLINE, _INLINE), (SKIP, _SKIP), (RAW, _RAW), (VOID, _VOID), (BREAK, _BREAK)):
        kind_of |= dict.fromkeys(names.split(), kind)
    role_of = {name: role for role, names in enumerate(ROLES) for name in names.split()}
    effect_of: dict[str, int] = {}
    for effect, names in _EFFECTS.items():
        for name in names.split():
            effect_of[name] = effect_of.get(name, 0) | effect
    blocks = {*role_of, "html", "body", "hgroup", "search", "hr", "optgroup"} - set(kind_of)
    kind_of |= dict.fromkeys(sorted(blocks), BLOCK)
    known = list(kind_of)
    keys, codes = _hash_table(known)
    symbols = _symbols(letters_only=True)
    next_state, found = _automaton(WORDS, symbols)
    cue_symbols = _symbols(letters_only=False)
    next_cue, cues = _automaton(CUES, cue_symbols)
    return Vocabulary(
        keys,
        codes,
        np.array([kind_of[name] for name in known], np.int32),
        np.array([role_of.get(name, OTHER) for name in known], np.int32),
        np.array([effect_of.get(name, 0) for name in known], np.int32),
        next_state,
        found,
        symbols,
        next_cue,
        cues,
        cue_symbols,
    )


def fingerprint() -> str:
    """8 hexadecimal digits over roles, words and cues: a model fits only the vocabulary it was trained with."""
    return hashlib.blake2b(repr((ROLES, WORDS, CUES)).encode(), digest_size=4).hexdigest()


def _hash_table(names: list[str]) -> tuple[I64, I32]:
    slots = 1024
    keys, codes = np.zeros(slots, np.int64), np.zeros(slots, np.int32)
    for code, name in enumerate(names):
        key = name_hash(name.encode())
        slot = key % slots
        while keys[slot]:
            slot = (slot + 1) % slots
        keys[slot], codes[slot] = key, code
    return keys, codes


def _symbols(letters_only: bool) -> I32:
    """The symbol of each byte, 0 for what separates words: letters without case, and if wanted all that is no ASCII."""
    symbols = np.zeros(256, np.int32)
    for letter in range(26):
        symbols[ord("a") + letter] = symbols[ord("A") + letter] = letter + 1
    if not letters_only:
        symbols[128:] = range(27, 27 + 128)
        symbols[list(b"|@./:")] = range(155, 160)
    return symbols


def _automaton(groups: tuple[str, ...], symbols: I32) -> tuple[I32, I32]:
    """The automaton of words over bytes; a bit a group."""
    words = ([[int(symbols[byte]) for byte in word.encode()] for word in group.split()] for group in groups)
    steps, found = automaton.build(words, int(symbols.max()) + 1)
    return steps, found.astype(np.int32)
