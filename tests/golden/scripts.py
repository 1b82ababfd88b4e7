# ruff: noqa: RUF001 (letters of all scripts; some are two columns wide)
"""Makes scripts.json: what the official caption scorer makes of words of many scripts.

  pip install pycocoevalcap   (1.2; it runs Java)
  python tests/golden/scripts.py

"words" has captions with the words of its PTBTokenizer (corenlp 3.4.1), "scores" the CIDEr and BLEU
of its Python scorers on these words, of candidates and references in `GROUPS`.
"""

import json
import pathlib
import unicodedata

CAPTIONS = (
  # Scripts with combining marks.
  *(
    "एक लाल डिब्बा और एक नीला डिब्बा।",
    "हिन्दी में क्षत्रिय ज्ञानी",
    "क्या? हाँ!",
    "श्री. राम",
    "१२३ घर",
    "#टैग",
  ),
  *("নীল বাক্স", "லால் சிவப்பு பெட்டி", "લાલ બોક્સ", "ఎరుపు పెట్టె", "กล่องสีแดงอยู่บนโต๊ะ", "ກ່ອງແດງ"),
  *("רَ שָׁלוֹם עוֹלָם", "رَجُلٌ يَرْكَبُ حِصَانًا", "أهلاً، وسهلا", "ما هذا؟", "می‌خواهم کتاب", "क्‍ष र्‍य"),
  # Letters with accents, composed and not.
  *("un café à côté d'une forêt", "ein Mädchen läuft über die Straße", "một con chó đang chạy"),
  *(
    "ένας άνδρας με ένα σκύλο",
    "две собаки бегут",
    "İstanbul'da bir köpek",
    "niño y niña, ¿qué? ¡hola!",
  ),
  *("თეთრი ძაღლი", "սպիտակ շուն", "ቀይ ሳጥን", "ﬁne ﬂoor", "g\u0308 o\u0328\u0301 s\u0323\u0307"),
  # French apostrophes.
  *("l'homme n'est pas très âgé", "c'est une table", "j'ai vu s'il vient", "qu'il m'a dit t'es"),
  *("c’est l’homme qu’il", "d'un l'a d'eau l'été", "les garçons d'à côté", "lorsqu'un", "L'Oréal"),
  *("D'Artagnan", "C'EST", "S'est", "qu'à", "rock'n'roll it's l'eau", "rock ’n’ roll", "y'all"),
  *("dell'acqua un'altra", "don’t it’s o’clock", "d' l' qu'"),
  # Chinese, Japanese, Korean.
  *(
    "一个红色的盒子",
    "一 个 红色 的 盒子",
    "你好，世界。",
    "《书》【一】（二）〔三〕〈四〉",
    "「箱」と『本』",
    "強い風が吹いている",
  ),
  *("빨간 상자와 파란 상자", "3个人", "ＡＢＣ ３人"),
  # Emoji and signs.
  *(
    "a dog 👍🏽 on grass",
    "👨‍👩‍👧 a family",
    "❤️ love",
    "a flag 🇫🇷 here",
    "1️⃣ one",
    "dogs🐶🐶",
    "i ♥ you a™",
  ),
  *(
    "x² and h₂o",
    "½ cup ⅔ cup",
    "№ 5 10 ℃ 5°",
    "€20 ₹50 ¥100",
    "«bonjour» ‹mot› „Hund“",
    "a‑b a‐b c–d",
  ),
  *(
    "soft\u00adhyphen zero\u200bwidth a\u00a0b",
    "Ⅳ chapter",
    "3×4 a±b § 5",
    "_under_ a_b __init__",
  ),
  *("A&B a&b AT&T", "é/è a/b 1/2 चाय/कॉफी", "• item → right ✔"),
)

# Candidates and references of four images in one language each.
GROUPS = {
  "hindi": [
    ("एक लाल डिब्बा मेज पर", ["एक लाल डिब्बा मेज पर है।", "मेज पर लाल डिब्बा"]),
    ("दो कुत्ते दौड़ रहे हैं", ["दो कुत्ते घास पर दौड़ रहे हैं", "कुत्ते दौड़ते हैं"]),
    ("एक आदमी घोड़े पर", ["घोड़े पर बैठा एक आदमी", "एक आदमी घोड़ा चला रहा है"]),
    ("नीली गाड़ी", ["सड़क पर नीली गाड़ी", "एक नीली गाड़ी खड़ी है"]),
  ],
  "french": [
    ("un garçon qui mange une crêpe", ["un garçon mange une crêpe", "l'enfant qui mange"]),
    ("un café à côté d'une forêt", ["un café près d'une forêt", "c'est un café à côté d'un bois"]),
    ("l'homme n'est pas là", ["l'homme n'est pas très âgé", "qu'il est âgé, l'homme"]),
    ("une fenêtre", ["une fenêtre fermée", "la fenêtre d'à côté"]),
  ],
  "chinese": [
    ("一 个 红色 的 盒子", ["一 个 红色 的 盒子 。", "红色 盒子 在 右边"]),
    ("两 只 狗 在 跑", ["两 只 狗 在 草地 上 跑", "狗 在 跑"]),
    ("一 个 人 骑 马", ["一 个 男人 骑 着 马", "一 个 人 骑 马"]),
    ("蓝色 汽车", ["一 辆 蓝色 的 汽车", "路 上 的 蓝色 汽车"]),
  ],
  "arabic": [
    ("رجل يركب حصانا", ["رَجُلٌ يركب حصانا", "رجل على حصان"]),
    ("صندوق أحمر", ["صندوق أحمر بجانب صندوق أزرق", "صندوق أحمر، كبير"]),
    ("كلبان يركضان", ["كلبان يركضان على العشب", "كلبان صغيران"]),
    ("سيارة زرقاء", ["سيارة زرقاء في الشارع", "هل هي سيارة زرقاء؟"]),
  ],
  "emoji": [
    ("a dog 👍🏽 on grass", ["a dog on the grass 👍🏽", "one dog 🐶🐶 there"]),
    ("two kids ❤️ a cake", ["two kids 👩‍👩‍👦 eat a cake", "kids love a cake ❤️"]),
    ("a man on a horse", ["a man 🏇🏾 on a horse", "1️⃣ man rides"]),
    ("blue car", ["a blue car 🚗 parked", "the car is blue 🇫🇷"]),
  ],
}


def main() -> None:
  from pycocoevalcap.bleu.bleu import Bleu
  from pycocoevalcap.cider.cider import Cider
  from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

  def words(captions):
    given = {place: [{"caption": text}] for place, text in enumerate(captions)}
    found = PTBTokenizer().tokenize(given)
    return [found[place][0] for place in range(len(captions))]

  captions = list(dict.fromkeys(unicodedata.normalize("NFC", text) for text in CAPTIONS))
  scores = {}
  for name, group in GROUPS.items():
    results = {k: words([candidate]) for k, (candidate, _) in enumerate(group)}
    truth = {k: words(references) for k, (_, references) in enumerate(group)}
    bleu, _ = Bleu(4).compute_score(truth, results, verbose=0)
    cider, _ = Cider().compute_score(truth, results)
    scores[name] = {f"BLEU{n}": value for n, value in enumerate(bleu, 1)}
    scores[name]["CIDEr_own"] = float(cider)
  found = {"words": dict(zip(captions, words(captions), strict=True)), "scores": scores}
  path = pathlib.Path(__file__).with_suffix(".json")
  path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
