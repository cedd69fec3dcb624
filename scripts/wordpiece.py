"""Token ids of transformers for the tests: scripts/wordpiece.py DATA

Trains two small vocabularies on DATA/text/sms-spam and the hard strings below, one of lower case and one of both, and
writes to tests/data/wordpiece:

* `uncased/` and `cased/`: the tokenizers as transformers saves them, and the vocabulary as vocab.txt;
* `cases.json`: the hard strings with the ids of both, and for each whether transformers' tokenizer in Python alone
  (`BertTokenizerLegacy`) gives the same; the SHA-256 of the ids of every text of the two corpora; and the SHA-256 of
  the words that the pre-tokenizer makes of every character of some blocks.

The ids of a corpus are hashed as 32-bit words, little-endian, each text's number of ids before them.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

from tokenizers import BertWordPieceTokenizer, normalizers
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

TARGET = Path(__file__).parent.parent / "tests/data/wordpiece"
SIZE = 700
LIMIT = 512

HARD = [
    "",
    " \t\r\n ",
    "plain words, and a full stop.",
    "Don't stop-me now!!! (really?) $5.00 50% a+b=c <tag> ~tilde^hat`tick|bar",
    "CAFÉ naïve Ångström ÀÉÎÕÜ résumé",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m e\u0323\u0302",
    "İstanbul DIŞARI ıssız straße STRASSE ẞ",
    "ΟΔΥΣΣΕΥΣ Σίσυφος ς",
    "中文字符 mixed中with文latin 日本語カタカナ ひらがな 한국어",
    "𠀀𪛖𫝀𫠝 \U0002b820\U0002b91f\U0002b920\U0002ceaf 豈",
    "emoji 😀👍🏽👨‍👩‍👧‍👦🇩🇪 ❤️ ☃ text",
    "zero\u0000byte re\ufffdplaced contr\u0007ol dele\u007fte c1\u0085x soft\u00adhyphen",
    "bom\ufeffinside zero\u200bwidth word\u2060joiner left\u200eright private\ue000use",
    "nbsp\u00a0space thin\u2009space ideo\u3000graphic line\u2028para\u2029end ogham\u1680x vt\u000bff\u000c",
    "[CLS] in the text [SEP] and [MASK], [PAD]ded, [unk] [UNK]nown [CLS]",
    "[ CLS ] [CLS [[CLS]] CLS] [cls]",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " end",
    "é" * 100 + " " + "e\u0301" * 100 + " " + "e\u0301" * 51,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "«guillemets» “quotes” ‘single’ ¿qué? ¡no! § ¶ † … — – ‐ · ‰ ′ ※",
    "€£¥₹ ©®™ ±×÷ ½ ² ³ ª º № ℃ ﬁ ﬂ Ⅳ ① ㎏",
    "عَرَبِيّ، نص؟ עִבְרִית־טקסט हिन्दी। ไทย ภาษา বাংলা தமிழ்",
    "Việt Nam tiếng Việt  ŁÓDŹ źdźbło Čeština ŘŮ",
    "a\u0300\u0301\u0302\u0303 \u0301 lone \u0301mark",
    "http://www.example.com/a_b?c=d&e=f#g user@example.org 0800-123 456",
    "x" * 30 + "\u0000" * 5 + "y",
    "Ǆ ǅ ǆ ŉ ǰ ΐ և ẖ ﬀ ᾼ ῼ",
    "Å Ω K ﷺ ＡＢＣ１２３ ｱｲｳ！",
    "word " * 20,
    "\U000e0001tag\U000e0067 \ufe0f variation \U0001d400\U0001d401 math",
    "\ufdd0 \uffff \U0001fffe nonchar \u0378 unassigned",
    "und##er ##start ## #",
    "ham\tspam\nnew line\r\nwindows",
]

BLOCKS = [
    (0x0, 0x52F), (0x590, 0x5FF), (0x1E00, 0x1FFF), (0x2000, 0x24FF), (0x3000, 0x33FF), (0x4DC0, 0x9FA5),
    (0xAC00, 0xD7A3), (0xE000, 0xFDFF), (0xFE10, 0xFFFF), (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F300, 0x1F5FF),
    (0x1FFF0, 0x20010), (0x2A6C0, 0x2A6FF), (0x2A700, 0x2CFFF), (0x2F7F0, 0x2FA2F), (0xE0000, 0xE01FF), (0xFFFF0, 0x10FFFF),
]  # fmt: skip


def corpora(data):
    sms = (data / "text/sms-spam/SMSSpamCollection").read_bytes().decode()
    trec = (data / "text/trec/train_5500.label").read_bytes().decode("latin-1")
    return {
        "sms-spam": [line.split("\t", 1)[1] for line in sms.split("\n") if line],
        "trec": [line.split(" ", 1)[1] for line in trec.split("\n") if line],
    }


def digest(tokenizer, texts):
    whole = hashlib.sha256()
    for ids in tokenizer(texts, truncation=True, max_length=LIMIT)["input_ids"]:
        whole.update(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids))
    return whole.hexdigest()


def words(tokenizer):
    """Of every character between two letters: what it is normalised to, and the words of that."""
    whole = hashlib.sha256()
    backend = tokenizer.backend_tokenizer
    for first, last in BLOCKS:
        for code in range(first, last + 1):
            text = backend.normalizer.normalize_str(f"a{chr(code)}b")
            parts = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
            whole.update(f"{text}\0{chr(1).join(parts)}\2".encode())
    return whole.hexdigest()


def main():
    texts = corpora(Path(sys.argv[1]))
    found = {"limit": LIMIT, "blocks": BLOCKS, "strings": [{"text": text} for text in HARD], "corpora": {}, "words": {}}
    for name, lower in [("uncased", True), ("cased", False)]:
        folder = TARGET / name
        folder.mkdir(parents=True, exist_ok=True)
        trained = BertWordPieceTokenizer(lowercase=lower)
        trained.train_from_iterator(texts["sms-spam"] + HARD * 3, vocab_size=SIZE, limit_alphabet=400, show_progress=False)
        vocabulary = sorted(trained.get_vocab().items(), key=lambda pair: pair[1])
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary))
        fast = BertTokenizer(vocab=trained.get_vocab(), do_lower_case=lower, model_max_length=LIMIT)
        fast.save_pretrained(folder)
        slow = BertTokenizerLegacy(str(folder / "vocab.txt"), do_lower_case=lower)
        for entry in found["strings"]:
            ids = fast(entry["text"])["input_ids"]
            entry[name] = ids
            same = slow(entry["text"])["input_ids"] == ids
            if not same:
                entry[f"{name}_differs_in_python"] = True
                print("differs", name, repr(entry["text"]))
        found["corpora"][name] = {corpus: digest(fast, lines) for corpus, lines in texts.items()}
        for corpus, lines in texts.items():
            assert digest(slow, lines) == found["corpora"][name][corpus], (name, corpus)
        found["words"][name] = words(fast)
    (TARGET / "cases.json").write_text(json.dumps(found, ensure_ascii=True, indent=1))


main()
