"""A WordPiece vocabulary made from the shards' own text, for models that start from nothing."""

import string
from collections.abc import Iterable
from typing import Any

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(texts: Iterable[str], size: int, max_tokens: int) -> Any:
    """Train a lower-case WordPiece tokenizer, as BERT's; the same from the same texts.

    Parameters
    ----------
    texts : iterable of str
        Sentences.
    size : int
        Of the vocabulary, at most.
    max_tokens : int
        Of a sentence, kept with the tokenizer.
    """
    from tokenizers import normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    lines = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=True)
    # Prompts may have letters that no reading has.
    every = string.ascii_lowercase + string.digits + string.punctuation
    used = {letter for line in lines for letter in normalizer.normalize_str(line)}
    letters = sorted(letter for letter in {*every, *used} if not letter.isspace())
    # The trainer breaks ties by number, and numbers inner letters in the order of a hash table
    # that differs from one training to the next: given as special tokens they come first.
    inner = [f"##{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*_SPECIAL, *inner], initial_alphabet=letters,
        show_progress=False,
    )  # fmt: skip
    learnt = _wordpiece(normalizer, {})
    learnt.train_from_iterator(lines, trainer)
    made = _wordpiece(normalizer, learnt.get_vocab())  # without the inner letters as specials
    made.add_special_tokens(_SPECIAL)
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _wordpiece(normalizer: Any, vocabulary: dict[str, int]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made
